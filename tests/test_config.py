"""Configurations: every mistake is a sentence that names the field; round trips; the experiments of configs/."""

import dataclasses
import importlib
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest

from flax_attnat import allowed
from flax_attnat import config as configuration
from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config, DataConfig, config_hash, default_config, differences, flatten, parse, to_json
from flax_attnat.data import catalogue
from launch import cli

TECHNIQUES = allowed.TECHNIQUES + allowed.CONTROLS

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def nested(field, value):
    """A configuration with one dotted field set."""
    *groups, name = field.split(".")
    values = {name: value}
    for group in reversed(groups):
        values = {group: values}
    return values


def problem(values):
    """The sentence of the ConfigError that `values` raise."""
    with pytest.raises(ConfigError) as caught:
        parse(values)
    return str(caught.value)


def test_an_unknown_field_is_named_with_the_nearest_and_all_there_are():
    said = problem({"epsilom": 1.0})
    assert said.startswith("config.epsilom is not a field; did you mean epsilon? The fields are: dataset, technique, ")
    assert all(field.name in said for field in dataclasses.fields(Config))
    assert problem({"data": {"min_lenght": 5}}).startswith(
        "config.data.min_lenght is not a field; did you mean min_length?"
    )
    assert problem({"xyzzy": 1}).startswith("config.xyzzy is not a field. The fields are: ")


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("epsilon", "1", "of type float"),
        ("epsilon", True, "of type float"),
        ("epsilon", None, "of type float"),
        ("technique", 3, "of type str"),
        ("training.epochs", 2.0, "of type int"),
        ("training.epochs", True, "of type int"),
        ("model.hidden_size", "128", "of type int"),
        ("word.normalise", 1, "of type bool"),
        ("data.raw_dir", None, "of type str"),
        ("seeds", 3, "whole numbers such as 0,1,2"),
        ("seeds", "012", "whole numbers such as 0,1,2"),
        ("seeds", [0, 1.0], "whole numbers such as 0,1,2"),
        ("seeds", [True], "whole numbers such as 0,1,2"),
        ("data.bucket_widths", [16, None], "whole numbers such as 0,1,2"),
    ],
)
def test_a_wrong_type_is_refused(field, value, kind):
    assert problem(nested(field, value)) == f"config.{field} must be {kind}; got {value!r}."


def test_a_group_is_no_value():
    assert problem({"data": 3}) == "config.data is a group of fields, not a value; got 3."
    assert problem(None) == "config is a group of fields, not a value; got None."


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)])
@pytest.mark.parametrize(
    "field", ["epsilon", "adversarial_weight", "optimizer.learning_rate", "training.save_every_minutes"]
)
def test_a_number_out_of_range_is_refused(field, value):
    """Negative, NaN, infinite, and whole numbers beyond float64, which JSON can hold."""
    assert problem(nested(field, value)).startswith(f"config.{field} must be a finite number, at least 0")


@pytest.mark.parametrize(
    ("field", "least"),
    [
        ("training.epochs", 1),
        ("training.batch_size", 1),
        ("model.embedding_size", 1),
        ("model.hidden_size", 1),
        ("word.neighbours", 1),
        ("data.min_df", 1),
        ("data.min_length", -1),
    ],
)
def test_the_least_whole_number_is_allowed_and_the_next_below_is_not(field, least):
    assert flatten(parse(nested(field, least)))[field] == least
    assert problem(nested(field, least - 1)) == (
        f"config.{field} must be a finite number, at least {least}; got {least - 1}."
    )


def test_dropout_is_below_one():
    assert problem({"model": {"dropout": 1.0}}) == (
        "config.model.dropout must be a finite number, at least 0 and at most 0.99; got 1.0."
    )


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("dataset", allowed.DATASETS),
        ("technique", TECHNIQUES),
        ("reading", allowed.READINGS),
        ("model.encoder", allowed.ENCODERS),
        ("model.attention", allowed.ATTENTIONS),
        ("training.selection", allowed.SELECTIONS),
    ],
)
def test_an_unknown_name_is_answered_with_all_that_are_known(field, choices):
    assert problem(nested(field, "nonsense")) == f"config.{field} must be one of {', '.join(choices)}; got 'nonsense'."
    for choice in choices:
        values = nested(field, choice)
        if choice == "custom":
            values["data"] = {"train": "mine.csv"}
        assert flatten(parse(values))[field] == choice


@pytest.mark.parametrize("values", [{"dataset": "custom"}, {"dataset": "sst", "data": {"train": "mine.csv"}}])
def test_a_file_of_ones_own_and_the_dataset_custom_go_together(values):
    assert "--config.dataset=custom and --config.data.train=FILE, or neither" in problem(values)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_dev_or_test_file_beside_an_official_data_set_is_not_passed_over(split):
    assert "are read by the dataset custom only; got dataset 'sst'" in problem({"dataset": "sst", "data": {split: "a"}})


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1], [2**31]])
def test_bad_seeds(seeds):
    assert problem({"seeds": seeds}) == (
        f"config.seeds must be one or more different numbers from 0 to 2147483647; got {tuple(seeds)!r}."
    )


