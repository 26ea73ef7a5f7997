"""What a workdir holds, measured: cohorts that were cut, one seed only, trainings under way, other options."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_attnat.ablation import Watch, train_all
from flax_attnat.config import Config, DataConfig, ModelConfig, PopulationConfig, TrainingConfig
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.load import load
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.evaluate import Task, evaluate
from flax_attnat.evaluation.suite import Options
from flax_attnat.evaluation.texts import fingerprint, write_texts
from flax_attnat.training.loop import Stopped
from flax_attnat.training.memory import TooLarge, with_fewer_rows
from flax_attnat.training.workdir import read_lines

CONFIG = Config(
    technique="attention_at",
    seeds=(0, 1, 2),
    data=DataConfig(bucket_widths=(32,)),
    model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
    training=TrainingConfig(epochs=2, batch_size=8),
)
OPTIONS = Options(linf=(0.5,), l2=(1.0,), steps=2, restarts=1)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    whole = load(CONFIG)
    cut = {name: Split(of.records[:40], of.tokens[:40], of.labels[:40]) for name, of in whole.splits.items()}
    return whole._replace(splits=cut)


def test_seeds_of_a_cohort_that_was_cut_are_measured_together(dataset: Dataset, tmp_path: Path) -> None:
    """Two runs in one population and one in another: three attentions to compare, three seeds of one setting."""
    config = dataclasses.replace(CONFIG, population=PopulationConfig(max_runs=2))
    train_all(config, dataset, None, tmp_path)
    assert len(list((tmp_path / "trained").iterdir())) == 2
    report = evaluate(config, dataset, tmp_path, Task(suites=("interpretability",), options=OPTIONS))
    (measured,) = report.measured
    assert measured.seeds == (0, 1, 2) and measured.probability.shape == (3, 40, 2)
    lines = report.families["interpretability"]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert all(line["seed_divergence"]["n"] == 40 and line["seed_divergence"]["mean"] > 0 for line in lines)
    (file,) = (tmp_path / "instances").glob("*.npz")
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["seed"].tolist() == [0, 1, 2] and arrays["length"].shape == arrays["label"].shape == (40,)
        assert arrays["attention_tokens"].shape == (3, arrays["length"].sum())
        first = arrays["attention_tokens"][:, : arrays["length"][0]]
    np.testing.assert_allclose(first.sum(axis=-1), 1, rtol=1e-5)


def test_suites_are_measured_again_only_where_something_else_is_asked(dataset: Dataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, seeds=(4,))
    train_all(config, dataset, None, tmp_path)
    task = Task(suites=("interpretability", "robustness"), options=OPTIONS)
    first = evaluate(config, dataset, tmp_path, task)
    assert set(first.seconds) == {"describe", "agree", "intervene", "attack", "delete", "summaries"}
    (line,) = first.families["interpretability"]
    assert line["not_available"]["seed_divergence"] == "there is one seed only of the setting"
    again = evaluate(config, dataset, tmp_path, task)
    assert again.seconds == {} and again.families == first.families
    wider = evaluate(config, dataset, tmp_path, task._replace(options=OPTIONS._replace(linf=(0.5, 1.0))))
    assert set(wider.seconds) == {"describe", "attack", "delete", "summaries"}
    assert len(wider.families["robustness"][0]["attacked_linf"]) == 2
    families = [line["family"] for line in read_lines(tmp_path, "results")]
    assert sorted(families) == ["interpretability", "prediction", "prediction", "robustness"]


def read_texts(workdir: Path, split: str = "test") -> dict:
    return json.loads((workdir / "instances" / f"{split}.texts.json").read_text())


def test_the_texts_lie_beside_the_arrays(dataset: Dataset, tmp_path: Path) -> None:
    """As many words as the arrays have weights; also where nothing is measured again, and only if it is kept."""
    train_all(dataclasses.replace(CONFIG, seeds=(4,)), dataset, None, tmp_path)
    task = Task(suites=("interpretability",), options=OPTIONS)
    config = dataclasses.replace(CONFIG, seeds=(4,))
    evaluate(config, dataset, tmp_path, task._replace(write=False))
    assert not (tmp_path / "instances").exists()
    evaluate(config, dataset, tmp_path, task)
    written, path = read_texts(tmp_path), tmp_path / "instances" / "test.texts.json"
    assert [written[name] for name in ("dataset", "split", "mark")] == ["planted", "test", "synthetic"]
    assert written["labels"] == list(dataset.label_names)
    assert {name: of["n"] for name, of in written["data"].items()} == {"train": 40, "dev": 40, "test": 40}
    records = dataset.splits["test"].records
    assert [tuple(text["words"]) for text in written["texts"]] == [record.words for record in records]
    assert [tuple(text.get("rationale", ())) for text in written["texts"]] == [of.rationale or () for of in records]
    with np.load(next((tmp_path / "instances").glob("*.npz")), allow_pickle=False) as arrays:
        assert arrays["length"].tolist() == [len(text["words"]) for text in written["texts"]]
        assert arrays["label"].tolist() == [text["label"] for text in written["texts"]]
    before = path.stat().st_mtime_ns
    assert evaluate(config, dataset, tmp_path, task).seconds == {} and path.stat().st_mtime_ns == before
    path.write_text("{}")
    assert evaluate(config, dataset, tmp_path, task).seconds == {} and read_texts(tmp_path) == written
    evaluate(config, dataset, tmp_path, task._replace(split="dev", suites=()))
    assert read_texts(tmp_path, "dev")["data"] == written["data"]


def test_texts_end_where_their_tokens_do(tmp_path: Path) -> None:
    """Words, rationales, unknown words and queries; and half a character, which has no UTF-8, comes back."""
    records = [Record(("a", "\ud800b", "c"), 1, (0, 2), ("why", "so")), Record((), 0, None, ())]
    ids = [np.array([2, 1], np.int32), np.array([], np.int32)]
    queries = [np.array([3], np.int32), np.array([], np.int32)]
    split = Split(records, ids, np.array([1, 0], np.int32), queries)
    data = Dataset("pairs", {"test": split}, Vocabulary(("<pad>", "<unk>", "a"), np.zeros(3)), ("no", "yes"), "")
    path = write_texts(tmp_path, data, "test")
    found = json.loads(path.read_text())
    assert found["texts"] == [
        {"words": ["a", "\ud800b"], "label": 1, "rationale": [0], "unknown": [1], "query": ["why"]},
        {"words": [], "label": 0, "query": []},
    ]
    lines = ['["yes",["a","\\ud800b"],["why"]]', '["no",[],[]]']
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert found["data"] == {"test": {"n": 2, "sha256": digest}}


def test_the_fingerprint_is_of_words_labels_queries_and_order() -> None:
    base = [Record(("a", "b"), 0), Record(("c",), 1)]
    others = [base[::-1], [base[0], Record(("c",), 0)], [base[0], Record(("d",), 1)], [Record(("a b",), 0), base[1]]]

    def of(records: list[Record], first: int = 2) -> str:
        """Whatever the vocabulary is."""
        ids = [np.arange(first, first + len(record.words)) for record in records]
        return fingerprint(Split(records, ids, np.array([record.label for record in records])), ("x", "y"))

    assert of(base) == of(base, 9)
    assert len({of(base), *map(of, others)}) == 5


def test_figures_of_a_training_under_way_are_shown_and_not_kept(dataset: Dataset, tmp_path: Path) -> None:
    calls = iter(range(100))
    with pytest.raises(Stopped):
        train_all(CONFIG, dataset, None, tmp_path, Watch(stop=lambda: next(calls) > 2, say=lambda _: None))
    said: list[str] = []
    report = evaluate(CONFIG, dataset, tmp_path, Task(suites=("robustness",), options=OPTIONS, say=said.append))
    assert "its figures are provisional" in said[0] and len(report.families["robustness"]) == 3
    assert not (tmp_path / "instances").exists() and read_lines(tmp_path, "results") == []


def test_fewer_texts_are_tried_until_the_memory_holds_them() -> None:
    tried = []

    def work(rows: int, enough: int) -> int:
        tried.append(rows)
        if rows > enough:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return rows

    assert with_fewer_rows(lambda rows: work(rows, 16)) == 16 and tried == [128, 16]
    with pytest.raises(TooLarge, match="with a single text at once"):
        with_fewer_rows(lambda rows: work(rows, 0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with_fewer_rows(lambda rows: (_ for _ in ()).throw(jax.errors.JaxRuntimeError("INTERNAL")))
