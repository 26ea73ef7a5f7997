"""What the figures share: how they look, an axis that is logarithmic but for its zero, and the files they become."""

import functools
import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import matplotlib.style
from etils import epath
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.perturbation.attention import READINGS
from flax_attnat.training.workdir import write_atomically

Dashes = Literal["-"] | tuple[int, tuple[float, ...]]

# What has a look of its own: `attention_iat` stands for its first reading too.
KNOWN = (*TECHNIQUES, *CONTROLS, *(f"attention_iat ({reading})" for reading in READINGS[1:]))

# In the order of KNOWN: vanilla is black in every figure. Okabe and Ito's colours, less the yellow, which is too pale
# for a line on white; grey serves in its place. The further readings have darker ones.
PALETTE = (
    *("#000000", "#009E73", "#0072B2", "#D55E00", "#E69F00", "#CC79A7", "#7F7F7F", "#56B4E9"),
    *("#332288", "#8C510A", "#999933", "#882255"),
)
MARKERS = ("X", "^", "o", "s", "D", "v", "P", "*", "<", "p", ">", "h")
SOLID: Dashes = "-"
DASHED: Dashes = (0, (3, 1.5))
DASHES: tuple[Dashes, ...] = (
    *((0, (5, 1.5)), (0, (1, 1)), SOLID, (0, (7, 1.5)), (0, (4, 1, 1, 1))),
    *((0, (2, 1)), (0, (1, 2.5)), (0, (6, 1, 1, 1, 1, 1))),
    *((0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)), (0, (3, 3)), (0, (8, 1.5, 2, 1.5))),
)

WIDTH = 3.5  # inches: one column of a paper
FONT = "DejaVu Sans"  # comes with matplotlib
LONGEST = 40
MOST_TICKS = 9
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 6.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "flax_attnat",
}


class Look(NamedTuple):
    """What tells a line from the others, in colour and in grey.

    Attributes:
      colour: as #RRGGBB.
      marker: a name of matplotlib's.
      dashes: "-" or offset and pattern.
    """

    colour: str
    marker: str
    dashes: Dashes


def style() -> AbstractContextManager[None]:
    """The settings of every figure, whatever the user's own are; they hold while a figure is made or saved."""
    return matplotlib.style.context(["default", STYLE])


