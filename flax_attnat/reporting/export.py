"""Tables as CSV, Markdown, LaTeX and HTML; whatever text a cell holds, it stays text in all of them.

Control characters (but tab and line breaks), signs that reverse the direction of text, byte order marks and half
surrogates would hide what a text says, or break a file: each becomes a visible U+FFFD.
"""

import csv
import html
import io
import re
from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from flax_attnat.training.workdir import write_atomically

HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
SPACES = re.compile(r"[ \t\r\n]+")

# What the tables of this package hold: "1,725", "85.2 ± 0.3", "-0.1 to 0.2", "1e-05", "12%"; or that there is nothing.
NUMBER = r"(?:[+-]?(?:[0-9][0-9,]*(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|inf)|n/a)"
FIGURE = re.compile(rf"(?:{NUMBER}(?: (?:±|to) {NUMBER})* ?%?|-)")
MARKED_FIGURE = re.compile(rf"{FIGURE.pattern}[*†‡]*")

FIGURES = ' class="figure"'

FORMULA = tuple("=+-@\t\r\n＝＋－＠")
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|~$^"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})

# Brackets and stars would be arguments of the "\\" or the rule before them.
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {sign: f"{{{sign}}}" for sign in "[]*"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
)
MINUS = re.compile(r"(?<![\w-])-(?=[0-9])")
DASHES = re.compile(r"-(?=-)")

NAME = re.compile(r"[A-Za-z0-9_-]+")


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
      text: what it says; two spaces in front indent it by one step.
      bold: whether it stands out, as the best of its kind.
      mark: of significance, such as "*"; raised behind the text.
    """

    text: str
    bold: bool = False
    mark: str = ""


class Table(NamedTuple):
    """A table of text.

    Attributes:
      title: its caption; "" for none.
      columns: their names.
      rows: of one cell per column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def to_csv(table: Table) -> str:
    """A table as comma-separated values: one header row, marks behind the text, no title, nothing in bold.

    A cell that a spreadsheet would run as a formula (it begins with = + - @, their full-width forms, a tab or a line
    break) gets an apostrophe in front. Figures ("-0.12 ± 0.03*", "-0.1 to 0.2", "-") hold no formula and stay as
    they are.

    Args:
      table: of any text.

    Returns:
      Lines that end in CR LF, as RFC 4180 has it.

    Raises:
      ValueError: a row has not one cell per column.

    >>> to_csv(Table("", ("technique", "gain"), ((Cell("=1+1"), Cell("-0.12 ± 0.03", True, "*")),)))
    "technique,gain\\r\\n'=1+1,-0.12 ± 0.03*\\r\\n"
    """
    _check(table)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([_csv(name) for name in table.columns])
    writer.writerows([_csv(cell.text + cell.mark) for cell in row] for row in table.rows)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """A table in GitHub's Markdown: the title in bold above it, figures to the right, line breaks as spaces.

    Args:
      table: of any text.

    Raises:
      ValueError: a row has not one cell per column.

    >>> print(to_markdown(Table("", ("technique", "F1"), ((Cell("a|b"), Cell("85.2", True, "*")),))), end="")
    | technique | F1 |
    | --- | ---: |
    | a\\|b | **85.2**<sup>\\*</sup> |
    """
    _check(table)
    title = [f"{_markdown(Cell(table.title, bold=True))}\n"] if table.title else []
    rule = ["---:" if right else "---" for right in _right(table)]
    rows = [[_markdown(Cell(name)) for name in table.columns], rule]
    rows += [[_markdown(cell) for cell in row] for row in table.rows]
    return "".join(f"{line}\n" for line in [*title, *(f"| {' | '.join(row)} |" for row in rows)])


def to_latex(table: Table) -> str:
    """A table for LaTeX with rules of booktabs: the title as caption, figures to the right, line breaks as spaces.

    Letters beyond ASCII are left as they are; those that pdfLaTeX does not know need LuaLaTeX or XeLaTeX.

    Args:
      table: of any text.

    Raises:
      ValueError: a row has not one cell per column.

    >>> print(to_latex(Table("", ("a_b", "F1"), ((Cell("a & b"), Cell("85.2 ± 0.3", True, "*")),))), end="")
    % \\usepackage{booktabs}
    \\begin{table}
      \\centering
      \\begin{tabular}{lr}
        \\toprule
        a\\_b & F1 \\\\
        \\midrule
        a \\& b & \\textbf{85.2 $\\pm$ 0.3}\\textsuperscript{{*}} \\\\
        \\bottomrule
      \\end{tabular}
    \\end{table}
    """
    _check(table)
    caption = [f"  \\caption{{{_latex(Cell(table.title))}}}"] if table.title else []
    rows = [" & ".join(map(_latex, row)) + r" \\" for row in table.rows]
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", r"  \centering", *caption]
    lines += [f"  \\begin{{tabular}}{{{''.join('r' if right else 'l' for right in _right(table))}}}"]
    lines += [r"    \toprule", "    " + " & ".join(_latex(Cell(name)) for name in table.columns) + r" \\"]
    lines += [r"    \midrule", *(f"    {row}" for row in rows), r"    \bottomrule"]
    return "".join(f"{line}\n" for line in [*lines, r"  \end{tabular}", r"\end{table}"])


