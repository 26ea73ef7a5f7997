"""What runs say of a text on a terminal: words shaded by weight, or numbers where there is no colour."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from flax_attnat.reporting.export import visible as seen
from launch.explanation import Explained, prediction_title, radius_title, remarks, run_title, technique_title

# On paper of their own, so that a terminal may be light or dark; the colours of the pages.
PAPER, INK = (255, 255, 255), "#000000"
HUES = {"attention": (70, 150, 255), "importance": (255, 140, 0)}
KINDS = {"attention": "attention", "importance": "gradient importance"}
# Characters of a text in its heading, and of a word before it is folded.
HEADING, FOLD = 100, 30


def show_legend(console: Console) -> None:
    """Prints how to read what follows."""
    if not _shaded(console):
        _show(console, "[word]: not in the vocabulary; all such words are the same to a model.")
        return
    legend = Text("Shade: weight relative to the largest of the text.\n")
    legend.append("Underlined italics", Style(italic=True, underline=True))
    console.print(legend.append(": not in the vocabulary; all such words are the same to a model."))


def show_explained(console: Console, found: Explained, title: str) -> None:
    """Prints what runs say of a text.

    Args:
      console: where to.
      found: what they say; its texts may hold anything.
      title: which text it is.
    """
    shaded = _shaded(console)
    console.print()
    _show(console, f"{title}: {_shortened(found.text.text) or '(empty)'}", "bold")
    if found.text.query is not None:
        _show(console, f"  query: {_shortened(found.text.query)}")
    for remark in remarks(found):
        _show(console, f"  {remark}", "yellow")
    for said in found.said:
        line = Text("  ").append(run_title(said.run), "bold")
        line.append(f": {visible(prediction_title(said))}; {radius_title(said.radius)}")
        console.print(line, soft_wrap=True)
        if shaded and found.words:
            grid = Table.grid(padding=(0, 2))
            for kind, hue in HUES.items():
                grid.add_row("", Text(kind, "dim"), _strip(found, getattr(said, kind), hue))
            console.print(grid)
    if not shaded and found.words:
        for kind, name in KINDS.items():
            columns = {technique_title(said.run): getattr(said, kind) for said in found.said}
            _show_numbers(console, name, _marked(found), columns)


def visible(text: str) -> str:
    """A text on one line, whose characters can all be seen: none moves the cursor or reverses the direction."""
    return " ".join(seen(text).split())


def _shaded(console: Console) -> bool:
    """Whether a console has colours enough for shades."""
    return console.color_system in ("256", "truecolor") and not console.no_color


def _show(console: Console, sentence: str, style: str = "") -> None:
    """Prints a sentence as it is; as `Text`, in which nothing is markup."""
    console.print(Text(sentence, style), soft_wrap=True)


def _shortened(text: str) -> str:
    """The beginning of a text."""
    text = visible(text[: 10 * HEADING])
    return text if len(text) <= HEADING else text[: HEADING - 1] + "…"


def _marked(found: Explained) -> list[str]:
    """The words, those in brackets that are not in the vocabulary."""
    return [visible(w) if known else f"[{visible(w)}]" for w, known in zip(found.words, found.known, strict=True)]


def _strip(found: Explained, weights: np.ndarray, hue: tuple[int, int, int]) -> Text:
    """The words on paper, each the darker the larger its weight `[n]`."""
    finite = np.nan_to_num(weights, nan=0.0)
    shares = finite / max(finite.max(initial=0), np.finfo(np.float32).tiny)
    strip = Text(style=Style(color=INK, bgcolor=Color.from_rgb(*PAPER)))
    for place, (word, known, share) in enumerate(zip(found.words, found.known, shares, strict=True)):
        shade = Color.from_rgb(*(paper + share * (full - paper) for paper, full in zip(PAPER, hue, strict=True)))
        strip.append(" " if place else "")
        strip.append(visible(word), Style(color=INK, bgcolor=shade, italic=not known, underline=not known))
    return strip


def _show_numbers(console: Console, title: str, words: Sequence[str], columns: dict[str, np.ndarray]) -> None:
    """Prints a row per word with its weight `[n]` in each column, in as many tables as fit the console."""
    first = min(max(cell_len(word) for word in [*words, title]), FOLD) + 3
    groups: list[list[str]] = [[]]
    for name in columns:
        if groups[-1] and first + sum(len(each) + 3 for each in [*groups[-1], name]) > console.width:
            groups.append([])
        groups[-1].append(name)
    for group in groups:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(title, overflow="fold", max_width=FOLD)
        for name in group:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for place, word in enumerate(words):
            table.add_row(Text(word), *(f"{columns[name][place]:.3f}" for name in group))
        console.print(table)
