"""Texts of a split as the chosen runs of a workdir see them, from the arrays and texts that launch.evaluate wrote."""

import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from flax_attnat.reporting.heatmap import Column, Sentence
from flax_attnat.reporting.results import Choice, ResultsError, Setting
from flax_attnat.reporting.tables import rounded_down
from flax_attnat.training.workdir import WorkdirError, read_lines

EXPLAINED, ATTACKED = "interpretability", "robustness"
DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, IndexError, RuntimeError, MemoryError),
    *(zlib.error, zipfile.BadZipFile, RecursionError),
)
"""What NumPy and JSON raise where a file was changed or cut short."""


class Examples(NamedTuple):
    """Texts under the chosen run of each technique.

    Attributes:
      sentences: for `heatmap.render`; empty where nothing was written.
      techniques: titles of the columns of every sentence.
      labels: names of the classes, by id.
      note: which texts and runs these are, and what is lacking.
    """

    sentences: list[Sentence]
    techniques: tuple[str, ...]
    labels: tuple[str, ...]
    note: str


class _Texts(NamedTuple):
    """The texts of a split.

    Attributes:
      path: of the file.
      dataset: its name.
      mark: "" for the official data.
      labels: names of the classes, by id.
      texts: N of them, as they were written.
    """

    path: epath.Path
    dataset: str
    mark: str
    labels: tuple[str, ...]
    texts: list[dict[str, Any]]


class _Seen(NamedTuple):
    """What a run says of the N texts, which have W words.

    Attributes:
      choice: whose first seed it is.
      probability: `[N, C]`.
      attention: `[W]`.
      importance: `[W]`.
      radius: `[N]`, or None where nothing was certified.
    """

    choice: Choice
    probability: np.ndarray
    attention: np.ndarray
    importance: np.ndarray
    radius: np.ndarray | None


