"""A trained run as a function of texts: what evaluation says of the same texts, and which run it is."""

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import flax_attnat as fa
from flax_attnat.ablation import parts, train_all
from flax_attnat.config import Config, DataConfig, ModelConfig, PopulationConfig, SweepConfig, TrainingConfig
from flax_attnat.data.dataset import Dataset, Record, Split
from flax_attnat.data.load import load as load_data
from flax_attnat.data.vocabulary import encode, fit_vocabulary
from flax_attnat.evaluation.measure import SplitInstances, build_explain, explain_split
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.portable import write_safetensors
from flax_attnat.predictor import Prediction, Predictor, build_predictor, load, load_all
from flax_attnat.training.checkpoint import Store
from flax_attnat.training.records import run_fields
from flax_attnat.training.saved import restore_trained
from flax_attnat.training.trainer import build_trainer, with_runs
from flax_attnat.training.workdir import WorkdirError, claim, read_lines

CONFIG = Config(
    seeds=(0, 1),
    sweep=SweepConfig(techniques=("vanilla", "word_at"), epsilons=(1.0, 5.0)),
    data=DataConfig(bucket_widths=(8, 16), truncate=20),
    model=ModelConfig(encoder="average", embedding_size=8, hidden_size=4),
    training=TrainingConfig(epochs=1, batch_size=8),
    population=PopulationConfig(max_runs=3),
)
PLAIN = dataclasses.replace(CONFIG, technique="vanilla", seeds=(3,), sweep=SweepConfig(), population=PopulationConfig())
CHOSEN = {"technique": "word_at", "epsilon": 5.0, "seed": 1}


def trained(config: Config, dataset: Dataset, workdir: Path) -> Path:
    """A workdir as launch.ablate leaves it."""
    claim(workdir, config)
    train_all(config, dataset, None, workdir)
    return workdir


def forget_pair(config: Config, dataset: Dataset, workdir: Path) -> None:
    """Makes a finished workdir one whose metadata do not say whether texts have queries."""
    restored = restore_trained(build_trainer(config, dataset, None, METRICS["accuracy"]), workdir, print)
    assert restored is not None and restored[1].pop("pair") == (dataset.splits["train"].queries is not None)
    store = Store(next((workdir / "trained").iterdir()), print)
    store.save(store.positions()[-1], *restored)
    store.wait()


def cut(dataset: Dataset) -> Dataset:
    """The first texts of every split."""
    splits = {name: Split(of.records[:30], of.tokens[:30], of.labels[:30]) for name, of in dataset.splits.items()}
    return dataset._replace(splits=splits)


def written(name: str, rows: Sequence[tuple[str, str, str]], labels: Sequence[str], named: bool = False) -> Dataset:
    """A data set of (text, query, label), the same in every split; words are between blanks."""
    made = [(tuple(text.split()), labels.index(label), None, tuple(query.split())) for text, query, label in rows]
    records = [Record(*one) for one in made]
    vocabulary = fit_vocabulary([record.words for record in records])
    split = Split(
        records,
        [encode(vocabulary, record.words) for record in records],
        np.array([record.label for record in records], np.int32),
        [encode(vocabulary, record.query) for record in records] if rows[0][1] else None,
    )
    numbers = {label: number for number, label in enumerate(labels)}
    classes = np.array([numbers.get(word, -1) for word in vocabulary.words], np.int32) if named else None
    return Dataset(name, dict.fromkeys(("train", "dev", "test"), split), vocabulary, tuple(labels), "", classes)


def evaluated(config: Config, dataset: Dataset, workdir: Path, run: Mapping[str, Any]) -> SplitInstances:
    """What evaluation says of the test texts under one run."""
    for part in parts(workdir, config):
        for place, one in enumerate(part.runs):
            fields = run_fields(part.config, one)
            if all(fields[name] == value for name, value in run.items()):
                trainer = build_trainer(part.config, dataset, None, METRICS[config.training.selection])
                trainer = with_runs(trainer, part.runs)
                restored = restore_trained(trainer, workdir, print)
                assert restored is not None
                found = explain_split(trainer, build_explain(trainer), restored[0].best_params, "test")
                return SplitInstances._make([*(x[place] for x in found[:4]), *found[4:]])
    raise AssertionError(run)


def texts(dataset: Dataset) -> list[Any]:
    """The test texts, as a user would give them."""
    split = dataset.splits["test"]
    joined = [(" ".join(record.words), " ".join(record.query)) for record in split.records]
    return joined if split.queries else [text for text, _ in joined]


