"""Loading: real numbers, the length filter, marks, vectors, and what is imported on the way."""

import numpy as np
import pytest

from flax_attnat import config as configuration
from flax_attnat.data.errors import DataError
from flax_attnat.data.load import load, load_vectors
from flax_attnat.data.vocabulary import encode


def make_config(raw_dir, data_dir, **data):
    """A configuration of the treebank with the given fields of its group `data`."""
    places = {"raw_dir": str(raw_dir), "data_dir": str(data_dir)}
    return configuration.parse({"dataset": "sst", "data": {**places, **data}, "model": {"embedding_size": 2}})


def words(dataset, split):
    """The words of every text of a split."""
    return [record.words for record in dataset.splits[split].records]


def test_real_treebank(shared, tmp_path):
    """Jain & Wallace's (2019) rules on the real trees: 6,356 / 822 / 1,726 texts with n > 5, 13,822 words."""
    dataset = load(make_config(shared, tmp_path, min_length=5))
    assert [len(dataset.splits[name].records) for name in ("train", "dev", "test")] == [6_356, 822, 1_726]
    assert len(dataset.vocabulary.words) == 13_824
    assert (dataset.name, dataset.mark, dataset.label_names) == ("sst", "", ("negative", "positive"))
    train = dataset.splits["train"]
    assert train.records[0].words[:8] == ("the", "rock", "is", "destined", "to", "be", "the", "21st")
    assert train.labels[0] == 1
    assert min(len(text) for text in train.tokens) == 6
    assert all(np.all(text > 1) for text in train.tokens)
    unknown = {word for text in words(dataset, "test") for word in text} - set(dataset.vocabulary.words)
    flat = np.concatenate(dataset.splits["test"].tokens)
    assert np.sum(flat == 1) == sum(word in unknown for text in words(dataset, "test") for word in text) > 0

    whole = load(make_config(shared, tmp_path))
    assert [len(whole.splits[name].records) for name in ("train", "dev", "test")] == [6_920, 872, 1_821]
    assert whole.vocabulary.words == dataset.vocabulary.words
    assert whole.vocabulary.counts.sum() == sum(len(text) for text in words(whole, "train"))


def test_length_filter(sst_zip, tmp_path):
    """Both bounds are strict, -1 keeps all, and the vocabulary is that of the unfiltered training texts."""
    raw = sst_zip()
    whole = load(make_config(raw, tmp_path / "data"))
    assert words(whole, "train") == [("good", "film"), ("bad", "film"), ("bravo",)]
    longer = load(make_config(raw, tmp_path / "data", min_length=1, max_length=4, min_df=1)).splits
    assert [record.words for record in longer["train"].records] == [("good", "film"), ("bad", "film")]
    assert longer["train"].labels.tolist() == [1, 0]
    assert [record.words for record in longer["test"].records] == [("unheard", "words")]
    shorter = load(make_config(raw, tmp_path / "data", max_length=4))
    assert shorter.vocabulary.words == whole.vocabulary.words == ("<pad>", "<unk>", "film", "bad", "bravo", "good")
    with pytest.raises(DataError, match=r"none of the 1 texts of the split dev .*min_length=-1.*max_length=3"):
        load(make_config(raw, tmp_path / "data", max_length=3))


def test_empty_one_word_and_unknown_texts_are_kept(sst_zip, tmp_path):
    """Without a lower bound a text of no, one or only new words stays, with its label."""
    dataset = load(make_config(sst_zip(), tmp_path / "data"))
    test = dataset.splits["test"]
    assert words(dataset, "test") == [("unheard", "words"), ()]
    assert [text.tolist() for text in test.tokens] == [[1, 1], []]
    assert test.labels.tolist() == [1, 0]
    assert dataset.splits["train"].tokens[2].tolist() == [4]
    assert all(text.dtype == np.int32 for split in dataset.splits.values() for text in split.tokens)


def test_min_df(sst_zip, tmp_path):
    """The configured document frequency reaches the vocabulary."""
    dataset = load(make_config(sst_zip(), tmp_path / "data", min_df=2))
    assert dataset.vocabulary.words == ("<pad>", "<unk>", "film")
    assert dataset.vocabulary.counts.tolist() == [0, 3, 2]


def test_partial_mark(sst_zip, tmp_path):
    """Another number of sentences than the official one is shown beside every number."""
    assert load(make_config(sst_zip(), tmp_path / "data")).mark == "partial"


def test_vectors_of_the_vocabulary(sst_zip, tmp_path):
    """Row i of the table is the vector of word i; no path, no vectors; another size names the field."""
    path = tmp_path / "x.vec"
    path.write_text("film 1 2\nbravo 3 4\nother 5 6\n")
    config = make_config(sst_zip(), tmp_path / "data", vectors=str(path))
    vocabulary = load(config).vocabulary
    vectors = load_vectors(config, vocabulary)
    assert vectors is not None
    for word, vector in (("film", [1, 2]), ("bravo", [3, 4]), ("bad", [0, 0])):
        (i,) = encode(vocabulary, (word,))
        assert vectors.table[i].tolist() == vector
        assert vectors.found[i] == any(vector)
    assert load_vectors(make_config(tmp_path, tmp_path), vocabulary) is None
    path.write_text("film 1 2 3\n")
    with pytest.raises(DataError, match=r"3 numbers, but config\.model\.embedding_size is 2"):
        load_vectors(config, vocabulary)


def test_planted_is_marked_and_imports_little(run_python):
    """The synthetic data set needs neither TensorFlow Datasets nor spaCy, and says that it is synthetic."""
    code = """
import sys
from flax_attnat import config
from flax_attnat.data.load import load
dataset = load(config.parse({"dataset": "planted"}))
assert (dataset.name, dataset.mark, dataset.label_names) == ("planted", "synthetic", ("negative", "positive"))
assert set(dataset.splits) == {"train", "dev", "test"}
assert not {"tensorflow", "tensorflow_datasets", "spacy"} & set(sys.modules)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
