"""Shaded words that flow over lines in a figure: entries of a name and two columns of words, one below the other."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath

from flax_attnat.reporting.plot import FONT, clean, style

# Points; the figure is as wide as both columns of a paper.
WIDTH, MARGIN, NAMES, GAP = 516.0, 5.0, 96.0, 10.0
SIZE, LINE, BOX, SPACE, PAD = 6.5, 10.0, 8.6, 1.2, 1.0
HEADING = 7.5
COLUMN = (WIDTH - 2 * MARGIN - NAMES - 2 * GAP) / 2

COLOURS = ((0, 114, 178), (213, 94, 0))  # blue and vermillion of Okabe and Ito: apart for every eye, and dark in grey
STRONGEST = 0.62  # of the colour where the weight is largest: black is read on it
INK, SOFT, RULE = "#000000", "#555555", "#BBBBBB"


class Item(NamedTuple):
    """A word, or a remark among words.

    Attributes:
      text: what is drawn.
      shade: 0 to 100; None for a remark.
      underlined: with a line below.
      dotted: with dots below.
    """

    text: str
    shade: int | None
    underlined: bool = False
    dotted: bool = False


class Entry(NamedTuple):
    """What stands beside each other.

    Attributes:
      name: in the first column.
      remarks: below it, as many on a line as there is room for.
      columns: items of the other two.
    """

    name: str
    remarks: Sequence[str]
    columns: Sequence[Sequence[Item]]


class Placed(NamedTuple):
    """An item that has its place.

    Attributes:
      item: with a text that can be drawn.
      line: from 0.
      left: points from the left of its column.
      width: points.
    """

    item: Item
    line: int
    left: float
    width: float


def flow(items: Sequence[Item], width: float = COLUMN) -> list[Placed]:
    """Items from left to right, a new line where the next is too wide for this one; none is wider than a line.

    Args:
      items: words and remarks.
      width: of a line, in points.

    >>> [(placed.item.text, placed.line) for placed in flow([Item("long", 0), Item("word", 0), Item("s", 0)], 35)]
    [('long', 0), ('word', 1), ('s', 1)]
    """
    found: list[Placed] = []
    line, left = 0, 0.0
    for item in items:
        text, size = _fitted(item.text, width)
        if left and left + size > width:
            line, left = line + 1, 0.0
        found.append(Placed(item._replace(text=text), line, left, size))
        left += size + SPACE
    return found


def draw_entries(title: str, heads: tuple[str, str], entries: Sequence[str | Entry], note: str) -> Figure:
    """A figure as high as its entries need.

    Args:
      title: above all.
      heads: names of the two columns of words, each with the scale of its shades.
      entries: from top to bottom; a string is a heading across all columns.
      note: below all.

    Returns:
      A figure for `plot.save`.
    """
    blocks = [_heading(entry) if isinstance(entry, str) else _entry(entry) for entry in entries]
    lines = textwrap.wrap(clean(title, 200), 110)
    remarks = textwrap.wrap(note, 140)
    top = MARGIN + 12 * len(lines) + 19
    height = top + sum(block.height for block in blocks) + 6 + LINE * len(remarks) + MARGIN
    with style():
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        for number, line in enumerate(lines):
            _write(axes, MARGIN, MARGIN + 9 + 12 * number, line, fontsize=9)
        for column, head in enumerate(heads):
            _draw_head(axes, column, top - 8, head)
        for block in blocks:
            _draw_block(axes, block, top)
            top += block.height
        for number, line in enumerate(remarks):
            _write(axes, MARGIN, top + 6 + LINE * number + 5, line, color=SOFT)
    return figure


class _Block(NamedTuple):
    """Something that is laid out.

    Attributes:
      height: points.
      texts: left, baseline below the top, text and font size of each.
      columns: placed items.
      rule: whether a line is drawn above it.
    """

    height: float
    texts: list[tuple[float, float, str, dict[str, Any]]]
    columns: list[list[Placed]]
    rule: bool


def _heading(text: str) -> _Block:
    """A heading over the whole width."""
    placed = flow([Item(word, None) for word in text.split()], (WIDTH - 2 * MARGIN) * SIZE / HEADING)
    rows = _lines(placed)
    texts = [(MARGIN, 12 + 9.5 * line, row, {"fontsize": HEADING}) for line, row in enumerate(rows)]
    return _Block(16.5 + 9.5 * (len(rows) - 1), texts, [], True)


def _entry(entry: Entry) -> _Block:
    """A name, its remarks, and its words."""
    last = len(entry.remarks) - 1
    said = [f"{text}," if place < last else text for place, text in enumerate(entry.remarks)]
    below = _lines(flow([Item(text, None) for text in said], NAMES))
    texts: list[tuple[float, float, str, dict[str, Any]]] = [(MARGIN, 6.5, _fitted(entry.name, NAMES)[0], {})]
    texts += [(MARGIN, 14.9 + 8.4 * number, line, {"color": SOFT}) for number, line in enumerate(below)]
    columns = [flow(items) for items in entry.columns]
    lines = max((1 + placed.line for column in columns for placed in column), default=1)
    return _Block(max(LINE * lines, 8.4 * len(texts)) + 5, texts, columns, False)


def _lines(placed: Sequence[Placed]) -> list[str]:
    """The texts of items, line by line."""
    return [" ".join(of.item.text for of in group) for _, group in itertools.groupby(placed, lambda of: of.line)]


def _draw_block(axes: Axes, block: _Block, top: float) -> None:
    """Draws a block whose upper edge is at `top`."""
    if block.rule:
        axes.plot([MARGIN, WIDTH - MARGIN], [top + 1.5] * 2, color=RULE, linewidth=0.5)
    for left, below, text, look in block.texts:
        _write(axes, left, top + below, text, **look)
    for column, words in enumerate(block.columns):
        for placed in words:
            _draw_item(axes, placed, _left(column) + placed.left, top + LINE * placed.line, COLOURS[column])


def _draw_item(axes: Axes, placed: Placed, left: float, top: float, colour: tuple[int, int, int]) -> None:
    """Draws an item on its shade."""
    item = placed.item
    if item.shade:
        axes.add_patch(Rectangle((left, top), placed.width, BOX, facecolor=_mixed(colour, item.shade), linewidth=0))
    _write(axes, left + PAD, top + 6.5, item.text, color=SOFT if item.shade is None else INK)
    ends = [left + PAD, left + placed.width - PAD]
    for asked, below, dashes in ((item.underlined, 7.7, "-"), (item.dotted, 8.8, (0, (1, 1.5)))):
        if asked:
            axes.plot(ends, [top + below] * 2, color=INK, linewidth=0.7, linestyle=dashes, solid_capstyle="butt")


def _draw_head(axes: Axes, column: int, baseline: float, head: str) -> None:
    """Draws the name of a column of words, and the scale of its shades at its right."""
    _write(axes, _left(column) + PAD, baseline, head, fontsize=7.5)
    steps, wide = 20, 2.2
    first = _left(column) + COLUMN - steps * wide - 10
    for step in range(steps):
        face = _mixed(COLOURS[column], round(100 * step / (steps - 1)))
        axes.add_patch(Rectangle((first + step * wide, baseline - 6), wide + 0.1, 7, facecolor=face, linewidth=0))
    _write(axes, first - 3, baseline, "0", color=SOFT, ha="right")
    _write(axes, first + steps * wide + 3, baseline, "1", color=SOFT)


def _left(column: int) -> float:
    """The left edge of a column of words."""
    return MARGIN + NAMES + GAP + column * (COLUMN + GAP)


def _write(axes: Axes, left: float, baseline: float, text: str, **look: Any) -> None:
    """Writes a text."""
    plain: dict[str, Any] = {"fontsize": SIZE, "family": FONT, "va": "baseline"}
    axes.text(left, baseline, text, **(plain | look))


def _mixed(colour: tuple[int, int, int], shade: int) -> tuple[float, ...]:
    """A colour on white, as far as the shade has it."""
    return tuple(1 - STRONGEST * shade / 100 * (1 - part / 255) for part in colour)


def _fitted(text: str, width: float) -> tuple[str, float]:
    """A text that can be drawn and is not wider than a line, and how wide it is."""
    for longest in range(min(40, len(text)), 0, -1):
        short = clean(text, longest)
        if (size := _width(short)) <= width:
            return short, size
    return "", 2 * PAD


def _width(text: str) -> float:
    """Points from the left to the right of a text, with its padding."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(family=FONT, size=SIZE), False)
    return float(width) + 2 * PAD