def check_same(found: Prediction, expected: SplitInstances) -> None:
    """Every figure of a text is that of evaluation."""
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-5, atol=1e-7)
    for place, length in enumerate(expected.lengths):
        for name in ("attention", "importance"):
            own, other = getattr(found, name)[place], getattr(expected, name)[place]
            assert own.shape == (length,)
            np.testing.assert_allclose(own, other[:length], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return cut(load_data(CONFIG))


@pytest.fixture(scope="module")
def workdir(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(CONFIG, dataset, tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="module")
def predictor(workdir: Path) -> Predictor:
    return load(workdir, CHOSEN)


@pytest.mark.parametrize("run", [CHOSEN, {"technique": "vanilla", "seed": 0}, {"epsilon": 1, "seed": 1}])
def test_a_run_says_of_texts_what_evaluation_says(run: dict[str, Any], dataset: Dataset, workdir: Path) -> None:
    """Whichever part of the cut cohort it is in, and with the frequencies that word techniques normalise by."""
    predictor = load(workdir, run)
    assert run.items() <= dict(predictor.run).items() and predictor.config.technique == predictor.run["technique"]
    found = predictor(texts(dataset))
    check_same(found, evaluated(CONFIG, dataset, workdir, run))
    split = dataset.splits["test"]
    assert found.words == [record.words for record in split.records]
    assert found.known == [tuple((tokens != 1).tolist()) for tokens in split.tokens]
    assert predictor.vocabulary.words == dataset.vocabulary.words
    assert predictor.label_names == ("negative", "positive") and not predictor.pair


def test_runs_of_a_workdir_differ(dataset: Dataset, workdir: Path, predictor: Predictor) -> None:
    """Otherwise the comparison above could not tell which one was loaded."""
    one, other = (found(texts(dataset)).probability for found in (predictor, load(workdir, CHOSEN | {"seed": 0})))
    assert np.abs(one - other).max() > 1e-3


def test_runs_that_are_loaded_together_say_what_each_says_alone_by_one_program(workdir: Path, dataset: Dataset) -> None:
    """Word techniques too, whose tables are normalised before; uniform attention would have a program of its own."""
    runs = [{"technique": "word_at", "epsilon": 1.0, "seed": 1}, {"technique": "vanilla", "seed": 0}, CHOSEN]
    together = load_all(workdir, runs)
    assert len({id(one.explain) for one in together}) == 1
    words = together[0].read(texts(dataset))
    for run, one in zip(runs, together, strict=True):
        assert run.items() <= dict(one.run).items()
        alone, found = fa.load(workdir, run)(texts(dataset)), one.predict(words)
        np.testing.assert_array_equal(found.probability, alone.probability)
        np.testing.assert_array_equal(np.concatenate(found.importance), np.concatenate(alone.importance))
    with pytest.raises(WorkdirError, match="2 of the 6 runs"):
        load_all(workdir, [*runs, {"technique": "vanilla"}])


def test_a_predictor_is_made_of_its_parts(predictor: Predictor, dataset: Dataset) -> None:
    """The parameters as they were trained: a table that is normalised already would be normalised again."""
    parts = predictor.config, predictor.run, predictor.label_names, predictor.vocabulary, predictor.pair
    made = build_predictor(*parts, jax.tree.map(np.asarray, predictor.params))
    assert (made(texts(dataset)).probability == predictor(texts(dataset)).probability).all()
    assert np.abs(predictor.table - predictor.params["embedding"]["table"]).max() > 1e-3
    uniform = dataclasses.replace(predictor.config, technique="uniform", word=CONFIG.word)
    even = build_predictor(uniform, *parts[1:], predictor.params, others=[predictor])
    np.testing.assert_allclose(even(["the film was good"]).attention[0], 0.25, rtol=1e-6)
    for params, message in (
        (predictor.params | {"more": np.zeros(3)}, r"\['more'\] has the shape \(3,\) where nothing is expected"),
        ({k: v for k, v in predictor.params.items() if k != "output"}, r"\['output'\]\['bias'\] .* of nothing where"),
        (predictor.params | {"embedding": {"table": np.zeros((4, 8))}}, r"\['table'\] has the shape \(4, 8\) where \("),
    ):
        with pytest.raises(ValueError, match=message):
            build_predictor(*parts, params)


def test_a_file_is_loaded_like_a_workdir(predictor: Predictor, tmp_path: Path) -> None:
    """It holds one run, which a choice must name."""
    write_safetensors(predictor, tmp_path / "run.safetensors")
    for run in (None, {"technique": "word_at"}):
        found = load(tmp_path / "run.safetensors", run)(["the film was good"])
        np.testing.assert_array_equal(found.probability, predictor(["the film was good"]).probability)
    with pytest.raises(WorkdirError, match=r"none of the 1 runs of .*run.safetensors have \{'seed': 9\}"):
        load(tmp_path / "run.safetensors", {"seed": 9})


def test_without_a_choice_it_is_the_best_on_dev(workdir: Path) -> None:
    lines = [line for line in read_lines(workdir, "results") if line["split"] == "dev"]
    best = max(lines, key=lambda line: line["auc"])
    assert load(workdir).run == {name: best[name] for name in load(workdir).run}


def test_frozen_runs_and_runs_without_a_figure_do_not_compete(workdir: Path, tmp_path: Path) -> None:
    lines = read_lines(workdir, "results")
    chosen = next(line for line in lines if line["split"] == "dev" and line["epsilon"] == 5.0 and line["seed"] == 1)
    for number, line in enumerate(lines):
        if line["split"] == "dev" and line is not chosen:
            line["auc"], line["frozen_step"] = (1.0, 7) if number % 4 else (None, None)
    chosen["auc"] = 0.1
    for name in ("config.json", "cut.json", "trained"):
        (tmp_path / name).symlink_to(workdir / name)
    results = tmp_path / "results"
    results.mkdir()
    (results / "any.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert dict(load(tmp_path).run) | CHOSEN == dict(load(tmp_path).run)
    (results / "any.jsonl").unlink()
    with pytest.raises(WorkdirError, match=r"no run of .* has a dev auc.*\n.*'seed': 0"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"seed": 7}, r"none of the 6 runs .*\{'seed': 7\}"),
        ({"technique": "word_at", "seed": 0}, "2 of the 6 runs"),
        ({}, "6 of the 6 runs"),
        ({"lr": 1}, "runs are named by dataset, technique, reading, epsilon, lambda, .*; got lr"),
    ],
)
def test_a_choice_that_is_none_says_which_runs_there_are(run: dict[str, Any], message: str, workdir: Path) -> None:
    with pytest.raises(WorkdirError, match=message) as caught:
        load(workdir, run)
    listed = str(caught.value).split("The runs are:")[1]
    assert "'epsilon': 1.0" in listed and "'epsilon': 5.0" in listed and "dataset" not in listed
    assert listed.count("\n") == (2 if "2 of" in message else 6)


