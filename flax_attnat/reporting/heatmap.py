"""Heat maps: the same sentences under several techniques, attention beside gradient importance, as one HTML file."""

from collections.abc import Sequence
from typing import NamedTuple

import jinja2
import numpy as np


class Column(NamedTuple):
    """What one technique says of one sentence.

    Attributes:
      title: the technique.
      prediction: name of the predicted class, with its probability.
      right: whether it is the label.
      attention: `[T]` weights.
      importance: `[T]` gradient importance.
    """

    title: str
    prediction: str
    right: bool
    attention: Sequence[float]
    importance: Sequence[float]


class Sentence(NamedTuple):
    """One sentence of a heat map.

    Attributes:
      words: its T words.
      label: name of its class.
      rationale: places of the words that decide the label; they are underlined.
      columns: one per technique.
    """

    words: Sequence[str]
    label: str
    rationale: Sequence[int]
    columns: Sequence[Column]


def render(title: str, note: str, sentences: Sequence[Sentence]) -> str:
    """A self-contained page: no script, no network, every text escaped; readable in light and dark.

    Args:
      title: heading of the page.
      note: a sentence under it: what was trained, on what, whether the data are synthetic or partial.
      sentences: what to show, with equally many columns each.

    Returns:
      HTML. A word's shade is its weight relative to the sentence's largest; its title attribute has the number.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flax_attnat.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["shades"] = shades
    return environment.get_template("heatmap.html").render(title=title, note=note, sentences=sentences)


def shades(weights: Sequence[float]) -> list[tuple[str, float]]:
    """For each weight `[T]` its text, and its size relative to the largest, in [0, 1]; not finite counts as 0."""
    values = np.nan_to_num(np.asarray(weights, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = values.max(initial=0.0)
    return [(f"{value:.3f}", float(value / largest) if largest > 0 else 0.0) for value in values]
