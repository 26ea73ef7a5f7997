"""A run as one file: what is read back says the same bit for bit, and what is damaged or strange gets a sentence."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from flax_attnat.config import Config, DataConfig, ModelConfig
from flax_attnat.data.vocabulary import RESERVED, Vocabulary, fit_vocabulary
from flax_attnat.finished import restored_model
from flax_attnat.portable import read_safetensors, write_safetensors
from flax_attnat.predictor import Predictor, build_predictor, load
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Run
from flax_attnat.training.workdir import WorkdirError

RUN = Run(epsilon=0.1 + 0.2, adversarial_weight=1e-300, learning_rate=1e-3, weight_decay=0.0, seed=7)
TEXTS = ["a good film", "", "the plot was bad and bad and bad", "Ünïcode — it isn't"]
PAIRS = [("@entity0 met @entity2 in town", "who met @entity2"), ("", ""), ("@entity1 slept", "@placeholder slept")]
TABLE = "params/embedding/table"

Meta = dict[str, Any]
Tensors = dict[str, np.ndarray]


def made(
    technique: str = "vanilla",
    dataset: str = "sst",
    encoder: str = "average",
    labels: tuple[str, ...] = ("negative", "positive"),
    vocabulary: Vocabulary | None = None,
    attention: str = "additive",
) -> Predictor:
    """A run that has only just begun: its parameters are random."""
    data = DataConfig(bucket_widths=(4, 8), truncate=6)
    model = ModelConfig(encoder=encoder, attention=attention, embedding_size=6, hidden_size=4)
    config = Config(dataset=dataset, technique=technique, data=data, model=model)
    pair = dataset in ("cnn", "snli")
    if vocabulary is None:
        words = [[text] if isinstance(text, str) else list(text) for text in (*TEXTS, *PAIRS)]
        vocabulary = fit_vocabulary([part.lower().split() for parts in words for part in parts])
    init = restored_model(config, labels, vocabulary, pair=pair).init
    params = jax.jit(init)(jax.random.key(3))
    return build_predictor(config, run_fields(config, RUN), labels, vocabulary, pair, params)


def check_same(one: Predictor, other: Predictor) -> None:
    """Every bit of what they are."""
    assert (one.config, one.run, one.label_names, one.pair) == (other.config, other.run, other.label_names, other.pair)
    assert one.vocabulary.words == other.vocabulary.words
    np.testing.assert_array_equal(one.vocabulary.counts, other.vocabulary.counts)
    leaves, others = (dict(jax.tree.leaves_with_path(of.params)) for of in (one, other))
    assert leaves.keys() == others.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, others[path])


@pytest.mark.parametrize(
    ("technique", "dataset", "encoder", "labels", "attention"),
    [
        ("word_at", "sst", "bilstm", ("negative", "positive"), "additive"),
        ("attention_iat", "ag_news", "cnn", ("World", "Sports", "<b>", "\ud800 \x1b[0m"), "additive"),
        ("word_iat", "snli", "average", ("yes", "no", "maybe"), "additive"),
        ("attention_at", "cnn", "average", ("@entity0", "@entity1", "@entity2"), "additive"),
        ("attention_rp", "snli", "average", ("yes", "no", "maybe"), "scaled_dot"),
        ("vanilla", "sst", "cnn", ("negative", "positive"), "scaled_dot"),
    ],
)
def test_what_is_read_back_says_the_same_bit_for_bit(
    technique: str, dataset: str, encoder: str, labels: tuple[str, ...], attention: str, tmp_path: Path
) -> None:
    predictor = made(technique, dataset, encoder, labels, attention=attention)
    write_safetensors(predictor, tmp_path / "run.safetensors")
    found = read_safetensors(tmp_path / "run.safetensors")
    check_same(predictor, found)
    texts: list[Any] = PAIRS if predictor.pair else TEXTS
    for mine, theirs in zip(predictor(texts), found(texts), strict=True):
        for a, b in zip(mine, theirs, strict=True) if isinstance(mine, list) else [(mine, theirs)]:
            np.testing.assert_array_equal(a, b)


def test_it_is_a_workdir_to_load(tmp_path: Path) -> None:
    predictor = made()
    write_safetensors(predictor, tmp_path / "run.safetensors")
    check_same(predictor, load(tmp_path / "run.safetensors", {"seed": 7}))
    with pytest.raises(WorkdirError, match="none of the 1 runs"):
        load(tmp_path / "run.safetensors", {"seed": 8})


def test_words_of_any_kind_and_number_are_kept(tmp_path: Path) -> None:
    """Their text alone would be more than a header may hold."""
    odd = ("a/b", '"', "\\", "\n", "\0", "\x1b[2J", "\ud800", "漢字", "😀", "<pad >", "x" * 2**20)
    words = (*RESERVED, *odd, *(f"{number:01200}" for number in range(100_000)))
    counts = np.arange(len(words)) * 2**40
    predictor = made(vocabulary=Vocabulary(words, counts))
    write_safetensors(predictor, tmp_path / "run.safetensors")
    assert (tmp_path / "run.safetensors").stat().st_size > 100_000_000
    found = read_safetensors(tmp_path / "run.safetensors")
    assert found.vocabulary.words == words
    np.testing.assert_array_equal(found.vocabulary.counts, counts)


def test_any_reader_of_safetensors_finds_arrays_by_their_names(tmp_path: Path) -> None:
    """As the docstring has it; from these alone the prediction of one word is computed by hand."""
    predictor = made()
    write_safetensors(predictor, tmp_path / "run.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "run.safetensors")
    words = json.loads(tensors["vocabulary/words"].tobytes())
    assert words[:2] == ["<pad>", "<unk>"] and tensors[TABLE].shape == (len(words), 6)
    assert {name: leaf.shape for name, leaf in tensors.items() if name.startswith("params/")} == {
        TABLE: (len(words), 6),
        "params/encoder/Dense_0/kernel": (6, 8),
        "params/encoder/Dense_0/bias": (8,),
        "params/attention/inner/kernel": (8, 4),
        "params/attention/inner/bias": (4,),
        "params/attention/outer/kernel": (4, 1),
        "params/output/kernel": (8, 1),
        "params/output/bias": (1,),
    }
    vector = tensors[TABLE][words.index("film")].astype(float)
    state = np.tanh(vector @ tensors["params/encoder/Dense_0/kernel"] + tensors["params/encoder/Dense_0/bias"])
    (logit,) = state @ tensors["params/output/kernel"] + tensors["params/output/bias"]
    assert predictor(["film"]).probability[0, 1] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)


def test_the_same_run_gives_the_same_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "new" / "b.safetensors"
    second.parent.mkdir()
    second.write_bytes(b"older")
    write_safetensors(made(), first)
    write_safetensors(read_safetensors(first), second)
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in second.parent.iterdir()] == ["b.safetensors"]


def test_arrays_of_another_layout_in_memory_are_written_by_their_values(tmp_path: Path) -> None:
    predictor = made()
    turned = jax.tree.map(lambda leaf: np.asfortranarray(leaf), predictor.params)
    write_safetensors(predictor._replace(params=turned), tmp_path / "run.safetensors")
    check_same(predictor, read_safetensors(tmp_path / "run.safetensors"))


@pytest.mark.parametrize("key", ["a/b", "", 3])
def test_parameters_that_have_no_name_in_a_file_are_refused(key: Any, tmp_path: Path) -> None:
    predictor = made()._replace(params={"output": {key: np.zeros(1, np.float32)}})
    with pytest.raises(ValueError, match=r"the key .* cannot be"):
        write_safetensors(predictor, tmp_path / "run.safetensors")
    assert not list(tmp_path.iterdir())


def test_parameters_of_another_precision_are_refused(tmp_path: Path) -> None:
    params = {"output": {"bias": np.zeros(1)}}
    with pytest.raises(ValueError, match=r"written as float32 and params/.* is float64"):
        write_safetensors(made()._replace(params=params), tmp_path / "run.safetensors")


@pytest.mark.parametrize("name", ["run", "run.npz", "run.safetensors.gz", ".safetensors"])
def test_a_path_that_ends_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.safetensors"):
        write_safetensors(made(), tmp_path / name)
    with pytest.raises(ValueError, match=r"does not end in \.safetensors"):
        read_safetensors(tmp_path / name)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("none.safetensors", "none/run.safetensors", "folder.safetensors"):
        with pytest.raises(WorkdirError, match=rf"{name} cannot be read: (No such file|Is a directory)"):
            read_safetensors(tmp_path / name)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "run.safetensors"
    write_safetensors(made(), path)
    return path.read_bytes()


def header_size(content: bytes) -> int:
    return int(struct.unpack_from("<Q", content)[0])


def refusal(content: bytes, tmp_path: Path) -> str | None:
    """What is said of a file, one line of plain text; None if it is read."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    try:
        read_safetensors(path)
    except WorkdirError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return str(error)
    return None


