"""What configuration and data say arrives where it counts: vectors, class weight, counts, noise, dev, precision."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, WordConfig
from flax_attnat.data.dataset import Dataset, Split
from flax_attnat.data.load import load
from flax_attnat.data.vectors import Vectors
from flax_attnat.evaluation.measure import build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.objective import StepSums, build_objective
from flax_attnat.reproduction import cohort
from flax_attnat.training import loop
from flax_attnat.training import trainer as trainers
from flax_attnat.training.loop import Progress, fit
from flax_attnat.training.mesh import BY_RUN, WHOLE, put
from flax_attnat.training.population import zero_sums
from flax_attnat.training.saved import Carry
from flax_attnat.training.step import TrainState
from flax_attnat.training.trainer import Trainer, build_trainer
from tests.models.small import hparams, initial, random_batch, random_neighbours, small


def config_of(technique: str, **changes: object) -> Config:
    """A training of a second or two."""
    return dataclasses.replace(
        Config(
            technique=technique,
            seeds=(0, 1),
            data=DataConfig(bucket_widths=(32,)),
            model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
            word=WordConfig(neighbours=3),
            training=TrainingConfig(epochs=3, batch_size=8),
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The first 200 texts of each split, dev and test not alike."""
    whole = load(config_of("vanilla"))
    splits = {
        name: Split(split.records[:200], split.tokens[:200], split.labels[:200]) for name, split in whole.splits.items()
    }
    return whole._replace(splits=splits)


def trainer_of(config: Config, dataset: Dataset, vectors: Vectors | None = None) -> Trainer:
    return build_trainer(config, dataset, vectors, METRICS["auc"])


def some_vectors(dataset: Dataset) -> Vectors:
    """Vectors of every other word."""
    rng, size = np.random.default_rng(0), len(dataset.vocabulary.words)
    found = (np.arange(size) % 2 == 0) & (np.arange(size) > 1)
    return Vectors(np.where(found[:, None], rng.normal(size=(size, 8)), 0).astype(np.float32), found)


def table_of(states: TrainState) -> np.ndarray:
    """Word vectors `[R, V, E]`."""
    return np.asarray(states.params["embedding"]["table"])


def test_training_starts_from_the_pretrained_vectors(dataset: Dataset) -> None:
    vectors = some_vectors(dataset)
    trainer = trainer_of(config_of("vanilla"), dataset, vectors)
    for table in table_of(trainer.population.init(trainer.seeds)):
        np.testing.assert_array_equal(table[vectors.found], vectors.table[vectors.found])
        assert (table[~vectors.found][2:] != 0).all()


