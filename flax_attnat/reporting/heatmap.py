"""Heat maps: the same sentences under several techniques, attention beside gradient importance, as HTML or a figure."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure

from flax_attnat.reporting.export import visible
from flax_attnat.reporting.flow import Entry, Item, draw_entries

FOLD, FOLD_FIGURE = 60, 40  # words of a text that are seen at once
BUDGET = 2_500_000  # characters of a page for the words behind them
MARKUP = 22  # characters of a page around such a word, at most
LONGEST = 200  # characters of a word
NOT_A_NUMBER = "not a number"


class Column(NamedTuple):
    """What one technique says of one sentence.

    Attributes:
      title: the technique.
      prediction: name of the predicted class, with its probability.
      right: whether it is the label; None where there is no label.
      attention: `[T]` weights.
      importance: `[T]` gradient importance.
      radius: the certified radius in words, such as "0.31"; "" for none.
    """

    title: str
    prediction: str
    right: bool | None
    attention: Sequence[float]
    importance: Sequence[float]
    radius: str = ""


class Sentence(NamedTuple):
    """One sentence of a heat map.

    Attributes:
      words: its T words.
      label: name of its class; "" for none.
      rationale: places of the words that decide the label; they are underlined.
      columns: one per technique.
      known: `[T]` whether the vocabulary has the word; empty: it has all.
      query: words of the question or hypothesis, which have no attention; empty for none.
    """

    words: Sequence[str]
    label: str
    rationale: Sequence[int]
    columns: Sequence[Column]
    known: Sequence[bool] = ()
    query: Sequence[str] = ()


class Word(NamedTuple):
    """A word with its weight.

    Attributes:
      text: what is shown.
      shade: 0 to 100, in proportion to the largest weight of the text.
      number: the weight.
      marked: whether it decides the label.
      known: whether the vocabulary has it.
    """

    text: str
    shade: int
    number: str
    marked: bool
    known: bool


class Row(NamedTuple):
    """Attention or importance of a sentence.

    Attributes:
      kind: which of the two.
      note: how many of its weights are not a number; "" if all are.
      words: those that are seen at once.
      folded: those behind them.
    """

    kind: str
    note: str
    words: list[Word]
    folded: list[Word]


class Shown(NamedTuple):
    """A sentence as `words.html` shows it.

    Attributes:
      label: name of its class; "" for none.
      query: its first words.
      query_rest: how many words of the query are left out.
      columns: of every technique title, prediction, right and radius, and its two rows.
      folded: how many words are folded.
      rest: how many are not in the page.
      marked: whether any word decides the label.
      known: whether the vocabulary has every word.
    """

    label: str
    query: list[str]
    query_rest: int
    columns: list[tuple[Column, list[Row]]]
    folded: int
    rest: int
    marked: bool
    known: bool


def render(title: str, note: str, sentences: Sequence[Sentence]) -> str:
    """A self-contained page: no script, no network, every text escaped; readable in light, dark and print.

    Args:
      title: heading of the page.
      note: a sentence under it: what was trained, on what, whether the data are synthetic or partial.
      sentences: what to show.

    Returns:
      HTML. A word's shade is its weight relative to the text's largest; its title attribute has the number.

    Raises:
      ValueError: a sentence has not one weight per word.
    """
    loader = jinja2.PackageLoader("flax_attnat.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.get_template("heatmap.html")
    return template.render(title=visible(title), note=visible(note), sentences=prepare(sentences))


def prepare(sentences: Sequence[Sentence], budget: int = BUDGET, fold: int = FOLD) -> list[Shown]:
    """Sentences for the macros of `words.html`: `sentence(shown, number, level)` and `legend(all_shown)`.

    The macros' style is `words.css`, to be included in a `<style>`. Texts are shown whole, those of more than `fold`
    words folded, as long as the budget lasts, in their order.

    Args:
      sentences: what to show.
      budget: characters of a page for folded words, of all sentences together.
      fold: words of a text that are seen at once.

    Returns:
      One `Shown` per sentence, free of characters that hide or reverse what a text says.

    Raises:
      ValueError: a sentence has not one weight per word.

    >>> column = Column("vanilla", "positive 0.75", True, [0.25, 0.5, 0.25], [0.0, 1.0, 0.0])
    >>> (shown,) = prepare([Sentence(["a", "good", "film"], "positive", [1], [column])], fold=2)
    >>> [(row.kind, [word.shade for word in row.words], shown.folded) for row in shown.columns[0][1]]
    [('attention', [50, 100], 1), ('importance', [0, 100], 1)]
    """
    found = []
    for number, sentence in enumerate(sentences, 1):
        _check(sentence, number)
        texts = [_short(visible(word)) for word in sentence.words]
        size = min(fold, len(texts))
        for text in texts[fold:]:
            cost = 2 * len(sentence.columns) * (MARKUP + len(html.escape(text)))
            if cost > budget:
                break
            budget, size = budget - cost, size + 1
        found.append(_shown(sentence, texts, size, fold))
    return found


def draw_heat_map(sentences: Sequence[Sentence], title: str) -> Figure:
    """The same as a figure for a paper, two columns of it wide; a text of more than 40 words is cut off there.

    Args:
      sentences: what to show; four to six make a page.
      title: of the figure.

    Returns:
      A figure for `plot.save`; what its font does not have is drawn as U+FFFD.

    Raises:
      ValueError: a sentence has not one weight per word.
    """
    found = prepare(sentences, 0, FOLD_FIGURE)
    entries: list[str | Entry] = []
    for number, shown in enumerate(found, 1):
        heading = f"{number}. Label: {shown.label}" if shown.label else f"Text {number}"
        query = f". Query: {' '.join(shown.query)}{tokens(shown.query_rest)}" if shown.query else ""
        entries.append(heading + query)
        for column, rows in shown.columns:
            said = [column.prediction, "wrong" if column.right is False else ""]
            said += [f"radius {column.radius}" if column.radius else ""]
            entries.append(
                Entry(column.title, [text for text in said if text], [_items(row, shown.rest) for row in rows])
            )
    notes = ["The shade of a word is its weight relative to the largest of its text."]
    notes += ["Underlined: words that decide the label."] if any(shown.marked for shown in found) else []
    notes += ["Dotted: words that are not in the vocabulary."] if not all(shown.known for shown in found) else []
    if any(column.radius for sentence in sentences for column in sentence.columns):
        notes.append("Radius: no change of the attention scores up to it changes the prediction.")
    return draw_entries(title, ("attention", "gradient importance"), entries, " ".join(notes))


def tokens(rest: int) -> str:
    """What stands for tokens that are not seen; nothing for none.

    >>> tokens(0), tokens(1), tokens(1200)
    ('', ' … +1 token', ' … +1,200 tokens')
    """
    return f" … +{rest:,} token{'s' if rest > 1 else ''}" if rest else ""


def shades(weights: Sequence[float]) -> list[tuple[str, int]]:
    """For each weight `[T]` its text, and its size in hundredths of the largest; not finite is "NaN" and 0.

    >>> shades([0.1, 0.4, float("nan")])
    [('0.100', 25), ('0.400', 100), ('NaN', 0)]
    """
    values = np.asarray(weights, np.float64)
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    largest = np.max(values, initial=0.0)
    sizes = np.rint(100 * np.clip(values / largest, 0, 1) if largest > 0 else 0 * values).astype(int)
    numbers = [f"{value:.3f}" if real else "NaN" for value, real in zip(values.tolist(), finite, strict=True)]
    return list(zip(numbers, sizes.tolist(), strict=True))


def _check(sentence: Sentence, number: int) -> None:
    """Makes sure that there is one of everything per word."""
    counts = {"places in known": len(sentence.known) or len(sentence.words)}
    for column in sentence.columns:
        counts |= {
            f"{kind} weights of {column.title}": len(getattr(column, kind)) for kind in ("attention", "importance")
        }
    for what, count in counts.items():
        if count != len(sentence.words):
            raise ValueError(
                f"sentence {number} has {len(sentence.words)} words and {count} {what}: give one per word."
            )


def _short(text: str) -> str:
    """A text that is not too long for a word."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _shown(sentence: Sentence, texts: Sequence[str], size: int, fold: int) -> Shown:
    """A sentence of which `size` words are in the page."""
    marked, known = set(sentence.rationale), sentence.known or [True] * len(texts)
    query = [_short(visible(word)) for word in sentence.query]
    columns = []
    for column in sentence.columns:
        plain: dict[str, Any] = {name: visible(getattr(column, name)) for name in ("title", "prediction", "radius")}
        rows = []
        for kind, weights in (("attention", column.attention), ("importance", column.importance)):
            pairs = shades(weights)
            words = [Word(texts[at], pairs[at][1], pairs[at][0], at in marked, known[at]) for at in range(size)]
            rows.append(Row(kind, _note([number for number, _ in pairs]), words[:fold], words[fold:]))
        columns.append((column._replace(**plain), rows))
    return Shown(
        label=visible(sentence.label),
        query=query[:fold],
        query_rest=len(query[fold:]),
        columns=columns,
        folded=max(size - fold, 0),
        rest=len(texts) - size,
        marked=bool(marked),
        known=all(known),
    )


def _note(numbers: Sequence[str]) -> str:
    """How many of these are not a number."""
    lacking = numbers.count("NaN")
    return NOT_A_NUMBER if lacking == len(numbers) > 0 else f"{lacking} {NOT_A_NUMBER}" if lacking else ""


def _items(row: Row, rest: int) -> list[Item]:
    """A row of a figure."""
    items = [Item(row.note, None)] if row.note else []
    items += [Item(word.text, word.shade, word.marked, not word.known) for word in row.words]
    return items + ([Item(tokens(rest).strip(), None)] if rest else [])