@pytest.mark.parametrize("widths", [[], [0, 4], [8, 4], [4, 4], [-3]])
def test_bad_widths(widths):
    assert problem({"data": {"bucket_widths": widths}}) == (
        f"config.data.bucket_widths must be ascending positive numbers; got {tuple(widths)!r}."
    )


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("sweep.techniques", ["vanila"], f"must be one of {', '.join(TECHNIQUES)}; got 'vanila'"),
        ("sweep.techniques", "vanilla", "must be names such as a,b,c; got 'vanilla'"),
        ("sweep.readings", ["span", "spam"], f"must be one of {', '.join(allowed.READINGS)}; got 'spam'"),
        ("sweep.epsilons", [1.0, -1.0], "must be a finite number, at least 0; got -1.0"),
        ("sweep.epsilons", [1, 1.0], "must be different from each other; got (1.0, 1.0)"),
        ("sweep.epsilons", ["1"], "must be numbers such as 0.5,1,2; got ['1']"),
        ("sweep.learning_rates", [101], "must be a finite number, at least 0 and at most 100; got 101.0"),
        ("population.max_runs", -1, "must be a finite number, at least 0; got -1"),
        ("population.data_shards", 3, "must divide config.training.batch_size; got 3 and 32"),
    ],
)
def test_a_sweep_that_cannot_be_trained_names_its_field(field, value, sentence):
    assert problem(nested(field, value)) == f"config.{field} {sentence}."


def test_names_of_a_sweep_may_come_as_one_text_of_a_command_line():
    assert parse({"sweep": {"techniques": ("vanilla,word_at",)}}).sweep.techniques == ("vanilla", "word_at")


SWEPT = {
    "sweep.techniques": ("vanilla", "attention_at"),
    "sweep.readings": ("sign",),
    "sweep.epsilons": (0.0, 3.5),
    "sweep.adversarial_weights": (2.0,),
    "sweep.learning_rates": (0.1, 0.2),
    "sweep.weight_decays": (0.0,),
}


def test_round_trip_through_json():
    """Every field at a value that is not its default survives JSON; whole numbers become floats where floats stand."""
    values = {
        str: lambda field, old: {"technique": "attention_rp", "dataset": "sst"}.get(field, old),
        bool: lambda field, old: not old,
        int: lambda field, old: 2 * abs(old) or 1,
        float: lambda field, old: old / 2 + 0.1,
        tuple: lambda field, old: SWEPT.get(field, (*old, 2**31 - 1)),
    }
    changed = {}
    for field, old in flatten(Config()).items():
        *groups, name = field.split(".")
        place = changed
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = values[type(old)](field, old)
    config = parse(changed)
    assert parse(json.loads(json.dumps(to_json(config)))) == config != Config()
    assert parse(to_json(Config())) == Config() == parse(default_config())
    whole = parse({"epsilon": 5})
    assert (
        whole.epsilon == 5.0
        and type(whole.epsilon) is float
        and config_hash(whole) == config_hash(parse({"epsilon": 5.0}))
    )


def test_the_hash_ignores_locations_and_nothing_else():
    """Moving files keeps the name of a configuration; a change of any other field gives another."""
    plain = Config()
    moved = dataclasses.replace(
        plain,
        data=DataConfig(raw_dir="/a", data_dir="/b"),
        training=dataclasses.replace(plain.training, save_every_minutes=1.0),
    )
    assert config_hash(moved) == config_hash(plain) and differences(plain, moved) == []
    assert re.fullmatch(r"[0-9a-f]{12}", config_hash(plain))
    hashes = {config_hash(plain)}
    for field, old in flatten(plain).items():
        if field in configuration.LOCATION_FIELDS:
            continue
        new = {str: "x", bool: None, int: 7, float: 0.123, tuple: (9,)}[type(old)]
        *groups, name = field.split(".")
        new = (not old) if new is None else new
        change = {name: new}
        # Not through `parse`: the hash is of any configuration, allowed or not.
        other = dataclasses.replace(
            plain, **({groups[0]: dataclasses.replace(getattr(plain, groups[0]), **change)} if groups else change)
        )
        hashes.add(config_hash(other))
        assert differences(plain, other) == [f"config.{field}: {old!r} -> {new!r}"]
    assert len(hashes) == 1 + len(flatten(plain)) - len(configuration.LOCATION_FIELDS)


def test_a_misspelt_or_ill_typed_override_of_the_defaults_is_an_error():
    config = default_config()
    with pytest.raises(AttributeError, match="epsilom"):
        config.epsilom = 2.0
    with pytest.raises(TypeError):
        config.training.epochs = "many"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_valid_and_its_command_is_exact(name, monkeypatch):
    """The command in a docstring, run through the flags of its entry point, gives a configuration that is allowed."""
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(f"configs.{name}")
    if name != "custom":  # it needs a file, which its command names
        parse(module.get_config().to_dict())
    text = re.sub(r"\\\n\s*", " ", inspect.getdoc(module))
    commands = re.findall(rf"^ *python -m (launch\.[\w.]+) (.*--config=configs/{name}\.py\b.*)$", text, re.MULTILINE)
    assert commands, f"the docstring of configs/{name}.py holds no command that uses it"
    for entry, arguments in commands:
        flags = cli.CLUSTER | getattr(importlib.import_module(entry), "FLAGS", {})
        config = cli.read_config(cli.flag_values([entry, *shlex.split(arguments)], flags, config=True))
        assert config.dataset == module.get_config().dataset


def test_every_data_set_has_its_experiment():
    generated = {"planted", "simulated1", "simulated2", "simulated3", "custom"}
    assert {*allowed.DATASETS} == {*catalogue.NAMES} | generated
    grids = ("ablation", "reproduction")
    assert {"planted", "custom", *catalogue.NAMES} == {name for name in EXPERIMENTS if not name.startswith(grids)}
