"""What a configuration asks for as cohorts of runs, and the names that results are found again by."""

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from flax_attnat.config import Config, DataConfig, OptimizerConfig, PopulationConfig, SweepConfig
from flax_attnat.training.runs import Run, cohort_name, cohorts, cut, even_sizes

SWEEP = SweepConfig(
    techniques=("vanilla", "attention_iat", "attention_at"),
    readings=("span", "released"),
    epsilons=(0.5, 5.0),
    adversarial_weights=(1.0, 2.0),
    learning_rates=(1e-3, 1e-4),
    weight_decays=(0.0,),
)
CONFIG = Config(sweep=SWEEP, seeds=(3, 4))


def test_one_cohort_for_each_technique_and_reading_with_every_combination():
    found = cohorts(CONFIG)
    names = [(cohort.config.technique, cohort.config.reading) for cohort in found]
    assert names == [
        ("vanilla", "span"),
        ("attention_iat", "span"),
        ("attention_iat", "released"),
        ("attention_at", "span"),
    ]
    assert all(cohort.config.sweep == SweepConfig() for cohort in found)
    swept = [Run(*values) for values in itertools.product((0.5, 5.0), (1.0, 2.0), (1e-3, 1e-4), (0.0,), (3, 4))]
    assert all(list(cohort.runs) == swept for cohort in found[1:])
    # Vanilla reads neither epsilon nor lambda: the configuration's own stand for them, once.
    assert list(found[0].runs) == [Run(1.0, 1.0, rate, 0.0, seed) for rate in (1e-3, 1e-4) for seed in (3, 4)]


def test_without_a_sweep_there_is_one_cohort_of_one_run_a_seed():
    config = Config(technique="word_at", epsilon=2.0, seeds=(0, 1))
    (cohort,) = cohorts(config)
    assert cohort.config == config
    assert cohort.runs == (Run(2.0, 1.0, 1e-3, 1e-5, 0), Run(2.0, 1.0, 1e-3, 1e-5, 1))


def test_a_cohort_has_one_name_wherever_it_is_trained_and_another_for_other_figures():
    """The name knows neither places nor the machine, nor how the runs came together."""
    name = cohort_name(cohorts(CONFIG)[3])
    assert name.startswith("attention_at-") and cohort_name(cohorts(CONFIG)[1]).startswith("attention_iat-span-")
    alone = Config(technique="attention_at", sweep=dataclasses.replace(SWEEP, techniques=(), readings=()), seeds=(3, 4))
    moved = dataclasses.replace(alone, data=DataConfig(raw_dir="x"), population=PopulationConfig(max_runs=2))
    assert cohort_name(cohorts(alone)[0]) == cohort_name(cohorts(moved)[0]) == name
    one = Config(technique="attention_at", epsilon=5.0)
    others = [
        one,
        dataclasses.replace(one, epsilon=1.0),
        dataclasses.replace(one, seeds=(1,)),
        dataclasses.replace(one, adversarial_weight=2.0),
        dataclasses.replace(one, optimizer=OptimizerConfig(learning_rate=0.1)),
        dataclasses.replace(one, optimizer=OptimizerConfig(weight_decay=0.1)),
        dataclasses.replace(one, data=DataConfig(min_df=2)),
        dataclasses.replace(one, technique="word_at"),
    ]
    assert len({cohort_name(cohorts(config)[0]) for config in others}) == len(others)
    same = dataclasses.replace(one, epsilon=1.0, sweep=SweepConfig(epsilons=(5.0,)))
    assert cohort_name(cohorts(same)[0]) == cohort_name(cohorts(one)[0])


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_cut_keeps_every_run_once_in_order_in_parts_of_nearly_equal_size(runs, most):
    sizes = even_sizes(runs, most)
    assert sum(sizes) == runs and max(sizes) <= most and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-runs // most)
    whole = cohorts(Config(seeds=tuple(range(runs))))[0]
    parts = cut(whole, sizes)
    assert [len(part.runs) for part in parts] == sizes
    assert tuple(run for part in parts for run in part.runs) == whole.runs