def looks(names: Sequence[str]) -> list[Look]:
    """One look per name, each its own; what is known, named first in a name, keeps its own in every figure.

    >>> black, blue = looks(["vanilla", "attention_at 5"])
    >>> black.colour, blue.colour, looks(["attention_at 1"])[0] == blue
    ('#000000', '#0072B2', True)
    >>> [look.colour for look in looks(["attention_iat (span)", "attention_iat (released)"])]
    ['#D55E00', '#882255']
    """
    first = [_known(name) for name in names]
    own = {first.index(name): place for place, name in enumerate(KNOWN) if name in first}
    free = (place for place in itertools.count() if place not in own.values())
    places = [own[number] if number in own else next(free) for number in range(len(names))]
    # The next round has the colours again, with other markers and dashes.
    turns = [(place, place + place // len(KNOWN)) for place in places]
    return [
        Look(PALETTE[place % len(PALETTE)], MARKERS[turn % len(MARKERS)], DASHES[turn % len(DASHES)])
        for place, turn in turns
    ]


def _known(name: str) -> str:
    """The longest of KNOWN that a name begins with, or nothing."""
    return max((known for known in KNOWN if f"{name} ".startswith(f"{known} ")), key=len, default="")


def clean(text: str, longest: int = LONGEST) -> str:
    """A text that can be drawn: what is not printable, or not in the font, is replaced; a long one is cut.

    >>> clean("word_at\\n\\u202e$x$")
    'word_at��$x$'
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(letter if letter.isprintable() and ord(letter) in _letters() else "\ufffd" for letter in cut)


@functools.cache
def _letters() -> frozenset[int]:
    """The characters of the font."""
    path = font_manager.findfont(font_manager.FontProperties(family=FONT))
    return frozenset(font_manager.get_font(path).get_charmap())


def handle(look: Look, dashes: Dashes, *, bare: bool = False) -> Line2D:
    """A line for the legend, with its marker unless it is bare."""
    return Line2D([], [], color=look.colour, linestyle=dashes, marker="none" if bare else look.marker)


def canvas(title: str, handles: Sequence[Line2D], names: Sequence[str], note: str) -> tuple[Figure, Axes]:
    """A figure of one column with its heading, and the legend below, under a note; as high as the legend needs."""
    labels = [clean(name) for name in names]
    across = 2 if max(map(len, labels)) <= 24 else 1
    heading, remark = textwrap.fill(clean(title, 200), 46), textwrap.fill(note, 72)
    texts = heading.count("\n") + remark.count("\n")
    drawn = Figure(figsize=(WIDTH, 2.75 + 0.15 * (math.ceil(len(labels) / across) + texts)), layout="constrained")
    FigureCanvasAgg(drawn)
    legend = drawn.legend(
        handles,
        [str(place) for place in range(len(labels))],
        title=remark,
        loc="outside lower center",
        ncols=across,
        frameon=False,
        alignment="left",
        handlelength=3.2,
    )
    # Not given as labels: matplotlib hides those that begin with an underscore.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    axes = drawn.add_subplot()
    axes.set_title(heading)
    return drawn, axes


def scale_x(axes: Axes, values: Sequence[float]) -> float:
    """Makes the x axis logarithmic, with ticks in plain numbers, and room for 0 at its left where that is a value.

    Returns:
      Where 0 is.
    """
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    unit = max((high / low) ** 0.06, 1.1)
    zero = low / unit**2.5
    ticks = _ticks(sorted(set(positive))) if any(value > 0 for value in values) else []
    labels = [f"{tick:g}" for tick in ticks]
    left = low / unit
    if 0 in values:
        ticks, labels, left = [zero, *ticks], ["0", *labels], zero / unit
        _break_axis(axes, zero * unit**1.1, zero * unit**1.4)
    axes.set_xscale("log")
    axes.set_xlim(left, high * unit)
    axes.set_xticks(ticks, labels=labels)
    axes.xaxis.set_minor_locator(NullLocator())
    return zero


def _break_axis(axes: Axes, left: float, right: float) -> None:
    """Two strokes across the x axis, and a gap between them."""
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 5}
    axes.plot([left, right], [0, 0], color="white", linewidth=2.5, **place)
    stroke = [(-1, -2), (1, 2)]
    axes.plot([left, right], [0, 0], color="black", linestyle="none", marker=stroke, markersize=6, **place)


def _ticks(values: Sequence[float]) -> list[float]:
    """Ticks from ascending values: themselves where there is room for their labels, else round numbers.

    >>> _ticks([0.1, 0.5, 1, 2, 5, 10, 15, 30])
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    """
    places = [math.log10(value) for value in values]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    if len(values) <= MOST_TICKS and all(gap * MOST_TICKS >= places[-1] - places[0] for gap in gaps):
        return list(values)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(places[0]), math.floor(places[-1]) + 1)
        rounded = [float(f"{step}e{power}") for power in powers for step in steps]
        ticks = [tick for tick in rounded if values[0] <= tick <= values[-1]]
        if 2 <= len(ticks) <= MOST_TICKS:
            return ticks
    return [values[0], values[-1]]


def shift(axes: Axes, place: int, count: int) -> float:
    """A factor that puts points of the same x beside each other, in the middle a tenth of the axis at most."""
    left, right = axes.get_xlim()
    return float((right / left) ** (min(0.011, 0.1 / count) * (place - (count - 1) / 2)))


def draw_points(
    axes: Axes, look: Look, points: Sequence[tuple[float, float, float | None]], zero: float, factor: float = 1.0
) -> None:
    """Draws x, mean and sd: a line with its band; a point alone, such as that at 0, with a bar in its place."""
    plain: dict[str, Any] = {"color": look.colour, "marker": look.marker}
    for part in ([point for point in points if point[0] == 0], [point for point in points if point[0] > 0]):
        x, mean, sd = zip(*part, strict=True) if part else ((), (), ())
        if len(x) == 1:
            axes.errorbar((x[0] or zero) * factor, mean[0], yerr=sd[0], capsize=2, **plain)
        elif x:
            axes.plot(x, mean, linestyle=look.dashes, **plain)
            spread = [math.nan if value is None else value for value in sd]
            low = [value - by for value, by in zip(mean, spread, strict=True)]
            high = [value + by for value, by in zip(mean, spread, strict=True)]
            axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)


def draw_level(axes: Axes, look: Look, mean: float, sd: float | None) -> None:
    """Draws a horizontal line, with its band where it has one."""
    axes.axhline(mean, color=look.colour, linestyle=look.dashes)
    if sd is not None:
        axes.axhspan(mean - sd, mean + sd, color=look.colour, alpha=0.12, linewidth=0)


def keep_between(axes: Axes, low: float, high: float) -> None:
    """Ends the y axis a little beyond values that cannot be passed, where bands of what was drawn would."""
    bottom, top = axes.get_ylim()
    room = 0.03 * (min(top, high) - max(bottom, low))
    axes.set_ylim(max(bottom, low - room), min(top, high + room))


def save(figure: Figure, folder: epath.PathLike, name: str) -> list[epath.Path]:
    """Writes a figure as PNG (200 dots an inch) and SVG (its text as text); the same figure gives the same bytes.

    Args:
      figure: from `draw_epsilon` or `draw_robustness`.
      folder: is made where it is not there.
      name: of the files, without their ending: letters, digits, "_", "-" and ".".

    Returns:
      The files: PNG, SVG.

    Raises:
      ValueError: the name could lead out of the folder.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(f'{name!r} cannot be the name of a file here: letters, digits, "_", "-" and "." can.')
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    # Neither the day nor the version of matplotlib, which would change the bytes.
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
        paths.append(folder / f"{name}.{kind}")
        write_atomically(paths[-1], buffer.getvalue())
    return paths
