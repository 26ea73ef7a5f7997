"""The page of a report: one HTML file that needs no network, and no script to be read; every text is escaped."""

import base64
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from flax_attnat.reporting import heatmap
from flax_attnat.reporting.examples import Examples
from flax_attnat.reporting.export import Table, to_html, visible
from flax_attnat.reporting.record import Record

TYPES = {"svg": "image/svg+xml", "png": "image/png"}


class Titled(NamedTuple):
    """A table and its name.

    Attributes:
      name: of its files.
      table: whose title is its caption.
    """

    name: str
    table: Table


class Picture(NamedTuple):
    """A figure.

    Attributes:
      caption: one sentence.
      alternative: what it shows, in words, for those who do not see it.
      content: the file.
      kind: "svg" or "png".
    """

    caption: str
    alternative: str
    content: bytes
    kind: str


class Heat(NamedTuple):
    """The heat maps of a workdir.

    Attributes:
      title: "" where there is one workdir.
      found: texts and what techniques say of them.
    """

    title: str
    found: Examples


class Page(NamedTuple):
    """What a page shows, in its order.

    Attributes:
      title: of the page.
      summary: sentences.
      notes: sentences about what was left out.
      tables: with their names.
      pictures: curves.
      heat: heat maps by workdir.
      records: how the workdirs came about.
    """

    title: str
    summary: Sequence[str]
    notes: Sequence[str]
    tables: Sequence[Titled]
    pictures: Sequence[Picture]
    heat: Sequence[Heat]
    records: Sequence[Record]


def render_page(page: Page) -> str:
    """The HTML of a page, under a policy that allows its own style, its own script and nothing else.

    Args:
      page: of any texts.

    Returns:
      One document. Long texts fold; what goes beyond `heatmap.BUDGET` is left out of it, and counted.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flax_attnat.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["visible"] = visible
    script = environment.get_template("filter.js").render()
    heat = [each for each in page.heat if each.found.sentences]
    texts = [sentence for each in heat for sentence in each.found.sentences]
    budget = heatmap.BUDGET // max(len(heat), 1)
    return environment.get_template("page.html").render(
        page=page,
        script=Markup(script),  # ours, and named by its hash in the policy
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tables=[(each.name, each.table.title, _labelled(each)) for each in page.tables],
        sources=[f"data:{TYPES[of.kind]};base64,{base64.b64encode(of.content).decode()}" for of in page.pictures],
        heat=[(each.title, each.found.note, heatmap.prepare(each.found.sentences, budget)) for each in heat],
        labels=sorted({sentence.label for sentence in texts}),
        techniques=list(dict.fromkeys(column.title for sentence in texts for column in sentence.columns)),
    )


def _labelled(titled: Titled) -> Markup:
    """A table as HTML, named by its caption on the page."""
    text = to_html(titled.table._replace(title=""))
    return Markup(text.replace("<table>", f'<table aria-labelledby="table-{titled.name}">', 1))
