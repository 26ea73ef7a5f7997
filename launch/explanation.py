"""What several runs say of the same texts: gathered, as JSON, as a page."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_attnat.predictor import Prediction, Predictor
from flax_attnat.reporting.tables import rounded_down


class Text(NamedTuple):
    """A text to be explained.

    Attributes:
      text: the text or passage.
      query: question or hypothesis; None where the data have none.
    """

    text: str
    query: str | None


class Said(NamedTuple):
    """What one run says of a text of n words.

    Attributes:
      run: what names it.
      label: predicted class; None where no class is possible, or the probabilities are not numbers.
      probability: of each class.
      attention: `[n]`.
      importance: `[n]`.
      radius: certified for this prediction; None for pairs.
    """

    run: Mapping[str, Any]
    label: str | None
    probability: dict[str, float]
    attention: np.ndarray
    importance: np.ndarray
    radius: np.float32 | None


class Explained(NamedTuple):
    """What several runs say of a text.

    Attributes:
      text: as it was given.
      words: the n words of it that are read.
      known: `[n]` whether the vocabulary has them.
      length: words that it has.
      query_words: those of the query that are read.
      query_length: words that the query has.
      said: by each run.
    """

    text: Text
    words: tuple[str, ...]
    known: tuple[bool, ...]
    length: int
    query_words: tuple[str, ...]
    query_length: int
    said: list[Said]


def explain(texts: Sequence[Text], predictors: Sequence[Predictor]) -> Iterator[Explained]:
    """What runs of one workdir say of texts, in their order; the texts are cut into words once.

    Args:
      texts: with queries if the runs read pairs, and only then.
      predictors: of one workdir, at least one.
    """
    first = predictors[0]
    given: list[Any] = [text.text if text.query is None else (text.text, text.query) for text in texts]
    cut = first.read(given)
    found = [predictor.predict(cut) for predictor in predictors]
    most = first.config.data.truncate
    for place, text in enumerate(texts):
        query = cut[place][1] if first.pair else ()
        said = [_said(each, of, place) for each, of in zip(predictors, found, strict=True)]
        words, known = found[0].words[place], found[0].known[place]
        yield Explained(text, words, known, len(cut[place][0]), query[:most], len(query), said)


def _said(predictor: Predictor, found: Prediction, place: int) -> Said:
    """What one run says of one text."""
    probability = found.probability[place]
    # Of two classes as evaluation has it: both may round to 0.5.
    label = int(probability[1] > 0.5) if len(probability) == 2 else int(probability.argmax())
    possible = np.isfinite(probability).all() and probability.any()
    return Said(
        run=predictor.run,
        label=predictor.label_names[label] if possible else None,
        probability=dict(zip(predictor.label_names, probability, strict=True)),
        attention=found.attention[place],
        importance=found.importance[place],
        radius=None if found.certified_radius is None else found.certified_radius[place],
    )


def to_json(found: Explained) -> dict[str, Any]:
    """What is said of a text as plain JSON types, without NaN and infinity.

    Returns:
      `{"text", "words", "known", "length", "predictions": [{"technique", "reading", "epsilon", "lambda", "seed",
      "label", "probability", "attention", "importance", "certified_radius"}]}`; with "query" and "query_words" before
      the predictions where there is a query.
    """
    line = {"text": found.text.text, "words": found.words, "known": found.known, "length": found.length}
    if found.text.query is not None:
        line |= {"query": found.text.query, "query_words": found.query_words}
    return line | {"predictions": [_prediction(said) for said in found.said]}


def _prediction(said: Said) -> dict[str, Any]:
    """What one run says as plain JSON types."""
    return {name: said.run[name] for name in ("technique", "reading", "epsilon", "lambda", "seed")} | {
        "label": said.label,
        "probability": dict(zip(said.probability, _plain(said.probability.values()), strict=True)),
        "attention": _plain(said.attention),
        "importance": _plain(said.importance),
        "certified_radius": "inf" if said.radius == math.inf else _plain([said.radius])[0],
    }


def _plain(values: Iterable[Any]) -> list[float | None]:
    """Float32 as numbers with the digits that they have; None for what is no number, or not finite."""
    return [None if value is None or not np.isfinite(value) else float(str(value)) for value in values]


def technique_title(run: Mapping[str, Any]) -> str:
    """The technique of a run, with its reading."""
    return f"{run['technique']} ({run['reading']})" if run["reading"] else str(run["technique"])


def run_title(run: Mapping[str, Any]) -> str:
    """A run in words, with the values that it was trained with.

    >>> run_title({"technique": "word_at", "reading": None, "epsilon": 5.0, "lambda": 1.0, "seed": 0})
    'word_at, epsilon 5, seed 0'
    """
    epsilon = [] if run["epsilon"] is None else [f"epsilon {run['epsilon']:g}"]
    weight = [] if run["lambda"] in (None, 1) else [f"lambda {run['lambda']:g}"]
    return ", ".join([technique_title(run), *epsilon, *weight, f"seed {run['seed']}"])


def prediction_title(said: Said) -> str:
    """The predicted class with its probability."""
    if said.label is not None:
        return f"{said.label} {said.probability[said.label]:.1%}"
    numbers = np.isfinite(list(said.probability.values())).all()
    return "no class: the text names none" if numbers else "no class: the logits are not numbers"


def radius_title(radius: float | np.float32 | None) -> str:
    """What is certified of a prediction, in words; the number is rounded down, so that it stays true.

    >>> radius_title(1.3278)
    'scores may each move by 1.32 before it changes'
    """
    if radius is None:
        return "not certified: pairs"
    if math.isnan(radius):
        return "not certified: the logits are not numbers"
    if math.isinf(radius):
        return "no attention changes it"
    if radius == 0:
        return "not certified: another class is as likely, to rounding"
    return f"scores may each move by {rounded_down(radius)} before it changes"


def remarks(found: Explained) -> list[str]:
    """What a reader should know of how a text was read."""
    said = []
    parts = [("", found.words, found.length), ("query: ", found.query_words, found.query_length)]
    for name, words, length in parts:
        if len(words) < length:
            said.append(f"{name}the first {len(words):,} of {length:,} words are read (config.data.truncate).")
    if not found.words:
        said.append("there are no words: this is what the model says of nothing.")
    elif not any(found.known):
        said.append("none of the words is in the vocabulary: any other unknown words would be read alike.")
    return said


def render_page(texts: Sequence[Explained], predictors: Sequence[Predictor], mark: str | None) -> str:
    """What is said of texts as an HTML page.

    Args:
      texts: what was explained.
      predictors: by which runs.
      mark: of the data that they were trained on; "" or None for the official ones.
    """
    # Matplotlib comes with it.
    from flax_attnat.reporting.heatmap import Column, Sentence, render

    sentences = [
        Sentence(
            words=found.words,
            label="",
            rationale=(),
            columns=[
                Column(
                    title=run_title(said.run),
                    prediction=prediction_title(said),
                    right=None,
                    attention=said.attention.tolist(),
                    importance=said.importance.tolist(),
                    radius=_radius_figure(said.radius),
                )
                for said in found.said
            ],
            known=found.known,
            query=found.query_words,
        )
        for found in texts
    ]
    dataset = predictors[0].config.dataset
    data = f"{dataset} ({mark} data)" if mark else dataset
    what = "What each technique, trained on {}, predicts and attends to, beside gradient importance."
    cut = sum(len(found.words) < found.length for found in texts)
    more = f" {cut:,} of the texts were cut off at {predictors[0].config.data.truncate:,} words." if cut else ""
    return render(f"{dataset}: texts explained", what.format(data) + more, sentences)


def _radius_figure(radius: np.float32 | None) -> str:
    """A certified radius where the column says what it is."""
    if radius is None or math.isnan(radius):
        return ""
    return "infinite: no attention changes it" if math.isinf(radius) else rounded_down(radius) if radius else "0"