def test_the_rarer_class_weighs_more(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of class 1 is multiplied by texts of class 0 over texts of class 1."""
    train = dataset.splits["train"]
    places = np.concatenate([np.flatnonzero(train.labels == 0)[:30], np.flatnonzero(train.labels == 1)[:10]])
    uneven = Split(
        [train.records[i] for i in places], [train.tokens[i] for i in places], np.asarray(train.labels)[places]
    )
    given: list[float] = []

    def building(config: Config, model: object, pos_weight: float) -> object:
        """Notes the weight."""
        given.append(pos_weight)
        return build_objective(config, model, pos_weight)  # type: ignore[arg-type]

    monkeypatch.setattr(trainers, "build_objective", building)
    trainer_of(config_of("vanilla"), dataset._replace(splits=dataset.splits | {"train": uneven}))
    assert given == [3.0]


def test_word_techniques_read_the_table_normalised_by_the_counts(dataset: Dataset) -> None:
    trainer = trainer_of(config_of("word_at"), dataset)
    raw = table_of(trainer.population.init(trainer.seeds))[0].astype(np.float64)
    shares = dataset.vocabulary.counts / dataset.vocabulary.counts.sum()
    assert shares.max() > 3 * np.median(shares), "a table normalised by equal shares is another one"
    mean = shares @ raw
    expected = (raw - mean) / np.sqrt(shares @ (raw - mean) ** 2)
    found = trainer.model.table({"embedding": {"table": jnp.asarray(raw, jnp.float32)}})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_neighbours_are_words_and_are_looked_up_anew_after_each_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the last epoch but one and of the start are of other word vectors."""
    trainer = trainer_of(config_of("word_iat"), dataset)
    end_epoch, seen = loop._end_epoch, [np.asarray(loop._fresh(trainer).neighbours)]

    def ended(trainer: Trainer, carry: Carry, epoch: int) -> tuple[Carry, list]:
        """Compares the neighbours that the next epoch will read."""
        carry, lines = end_epoch(trainer, carry, epoch)
        if epoch < 3:
            now = np.asarray(trainer.population.refresh(carry.states.params))
            np.testing.assert_array_equal(np.asarray(carry.neighbours), now)
            seen.append(now)
        return carry, lines

    monkeypatch.setattr(loop, "_end_epoch", ended)
    fit(trainer, tmp_path)
    assert len(seen) == 3 and all((a != b).any() for a, b in itertools.pairwise(seen))
    assert min(map(np.min, seen)) > 1, "neither padding nor the unknown word"


def test_word_iat_by_word_is_another_perturbation() -> None:
    config, model = small("word_iat", "average")
    params, batch, neighbours = initial(model), random_batch(), random_neighbours()
    found = []
    for per_word in (False, True):
        objective = build_objective(
            dataclasses.replace(config, word=dataclasses.replace(config.word, per_word=per_word)), model, 1.0
        )
        found.append(float(objective(params, batch, hparams(), jax.random.key(0), neighbours)[1].adversarial))
    assert abs(found[0] - found[1]) > 1e-4


def test_frozen_attention_does_not_decay(dataset: Dataset, tmp_path: Path) -> None:
    """Whatever else does: L2 alone would move what has no gradient."""
    optimizer = OptimizerConfig(decay_attention=True, weight_decay=0.1)
    trainer = trainer_of(config_of("frozen", optimizer=optimizer), dataset)
    start = jax.device_get(trainer.population.init(trainer.seeds).params)
    end = jax.device_get(fit(trainer, tmp_path)[0].params)
    jax.tree.map(np.testing.assert_array_equal, end["attention"], start["attention"])
    assert (end["output"]["kernel"] != start["output"]["kernel"]).any()


def test_the_best_epoch_is_that_of_dev(dataset: Dataset, tmp_path: Path) -> None:
    """The parameters that are kept have, on dev, the largest figure of the epochs' lines."""
    trainer = trainer_of(config_of("vanilla"), dataset)
    states, seconds = fit(trainer, tmp_path)
    measures = measure_split(trainer, build_explain(trainer), states.best_params, "dev")
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in result_lines(trainer, states, "dev", measures, seconds):
        own = [epoch["dev_auc"] for epoch in epochs if epoch["seed"] == line["seed"]]
        assert line["auc"] == pytest.approx(max(own), abs=1e-6)
        assert line["best_epoch"] == 1 + own.index(max(own))


def test_seeds_draw_noise_of_their_own(dataset: Dataset) -> None:
    """The same parameters and texts under two seeds: what is drawn differs."""
    trainer = trainer_of(config_of("attention_rp"), dataset)
    states = trainer.population.init(trainer.seeds)
    states = put(trainer.mesh, BY_RUN, jax.tree.map(lambda x: np.stack([np.asarray(x)[0]] * 2), states))
    _, sums = trainer.population.run_chunk(
        states,
        put(trainer.mesh, BY_RUN, zero_sums(2)),
        tuple(trainer.buckets["train"]),
        put(trainer.mesh, WHOLE, np.zeros(16, np.int32)),
        put(trainer.mesh, BY_RUN, np.broadcast_to(np.arange(8, dtype=np.int32), (2, 16, 8))),
        *put(trainer.mesh, WHOLE, (np.int32(0), np.int32(1))),
        trainer.hparams,
        trainer.seeds,
        None,
    )
    sums = StepSums(*(np.asarray(part) for part in sums))
    np.testing.assert_allclose(sums.clean[0], sums.clean[1], rtol=1e-6)
    assert abs(sums.adversarial[0] - sums.adversarial[1]) > 1e-5


def test_products_have_the_precision_of_the_configuration(dataset: Dataset, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=1, batch_size=8, matmul_precision="bfloat16")
    seen: set[str | None] = set()

    def progress(_: Progress) -> None:
        """Notes the precision that a program would be compiled with."""
        seen.add(jax.config.jax_default_matmul_precision)

    fit(trainer_of(config_of("vanilla", training=training), dataset), tmp_path, progress=progress)
    assert seen == {"bfloat16"}


def test_what_was_saved_within_an_epoch_is_not_done_again(dataset: Dataset, tmp_path: Path) -> None:
    """A process that dies in the third span of an epoch loses that span."""
    training = TrainingConfig(epochs=1, batch_size=8, save_every_minutes=0)
    trainer = trainer_of(config_of("vanilla", training=training), dataset)
    reports: list[Progress] = []

    def dying(report: Progress) -> None:
        """Ends the third span."""
        reports.append(report)
        if len(reports) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trainer, tmp_path, progress=dying)
    done = reports[1].step
    assert 0 < done < reports[1].steps
    again: list[Progress] = []
    fit(trainer, tmp_path, progress=again.append)
    assert again[0].epoch == 1 and again[0].step == done + 1, "the first span of a start is one step"


def test_lines_of_the_record_are_of_the_parameters_and_the_split_they_name(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, seen = some_vectors(dataset), []

    def fitted(trainer: Trainer, *_: object, **__: object) -> tuple[TrainState, float]:
        """States whose best parameters are others than the last, without a training."""
        seen.append((trainer, trainer.population.init(trainer.seeds)))
        np.testing.assert_array_equal(table_of(seen[0][1])[0][vectors.found], vectors.table[vectors.found])
        states = seen[0][1]._replace(best_params=jax.tree.map(lambda x: 3 * x[::-1] + 0.05, seen[0][1].params))
        seen[0] = (trainer, states)
        return states, 12.0

    monkeypatch.setattr(cohort, "fit", fitted)
    lines = cohort.train_cohort(config_of("attention_at"), dataset, vectors, tmp_path, {"variant": "pretrained"})
    ((trainer, states),) = seen
    explain, figures = build_explain(trainer), {}
    for epoch, params, split in (
        ("best", states.best_params, "dev"),
        ("best", states.best_params, "test"),
        ("last", states.params, "test"),
    ):
        measures = measure_split(trainer, explain, params, split)
        for line in result_lines(trainer, states, split, measures, 12.0):
            figures[epoch, split, line["seed"]] = (line["auc"], line["pearson"])
    assert len(set(figures.values())) == 6 == len(lines), "a figure that is another one's is seen"
    for line in lines:
        expected = figures[line["epoch"], line["split"], line["seed"]]
        assert (line["auc"], line["pearson"]) == pytest.approx(expected, abs=1e-5)