def to_html(table: Table) -> str:
    """A table as an HTML fragment without style; figures, and columns of nothing else, have the class "figure".

    Args:
      table: of any text.

    Raises:
      ValueError: a row has not one cell per column.

    >>> print(to_html(Table("", ("a", "F1"), ((Cell("<b>"), Cell("85.2", True, "*")),))), end="")
    <table>
    <thead>
    <tr><th scope="col">a</th><th scope="col" class="figure">F1</th></tr>
    </thead>
    <tbody>
    <tr><th scope="row">&lt;b&gt;</th><td class="figure"><b>85.2</b><sup>*</sup></td></tr>
    </tbody>
    </table>
    """
    _check(table)
    caption = [f"<caption>{_escaped(table.title)}</caption>"] if table.title else []
    head = "".join(
        f'<th scope="col"{FIGURES if right else ""}>{_escaped(name)}</th>'
        for name, right in zip(table.columns, _right(table), strict=True)
    )
    # A technique names its row, behind a workdir or data set; else the first column does.
    name = table.columns.index("technique") if "technique" in table.columns else 0
    rows = [f"<tr>{''.join(_html(cell, place == name) for place, cell in enumerate(row))}</tr>" for row in table.rows]
    lines = ["<table>", *caption, "<thead>", f"<tr>{head}</tr>", "</thead>", "<tbody>", *rows, "</tbody>", "</table>"]
    return "".join(f"{line}\n" for line in lines)


FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex, "html": to_html}


def write_tables(folder: epath.PathLike, name: str, table: Table) -> list[epath.Path]:
    """Writes a table as `<name>.csv`, `.md`, `.tex` and `.html`, each whole or not at all.

    Args:
      folder: made if it is not there.
      name: of the files: letters of ASCII, digits, - and _.
      table: of any text.

    Returns:
      The four files, in this order.

    Raises:
      ValueError: the name is not safe for a file, or a row has not one cell per column; nothing is written.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for the files of a table: use letters, digits, - and _ only.")
    texts = {epath.Path(folder) / f"{name}.{ending}": write(table) for ending, write in FORMATS.items()}
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)


def _check(table: Table) -> None:
    """Makes sure that every row has one cell per column."""
    if not table.columns:
        raise ValueError(f"table {table.title!r} has no columns: give it one.")
    for number, row in enumerate(table.rows, 1):
        if len(row) != len(table.columns):
            raise ValueError(
                f"table {table.title!r}, row {number} has {len(row)} cells for {len(table.columns)} columns:"
                " give it one for each."
            )


def _right(table: Table) -> list[bool]:
    """Whether a column holds figures only."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [bool(cells) and all(FIGURE.fullmatch(cell.text) for cell in cells) for cells in columns]


def visible(text: str) -> str:
    """A text whose characters can all be seen."""
    return HIDDEN.sub("\ufffd", text)


def _line(text: str) -> tuple[int, str]:
    """By how many steps a text is indented, and the text as one line."""
    text = visible(text)
    return (len(text) - len(text.lstrip(" "))) // 2, SPACES.sub(" ", text).strip()


def _csv(text: str) -> str:
    """A text that no spreadsheet runs."""
    text = visible(text)
    return f"'{text}" if text.startswith(FORMULA) and not MARKED_FIGURE.fullmatch(text) else text


def _markdown(cell: Cell) -> str:
    """A cell in Markdown."""
    (indent, text), (_, mark) = _line(cell.text), _line(cell.mark)
    text, mark = text.translate(MARKDOWN), mark.translate(MARKDOWN)
    text = f"**{text}**" if cell.bold and text else text
    return "&emsp;" * indent + text + (f"<sup>{mark}</sup>" if mark else "")


def _latex(cell: Cell) -> str:
    """A cell in LaTeX, where a dash before a number is a minus, and two dashes are not one."""
    (indent, text), (_, mark) = _line(cell.text), _line(cell.mark)
    text, mark = (DASHES.sub("-{}", MINUS.sub("$-$", each.translate(LATEX))) for each in (text, mark))
    text = rf"\textbf{{{text}}}" if cell.bold and text else text
    return r"\quad " * indent + text + (rf"\textsuperscript{{{mark}}}" if mark else "")


def _html(cell: Cell, header: bool) -> str:
    """A cell in HTML, of a row or as its header."""
    text, mark = _escaped(cell.text), _escaped(cell.mark)
    text = f"<b>{text}</b>" if cell.bold and text else text
    figure = FIGURES if FIGURE.fullmatch(cell.text) else ""
    raised = f"<sup>{mark}</sup>" if mark else ""
    return f'<th scope="row">{text}{raised}</th>' if header else f"<td{figure}>{text}{raised}</td>"


def _escaped(text: str) -> str:
    """A text in HTML."""
    return html.escape(visible(text))