def test_workdirs_that_hold_nothing_finished_are_refused(workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match=r"holds no config\.json"):
        load(tmp_path)
    for name in ("config.json", "cut.json"):
        (tmp_path / name).symlink_to(workdir / name)
    with pytest.raises(WorkdirError, match="holds no run that is trained to the end"):
        load(tmp_path)
    with pytest.raises(TypeError, match="run must be a mapping such as"):
        load(workdir, 3)  # type: ignore[arg-type]


def test_a_damaged_checkpoint_is_refused_and_left(dataset: Dataset, tmp_path: Path) -> None:
    trained(PLAIN, dataset, tmp_path)
    (checkpoint,) = (tmp_path / "trained").glob("*/*")
    assert load(tmp_path).run["seed"] == 3
    with next((checkpoint / "state").rglob("manifest.ocdbt")).open("ab") as file:
        file.write(b"more")
    with pytest.raises(WorkdirError, match="cannot be read: files are missing, cut short or damaged"):
        load(tmp_path)
    assert checkpoint.exists()


def test_a_text_says_the_same_alone_and_among_others_in_any_order(dataset: Dataset, predictor: Predictor) -> None:
    given = texts(dataset)[:17]
    together, back = predictor(given), predictor(given[::-1])
    for place, text in enumerate(given):
        alone = predictor([text])
        np.testing.assert_allclose(alone.probability[0], together.probability[place], rtol=1e-6)
        np.testing.assert_allclose(alone.attention[0], together.attention[place], rtol=1e-5)
        np.testing.assert_allclose(back.importance[-1 - place], together.importance[place], rtol=1e-5)
        assert alone.words[0] == together.words[place] == back.words[-1 - place]
    assert together.certified_radius is not None and back.certified_radius is not None
    np.testing.assert_allclose(back.certified_radius[::-1], together.certified_radius, rtol=1e-4)
    assert (together.certified_radius > 0).all()


def test_unknown_words_are_marked_and_read_as_one(predictor: Predictor) -> None:
    found = predictor(["the film was zzyzx", "the film was <pad>", "<unk> qwertz"])
    assert found.known == [(True, True, True, False)] * 2 + [(False, False)]
    np.testing.assert_array_equal(found.probability[0], found.probability[1])
    assert found.words[1][-1] == "<pad>" and found.attention[2].sum() == pytest.approx(1)


def test_empty_texts_are_predicted_from_the_bias(predictor: Predictor) -> None:
    found = predictor(["", "the film was good", " \n"])
    assert found.words[0] == found.words[2] == () and found.known[0] == ()
    assert found.attention[0].shape == found.importance[0].shape == (0,)
    bias = np.asarray(predictor.params["output"]["bias"], np.float64)
    np.testing.assert_allclose(found.probability[[0, 2], 1], [*1 / (1 + np.exp(-bias))] * 2, rtol=1e-5)
    assert found.certified_radius is not None and np.isinf(found.certified_radius[[0, 2]]).all()
    assert predictor([]).probability.shape == (0, 2)


