"""Training from start to end: stopping and resuming change nothing; a damaged checkpoint costs one save."""

import json
import shutil
from pathlib import Path
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import ConfigError
from flax_attnat.config import Config, DataConfig, ModelConfig, TrainingConfig, WordConfig
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.errors import DataError
from flax_attnat.data.load import load
from flax_attnat.evaluation.measure import build_explain, explain_split, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.checkpoint import CheckpointError, Store
from flax_attnat.training.loop import Stopped, fit
from flax_attnat.training.runs import cohort_name
from flax_attnat.training.saved import restore
from flax_attnat.training.trainer import Trainer, build_trainer
from flax_attnat.training.workdir import WorkdirError


def config_of(technique: str, **changes) -> Config:
    """A training of a second or two."""
    values = {
        "technique": technique,
        "seeds": (0, 1),
        "data": DataConfig(bucket_widths=(12, 32)),
        "model": ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
        "word": WordConfig(neighbours=3),
        "training": TrainingConfig(epochs=3, batch_size=8),
    }
    return Config(**(values | changes))


def cut(dataset: Dataset, size: int) -> Dataset:
    """The first `size` texts of every split."""
    splits = {
        name: Split(split.records[:size], split.tokens[:size], split.labels[:size])
        for name, split in dataset.splits.items()
    }
    return dataset._replace(splits=splits)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return cut(load(config_of("vanilla")), 300)


def trainer_of(technique: str, dataset: Dataset) -> Trainer:
    return build_trainer(config_of(technique), dataset, None, METRICS["auc"])


def checkpoints_of(trainer: Trainer, workdir: Path) -> Path:
    """Where a trainer's checkpoints lie."""
    return workdir / "checkpoints" / cohort_name(trainer.cohort)


def stop_after(chunks: int):
    """A `stop` that says yes at its given call."""
    calls = iter(range(1, 10_000))
    return lambda: next(calls) == chunks


def assert_equal_trees(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("technique", ["attention_at", "word_iat"])
def test_stopped_within_an_epoch_and_resumed_equals_uninterrupted_bit_for_bit(
    technique: str, dataset: Dataset, tmp_path: Path
) -> None:
    trainer = trainer_of(technique, dataset)
    whole, _ = fit(trainer, tmp_path / "whole")
    for chunks in (2, 3, 2):
        with pytest.raises(Stopped):
            fit(trainer, tmp_path / "pieces", stop=stop_after(chunks))
    pieces, _ = fit(trainer, tmp_path / "pieces")
    assert_equal_trees(whole, pieces)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "pieces")]
    assert metrics[0] == metrics[1]
    lines = [json.loads(line) for line in metrics[0].splitlines()]
    assert [(line["epoch"], line["seed"]) for line in lines] == [(e, s) for e in (1, 2, 3) for s in (0, 1)]
    assert all(line["train_rows"] == 300 for line in lines), "every row is trained on once an epoch"