def changed(good: bytes, change: Callable[[Meta, Tensors], Any]) -> bytes:
    """A file whose metadata and arrays are changed."""
    tensors = safetensors.numpy.load(good)
    meta = json.loads(json.loads(good[8 : 8 + header_size(good)])["__metadata__"]["flax_attnat"])
    change(meta, tensors)
    return safetensors.numpy.save(tensors, {"flax_attnat": json.dumps(meta)})


def test_a_file_that_was_cut_short_anywhere_is_refused(good: bytes, tmp_path: Path) -> None:
    for length in (*range(64), *range(64, len(good), 97), len(good) - 1):
        assert "no safetensors file, was cut short" in (refusal(good[:length], tmp_path) or "")
    assert "no safetensors file, was cut short" in (refusal(good + b"\0", tmp_path) or "")
    assert refusal(good, tmp_path) is None


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_claims_another_size_is_refused(size: int, good: bytes, tmp_path: Path) -> None:
    assert "no safetensors file" in (refusal(struct.pack("<Q", size) + good[8:], tmp_path) or "")


def test_arrays_that_claim_to_be_huge_are_refused(good: bytes, tmp_path: Path) -> None:
    for shape, end in (([2**40], 2**42), ([2**62, 2**62], 4), ([2**64], 4), ([-1], 4), ([1], 2**63)):
        header = json.dumps({TABLE: {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
        assert "no safetensors file" in (refusal(struct.pack("<Q", len(header)) + header + bytes(8), tmp_path) or "")


def test_a_damaged_header_is_refused_or_means_something(good: bytes, tmp_path: Path) -> None:
    """Some letters may be any other, in the path of the data, say; a fault is never more than a sentence."""
    numbers, refused = random.Random(0), 0
    for _ in range(300):
        content = bytearray(good)
        content[numbers.randrange(8 + header_size(good))] = numbers.randrange(256)
        refused += refusal(bytes(content), tmp_path) is not None
    assert refused > 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 a zip", "no safetensors file"),
        (b"\x80\x04\x95 a pickle", "no safetensors file"),
        (safetensors.numpy.save({"weight": np.zeros(3, np.float32)}), "not of this package"),
        (safetensors.numpy.save({"weight": np.zeros(3, np.float32)}, {"format": "pt"}), "not of this package"),
        (safetensors.numpy.save({}, {"flax_attnat": "{"}), "is not JSON"),
        (safetensors.numpy.save({}, {"flax_attnat": "[" * 10**5}), "is not JSON"),
        (safetensors.numpy.save({}, {"flax_attnat": "3"}), "is no JSON object"),
        (struct.pack("<Q", 2) + b"{}", "not of this package"),
        (struct.pack("<Q", 59) + b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}    ' + b"\0\0", "NumPy"),
    ],
)
def test_files_of_others_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in (refusal(content, tmp_path) or "")


CHANGES: dict[str, tuple[Callable[[Meta, Tensors], Any], str]] = {
    "format": (lambda meta, _: meta.update(format=2), "its format is number 2 and this version of flax_attnat reads 1"),
    "control": (lambda meta, _: meta.update(format="\x1b[2J\n"), "its format is number \ufffd[2J\ufffd"),
    "config": (lambda meta, _: meta.pop("config"), "its metadata lack config"),
    "labels": (lambda meta, _: meta.pop("labels"), "its metadata lack labels"),
    "pair": (lambda meta, _: meta.update(pair="no"), "pair of its metadata is of the type str, not bool"),
    "future": (lambda meta, _: meta["config"]["model"].update(heads=2), "config.model.heads is not a field"),
    "huge": (lambda meta, _: meta["config"]["model"].update(hidden_size=10**15), "hidden_size is more than all"),
    "beyond": (lambda meta, _: meta["config"]["model"].update(hidden_size=10**400), "too large"),
    "twice": (lambda meta, _: meta.update(labels=["a", "a"]), "two or more different names"),
    "seed": (lambda meta, _: meta["run"].pop("seed"), "run of its metadata lacks seed"),
    "technique": (lambda meta, _: meta["run"].update(technique="word_at"), "'technique' of its run must be 'vanilla'"),
    "epsilon": (lambda meta, _: meta["run"].update(epsilon=5.0), "'epsilon' of its run must be None; it is '5.0'"),
    "large": (lambda meta, _: meta["run"].update(seed=10**400), "too large"),
    "more": (lambda meta, _: meta["run"].update({"\x1b": 1}), "of its run must be"),
    "nested": (lambda meta, _: meta["run"].update(seed=json.loads("[" * 500 + "]" * 500)), "seed of its run must be"),
    "classes": (lambda meta, _: meta["labels"].append("third"), "['output']['bias'] has the shape (1,) where (3,)"),
    "is pair": (lambda meta, _: meta.update(pair=True), "the parameters are not those of the configuration's model"),
    "missing": (lambda _, tensors: tensors.pop("params/output/bias"), "['output']['bias'] has the shape of nothing"),
    "no params": (lambda _, tensors: [tensors.pop(name) for name in list(tensors) if "params" in name], "of nothing"),
    "other": (lambda _, tensors: tensors.update({"params/x": np.ones(1, np.float32)}), "['x'] has the shape (1,)"),
    "below": (
        lambda _, tensors: tensors.update({"params/output/bias/x": np.ones(1, np.float32)}),
        "'output/bias/x' lies below another parameter",
    ),
    "precision": (
        lambda _, tensors: tensors.update({TABLE: tensors[TABLE].astype(np.float16)}),
        "the parameter 'embedding/table' is float16 and not float32",
    ),
    "words": (lambda _, tensors: tensors.pop("vocabulary/words"), "it lacks the array vocabulary/words"),
    "counts": (lambda _, tensors: tensors.pop("vocabulary/counts"), "it lacks the array vocabulary/counts"),
    "fewer": (lambda _, tensors: tensors.update({"vocabulary/counts": np.ones(2, np.int64)}), "and 2 counts"),
    "negative": (lambda _, tensors: tensors.update({"vocabulary/counts": -np.ones(9, np.int64)}), "no list of counts"),
    "no json": (
        lambda _, tensors: tensors.update({"vocabulary/words": np.frombuffer(b'["<pad>", "<u', np.uint8)}),
        "vocabulary/words is not JSON",
    ),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_is_missing_or_does_not_fit_is_named(name: str, good: bytes, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    assert message in (refusal(changed(good, change), tmp_path) or "it was read")


def test_what_wrote_it_is_told_and_not_asked_for(good: bytes, tmp_path: Path) -> None:
    assert f'\\"jax\\": \\"{jax.__version__}\\"' in good.decode(errors="replace")
    assert refusal(changed(good, lambda meta, _: meta.pop("versions")), tmp_path) is None