def test_long_texts_are_cut_off_as_in_training(predictor: Predictor) -> None:
    """Twenty words are wider than the widest bucket."""
    words = ["the", "plot", "was", "hardly", "very", "good", "and", "my", "sister", "found", "it", "awful"] * 10
    long, short = (predictor([" ".join(some)]) for some in (words, words[:20]))
    assert long.words[0] == tuple(words[:20]) and long.attention[0].shape == (20,)
    np.testing.assert_array_equal(long.probability, short.probability)


def test_a_warm_call_compiles_nothing(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = load(workdir, CHOSEN)

    def compiled(given: list[str]) -> int:
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            predictor(given)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    assert compiled(["the film was good"]) > 0
    assert compiled(["the film was bad", "a film", ""] * 2) == 0
    assert compiled(["a film"] * 10) == 1  # many at once
    assert compiled(["a film", "the film was bad", ""] * 30) == 0
    assert compiled(["the film was good and the plot was not very bad"]) > 0
    assert compiled(["the film was good and the plot was bad", "a film"]) == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("a film", TypeError, "give a list, each of its items a string; got str"),
        (None, TypeError, "got NoneType"),
        ({"a": 1}, TypeError, "got dict"),
        (["a", 3], TypeError, "text 1 must be a string.*got 3"),
        ([("a", "b")], TypeError, "text 0 must be a string.*got .'a', 'b'"),
        ([b"a"], TypeError, "text 0 must be a string"),
        (["a", "b \ud800"], ValueError, "text 1 holds half a character"),
    ],
)
def test_what_is_no_text_is_refused(given: Any, error: type[Exception], message: str, predictor: Predictor) -> None:
    with pytest.raises(error, match=message):
        predictor(given)


CNN = [
    (f"@entity{i} met @entity{(i + 1) % 4} in town", f"@placeholder met @entity{(i + 1) % 4}", f"@entity{i}")
    for i in range(4)
]
ASKED = [("the dog sleeps", "a dog", "yes"), ("the cat sleeps there", "a dog", "no")]
SINGLE = [("a good film", "", "yes"), ("a bad film", "", "no")]


@pytest.mark.parametrize(("name", "rows"), [("simulated1", ASKED), ("cnn", CNN), ("custom", ASKED), ("custom", SINGLE)])
def test_no_data_are_needed(name: str, rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    """A file of one's own that is gone may have held texts or pairs: the parameters say which."""
    data = dataclasses.replace(PLAIN.data, train="gone.csv" if name == "custom" else "")
    training = dataclasses.replace(PLAIN.training, selection="accuracy")
    config = dataclasses.replace(PLAIN, dataset=name, data=data, training=training)
    dataset = written(name, rows * 4, sorted({label for _, _, label in rows}), named=name == "cnn")
    predictor = load(trained(config, dataset, tmp_path))
    found = predictor(texts(dataset))
    check_same(found, evaluated(config, dataset, tmp_path, {"seed": 3}))
    forget_pair(config, dataset, tmp_path)
    np.testing.assert_array_equal(load(tmp_path)(texts(dataset)).probability, found.probability)
    assert predictor.pair == (rows is not SINGLE) == (found.certified_radius is None)
    if name == "cnn":
        assert ((found.probability > 0).sum(axis=1) == 2).all()
    if not predictor.pair:
        hostile = predictor(["A GOOD  film, isn't it? <script> \0 \u202e"])
        assert hostile.words[0][:6] == ("a", "good", "film", ",", "is", "n't") and hostile.known[0][:3] == (True,) * 3
        return
    bad: tuple[Any, ...] = (["a"], [("a", "b", "c")], ("a", "b"))
    for given in bad:
        with pytest.raises(TypeError, match="text 0 must be a pair of strings"):
            predictor(given)
    assert predictor([("", ""), ("in town", "who")]).probability.sum() == pytest.approx(0 if name == "cnn" else 2)


def test_the_example_of_the_readme_runs_on_a_workdir(workdir: Path) -> None:
    """With the workdir and the run of these tests in place of the reader's."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    code, count = re.subn(r'fa\.load\("runs/sst", \{.*?\}\)', "fa.load(workdir, chosen)", code)
    names: dict[str, Any] = {"fa": fa, "workdir": workdir, "chosen": CHOSEN}
    exec(compile(code, "README.md", "exec"), names)
    assert count == 1 and len(names["found"].attention) == 2 and names["found"].certified_radius.shape == (2,)