def examples(workdir: epath.PathLike, choices: Sequence[Choice], *, split: str = "test", count: int = 60) -> Examples:
    """Texts spread evenly over a split, as the first seed of each choice sees them.

    Args:
      workdir: of launch.evaluate with the suite interpretability; certified radii are those of the suite robustness.
      choices: from `results.best`; those without a setting, or of another dataset, are left out.
      split: "train", "dev" or "test".
      count: of texts; all, where there are fewer.

    Returns:
      The same texts for every choice that was measured. Where there are none, `note` says which command writes them.

    Raises:
      ResultsError: a file is damaged, or arrays are not of these texts; the message names the file.
    """
    workdir = epath.Path(workdir)
    command = f"python -m launch.evaluate --workdir={workdir} --suite={EXPLAINED}"
    command += "" if split == "test" else f" --split={split}"
    path = workdir / "instances" / f"{split}.texts.json"
    if not path.exists():
        return Examples(
            [], (), (), f"There are no texts of the split {split} beside the results: {command} writes them."
        )
    texts = _read_texts(path, split)
    asked = [choice for choice in choices if choice.setting is not None and choice.dataset == texts.dataset]
    found, lacking = list[_Seen](), list[str]()
    for choice in asked:
        seen = _read_run(workdir, choice, split, texts)
        found += [seen] if seen else []
        lacking += [] if seen else [_title(choice)]
    total = len(texts.texts)
    shown = min(count, total) if found else 0
    # In the middle of equal parts of the split: nobody has chosen them.
    places = [(2 * number + 1) * total // (2 * shown) for number in range(shown)]
    notes = [_origin(texts, split, shown, found)] if found else []
    if lacking or not found:
        what = ", ".join(lacking) or f"any technique on {texts.dataset}"
        notes.append(f"There is no attention of {what} on the split {split}: {command} writes it.")
    starts = np.cumsum([0, *(len(text["words"]) for text in texts.texts)])
    sentences = [_sentence(texts, found, place, slice(starts[place], starts[place + 1])) for place in places]
    return Examples(sentences, tuple(_title(seen.choice) for seen in found), texts.labels, " ".join(notes))


def _read_texts(path: epath.Path, split: str) -> _Texts:
    """The texts of a file that is as it was written."""
    try:
        document = json.loads(path.read_bytes())
        texts = _Texts(path, document["dataset"], document["mark"], tuple(document["labels"]), document["texts"])
        sound = document["split"] == split and _are_texts((texts.dataset, texts.mark, *texts.labels))
        sound = sound and bool(texts.texts) and all(_is_sound(text, len(texts.labels)) for text in texts.texts)
    except (*DAMAGED, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} cannot be read: remove it, and launch.evaluate writes it anew.") from error
    if not sound:
        raise ResultsError(
            f"{path} does not hold texts as they were written: remove it, and run launch.evaluate again."
        )
    return texts


def _is_sound(text: Mapping[str, Any], classes: int) -> bool:
    """Whether a text has words, a class, and places that are among the words."""
    words, label, query = text["words"], text["label"], text.get("query", [])
    places = [*text.get("rationale", []), *text.get("unknown", [])]
    return (
        isinstance(words, list)
        and isinstance(query, list)
        and _are_texts((*words, *query))
        and all(type(place) is int and 0 <= place < len(words) for place in places)
        and type(label) is int
        and 0 <= label < classes
    )


def _are_texts(values: Iterable[Any]) -> bool:
    """Whether all are strings."""
    return all(isinstance(value, str) for value in values)


def _read_run(workdir: epath.Path, choice: Choice, split: str, texts: _Texts) -> _Seen | None:
    """What the first seed of a choice says; None where it was not measured."""
    size, words = len(texts.texts), sum(len(text["words"]) for text in texts.texts)
    shapes: dict[str, tuple[int, ...]] = {
        "probability": (size, len(texts.labels)),
        "attention_tokens": (words,),
        "gradient_tokens": (words,),
    }
    rows = _read_rows(workdir, choice, f"{split}.{EXPLAINED}", texts, shapes)
    if rows is None:
        return None
    attacked = _read_rows(workdir, choice, f"{split}.{ATTACKED}", texts, {"certified_radius": (size,)}, optional=True)
    radius = (attacked or {}).get("certified_radius")
    return _Seen(choice, rows["probability"], rows["attention_tokens"], rows["gradient_tokens"], radius)


def _read_rows(
    workdir: epath.Path,
    choice: Choice,
    suite: str,
    texts: _Texts,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    optional: bool = False,
) -> dict[str, np.ndarray] | None:
    """The row of a choice's first seed in these columns of a suite, checked; None where it was not measured."""
    name, place = _find(workdir, choice, suite) or ("", 0)
    path = workdir / "instances" / f"{name}.npz"
    if not name or not path.exists():
        return None
    advice = f"remove {workdir / 'results'}/{name}.jsonl, and launch.evaluate writes both anew."
    fixed = {
        "length": np.array([len(text["words"]) for text in texts.texts]),
        "label": np.array([text["label"] for text in texts.texts]),
    }
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            for column, expected in fixed.items():
                if not np.array_equal(arrays[column], expected):
                    raise ResultsError(
                        f"{path}: {column} is not that of the texts in {texts.path}: remove the latter, and"
                        f" launch.evaluate writes it anew; if that is not enough, {advice}"
                    )
            if not _is_run(arrays, place, choice):
                raise ResultsError(
                    f"{path}: row {place} is not of the run in line {place + 1} of its results: {advice}"
                )
            columns = [column for column in shapes if not optional or column in arrays.files]
            rows = {column: arrays[column][place] for column in columns}
    except ResultsError:
        raise
    except (*DAMAGED, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} cannot be read ({type(error).__name__}): {advice}") from error
    for column, row in rows.items():
        if row.shape != shapes[column] or row.dtype.kind != "f":
            raise ResultsError(f"{path}: {column} is {row.shape} {row.dtype} for {shapes[column]} floats: {advice}")
    return rows


def _find(workdir: epath.Path, choice: Choice, suite: str) -> tuple[str, int] | None:
    """The file of a suite that has a choice's first seed, and in which of its lines."""
    for path in sorted((workdir / "results").glob(f"*.{suite}.jsonl"), key=lambda path: path.name):
        name = path.name.removesuffix(".jsonl")
        try:
            lines = read_lines(workdir, "results", name)
        except WorkdirError as error:
            raise ResultsError(str(error)) from error
        for place, line in enumerate(lines):
            setting = Setting(*(line.get(of) for of in ("epsilon", "lambda", "learning_rate", "weight_decay")))
            run = (line.get("dataset"), line.get("technique"), line.get("reading"), setting, line.get("seed"))
            if run == (choice.dataset, choice.technique, choice.reading, choice.setting, choice.seeds[0]):
                return name, place
    return None


def _is_run(arrays: Mapping[str, np.ndarray], place: int, choice: Choice) -> bool:
    """Whether a row of arrays is of a choice's first seed; techniques without epsilon have any."""
    epsilon = choice.setting.epsilon if choice.setting else None
    seed, other = arrays["seed"], arrays["epsilon"]
    return bool(place < len(seed) and seed[place] == choice.seeds[0] and epsilon in (None, other[place]))


def _sentence(texts: _Texts, found: Iterable[_Seen], place: int, words: slice) -> Sentence:
    """A text under every technique."""
    text = texts.texts[place]
    unknown, label = set(text.get("unknown", [])), text["label"]
    columns = []
    for seen in found:
        probability = seen.probability[place]
        predicted = int(probability.argmax()) if np.isfinite(probability).all() else None
        said = "not a number" if predicted is None else f"{texts.labels[predicted]} {probability[predicted]:.2f}"
        weights = seen.attention[words].tolist(), seen.importance[words].tolist()
        radius = "" if seen.radius is None else _radius(float(seen.radius[place]))
        columns.append(Column(_title(seen.choice), said, predicted == label, *weights, radius))
    known = [at not in unknown for at in range(len(text["words"]))] if unknown else ()
    return Sentence(
        text["words"], texts.labels[label], text.get("rationale", []), columns, known, text.get("query", [])
    )


def _radius(value: float) -> str:
    """A certified radius in words, rounded down, so that it stays true."""
    if not math.isfinite(value):
        return "infinite" if math.isinf(value) else "not a number"
    return rounded_down(value)


def _title(choice: Choice) -> str:
    """A technique, with its reading."""
    return f"{choice.technique} ({choice.reading})" if choice.reading else choice.technique


def _origin(texts: _Texts, split: str, shown: int, found: Iterable[_Seen]) -> str:
    """Which texts and runs are shown."""
    runs = []
    for choice in (seen.choice for seen in found):
        epsilon = choice.setting.epsilon if choice.setting else None
        value = "" if epsilon is None else f" at epsilon {epsilon:g}"
        runs.append(f"{_title(choice)}{value}, seed {choice.seeds[0]}")
    total = len(texts.texts)
    which = "All" if shown == total else f"{shown:,} of the"
    spread = "" if shown == total else ", spread evenly over it: none was chosen by how it looks"
    mark = f" The data are {texts.mark}." if texts.mark else ""
    return f"{which} {total:,} texts of the split {split} in its order{spread}. The runs: {'; '.join(runs)}.{mark}"