def test_a_finished_training_is_not_trained_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a workdir named relative to the current folder, and found again by its absolute name."""
    monkeypatch.chdir(tmp_path)
    trainer = trainer_of("attention_rp", dataset)
    first, seconds = fit(trainer, "runs/one")
    reports: list = []
    again, same_seconds = fit(trainer, tmp_path / "runs" / "one", progress=reports.append)
    assert_equal_trees(first, again)
    assert not reports and seconds == same_seconds


def damage_truncate(path: Path) -> None:
    """Cuts the largest data file to a third."""
    largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 3])


def damage_flip(path: Path) -> None:
    """Changes a run of bytes in the middle of the largest data file."""
    largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - b for b in data[middle : middle + 64])
    largest.write_bytes(bytes(data))


def damage_remove(path: Path) -> None:
    """Removes the array data, as if the write had stopped half way."""
    for child in path.rglob("d"):
        shutil.rmtree(child)


def damage_metadata(path: Path) -> None:
    """Cuts the JSON of the checkpoint."""
    metadata = path / "_CHECKPOINT_METADATA"
    metadata.write_bytes(metadata.read_bytes()[:100])


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_metadata])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(damage, dataset: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of("attention_at", dataset)
    whole, _ = fit(trainer, tmp_path)
    newest = Store(checkpoints_of(trainer, tmp_path), print).positions()[-1]
    damage(checkpoints_of(trainer, tmp_path) / str(newest))
    said: list[str] = []
    again, _ = fit(trainer, tmp_path, say=said.append)
    assert len(said) == 1 and str(newest) in said[0] and said[0].endswith("The one before it is used.")
    assert_equal_trees(whole, again)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6


def test_all_checkpoints_damaged_means_starting_anew_and_saying_so(dataset: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of("attention_at", dataset)
    whole, _ = fit(trainer, tmp_path)
    positions = Store(checkpoints_of(trainer, tmp_path), print).positions()
    assert len(positions) == 2, "the last two are kept"
    for position in positions:
        damage_truncate(checkpoints_of(trainer, tmp_path) / str(position))
    said: list[str] = []
    again, _ = fit(trainer, tmp_path, say=said.append)
    assert [line.split(".")[-2].strip() for line in said] == ["The one before it is used", "There is none before it"]
    assert_equal_trees(whole, again)


def test_a_checkpoint_holds_what_was_there_when_it_was_begun(tmp_path: Path) -> None:
    """The steps that go on meanwhile donate the arrays that are being written, and overwrite them in place."""
    store = Store(tmp_path, print)
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    tree = {str(value): jnp.full((1, 10**6), value, jnp.float32) for value in range(6)}
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
    for position in range(3):
        store.save(position, tree, {"position": position})
        for _ in range(10):
            tree = step(tree)
    store.wait()
    found = store.restore(lambda _: like)
    assert found is not None and found[1] == {"position": 2}
    assert_equal_trees(found[0], {str(value): np.full((1, 10**6), 20 + value, np.float32) for value in range(6)})


class NoSpace:
    """Of a checkpoint that is being written: there was no room for it."""

    def result(self) -> None:
        no_space()


def no_space(*args, **kwargs) -> NoReturn:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("late", [False, True], ids=["at once", "while training goes on"])
def test_a_save_that_fails_leaves_the_checkpoint_before_intact_and_says_what_to_do(
    late: bool, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbax.checkpoint import v1 as ocp

    trainer = trainer_of("attention_at", dataset)
    whole, _ = fit(trainer, tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(trainer, tmp_path / "full", stop=stop_after(3))

    with monkeypatch.context() as patch:
        patch.setattr(ocp.training.Checkpointer, "save_async", lambda *_, **__: NoSpace() if late else no_space())
        with pytest.raises(CheckpointError, match=r"No space left on device.*is intact.*Make room"):
            fit(trainer, tmp_path / "full")
    resumed, _ = fit(trainer, tmp_path / "full")
    assert_equal_trees(whole, resumed)


@pytest.mark.parametrize("change", ["swapped", "longer"])
def test_a_checkpoint_made_with_another_vocabulary_is_refused_and_left_alone(
    change: str, dataset: Dataset, tmp_path: Path
) -> None:
    fit(trainer_of("vanilla", dataset), tmp_path)
    words, counts = dataset.vocabulary
    if change == "swapped":
        other = dataset.vocabulary._replace(words=(*words[:5], words[6], words[5], *words[7:]))
        message = "differ from word 5 on"
    else:
        other = dataset.vocabulary._replace(words=(*words, "new"), counts=np.append(counts, 1))
        message = f"differ from word {len(words)} on"
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    trainer = trainer_of("vanilla", dataset._replace(vocabulary=other))
    for attempt in (lambda: restore(trainer, tmp_path, print), lambda: fit(trainer, tmp_path)):
        with pytest.raises(WorkdirError, match=message):
            attempt()
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_checkpoints_of_other_classes_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    fit(trainer_of("vanilla", dataset), tmp_path)
    swapped = trainer_of("vanilla", dataset._replace(label_names=dataset.label_names[::-1]))
    with pytest.raises(WorkdirError, match="for the classes negative, positive and the data have positive, negative"):
        restore(swapped, tmp_path, print)


@pytest.mark.parametrize("change", ["labels", "words", "fewer", "test"])
def test_checkpoints_of_other_texts_or_labels_are_refused(change: str, dataset: Dataset, tmp_path: Path) -> None:
    """Of the splits that decide on parameters: a test split may be corrected."""
    fit(trainer_of("vanilla", dataset), tmp_path)
    name = "test" if change == "test" else "dev" if change == "words" else "train"
    split = dataset.splits[name]
    if change == "words":
        split = split._replace(tokens=[split.tokens[0][::-1] + 0, *split.tokens[1:]])
        assert (split.tokens[0] != dataset.splits[name].tokens[0]).any()
    elif change == "fewer":
        split = split._replace(tokens=split.tokens[:-1], labels=split.labels[:-1], records=split.records[:-1])
    else:
        split = split._replace(labels=1 - split.labels)
    other = trainer_of("vanilla", dataset._replace(splits=dataset.splits | {name: split}))
    if change == "test":
        assert restore(other, tmp_path, print) is not None
        return
    with pytest.raises(WorkdirError, match=f"other texts or labels of the split {name} "):
        restore(other, tmp_path, print)


def test_checkpoints_of_another_configuration_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    one, other = trainer_of("attention_at", dataset), trainer_of("attention_rp", dataset)
    fit(one, tmp_path)
    checkpoints_of(one, tmp_path).rename(checkpoints_of(other, tmp_path))
    with pytest.raises(WorkdirError, match="made by another configuration"):
        fit(other, tmp_path)


def test_reading_a_workdir_changes_no_file_of_it(dataset: Dataset, tmp_path: Path) -> None:
    """Another process may be training there: neither its unfinished save nor a damaged checkpoint is touched."""
    trainer = trainer_of("vanilla", dataset)
    fit(trainer, tmp_path)
    newest = Store(checkpoints_of(trainer, tmp_path), print).positions()[-1]
    damage_truncate(checkpoints_of(trainer, tmp_path) / str(newest))
    unfinished = checkpoints_of(trainer, tmp_path) / f"{newest + 1}.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = sorted(tmp_path.rglob("*"))
    said: list[str] = []
    assert restore(trainer, tmp_path, said.append) is not None and "is now" not in said[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_one_class_or_too_few_words_is_said_before_anything_is_trained(dataset: Dataset) -> None:
    train = dataset.splits["train"]
    one = dataset._replace(splits=dataset.splits | {"train": train._replace(labels=np.ones_like(train.labels))})
    with pytest.raises(DataError, match="all 300 training texts are of one class"):
        trainer_of("vanilla", one)
    with pytest.raises(ConfigError, match=r"config.word.neighbours must be below .*got 10000"):
        build_trainer(config_of("word_iat", word=WordConfig(neighbours=10_000)), dataset, None, METRICS["auc"])


def test_without_a_checkpoint_there_is_nothing_to_restore(dataset: Dataset, tmp_path: Path) -> None:
    assert restore(trainer_of("vanilla", dataset), tmp_path, print) is None


@pytest.mark.parametrize("technique", ["attention_iat", "word_iat"])
def test_empty_one_word_and_all_unknown_texts_are_kept_and_have_defined_results(
    technique: str, dataset: Dataset, tmp_path: Path
) -> None:
    odd = [np.array(ids, np.int32) for ids in ([], [7], [1], [1, 1, 1])]
    records = [Record("", ("?",) * len(ids), 1) for ids in odd]
    splits = {
        name: Split(records + split.records, odd + split.tokens, np.concatenate([np.ones(4, np.int32), split.labels]))
        for name, split in cut(dataset, 60).splits.items()
    }
    config = config_of(technique, training=TrainingConfig(epochs=1, batch_size=8))
    trainer = build_trainer(config, dataset._replace(splits=splits), None, METRICS["auc"])
    states, seconds = fit(trainer, tmp_path)
    found = explain_split(trainer, build_explain(trainer), states.best_params, "test")
    assert np.isfinite(found.probability).all() and np.isfinite(found.attention).all()
    # No word: no attention; one word: all of it. Their correlation, and that of three equal words, is undefined.
    np.testing.assert_allclose(found.attention[:, :4].sum(-1), [[0, 1, 1, 1]] * 2, rtol=1e-6)
    assert np.isnan(found.pearson[:, :4]).all() and np.isfinite(found.pearson[:, 4:]).all()
    measures = measure_split(trainer, build_explain(trainer), states.best_params, "test")
    lines = result_lines(trainer, states, "test", measures, seconds)
    assert [(line["n"], line["pearson_undefined"], line["frozen_step"]) for line in lines] == 2 * [(64, 4, None)]


def test_frozen_runs_are_reported_and_keep_finite_parameters(dataset: Dataset, tmp_path: Path) -> None:
    """An infinite epsilon, which no configuration file may hold, spoils the loss of the first step."""
    config = config_of("attention_at", epsilon=np.inf)
    states, _ = fit(build_trainer(config, dataset, None, METRICS["auc"]), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["frozen_step"] == 0 and "not finite" in line["frozen_reason"] for line in lines)
    assert all(line["loss"] is None and line["train_rows"] == 0 for line in lines)
    assert states.best_epoch.tolist() == [0, 0], "no epoch of theirs is any good"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(states.params)))
