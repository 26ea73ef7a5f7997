"""Tables in four formats: whatever a cell holds comes back as text when another program reads the file."""

import csv
import io
import re
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flax_attnat.reporting.export import FORMATS, Cell, Table, to_csv, to_html, to_latex, to_markdown, write_tables

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'quoted' & \"quoted\" &lt; &amp;lt;",
    "<!-- not a comment",
    "--> ]]> </td></tr></table>",
    "\u202eright to left",
    "\u2067isolate",
    "emoji 🎬👩‍👩‍👧 e\u0301 żółć 中文",
    "nul \x00 here",
    "escape \x1b[31m \x9b",
    "half \ud83c a pair",
    "\ufeff=1+1",
    "a | b || c \\| d \\\\| |",
    "ends in \\",
    "**bold** _it_ `code` ~~gone~~ [a](b) ![c](d) $x^2$",
    "& % $ # _ { } ~ ^ \\ < > | ± \" ' ` * [5pt] -- ---",
    "[5pt] first",
    "* first",
    "\\input{/etc/passwd} \\write18{ls} ^^5c",
    "100% & more \\\\ \\hline",
    "line\nline\n\nparagraph\r\nother\rold\ttab\u2028separated\u2029\x85",
    "| --- |\n| --- |",
    "=1+1",
    "  indented",
    "",
    " ",
)
ANY = st.text() | st.text("\\&%$#_{}~^<>|±*[]`-=+@!\n\r\t \"'a0;,\ud800\u202e\x00", max_size=12)
SHOWN_AS_SPACE = "\t\n\r "


def is_hidden(letter):
    """Whether a character cannot be seen, changes the direction, or is half of one; by Unicode's own tables."""
    embedding = unicodedata.bidirectional(letter) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    invisible = unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} and letter not in SHOWN_AS_SPACE
    return embedding or invisible or letter in "\u061c\u200e\u200f\ufeff"


def visible(text):
    """What a text is to be read as."""
    return "".join("\ufffd" if is_hidden(letter) else letter for letter in text)


def one_line(text):
    """The same where a cell has no line breaks."""
    return re.sub(f"[{SHOWN_AS_SPACE}]+", " ", visible(text)).strip()


def one_cell(text, **fields):
    """A table with the text in its title, above its only other column, and in a cell between two more."""
    return Table(text, ("technique", f"{text}."), ((Cell("vanilla"), Cell("1")), (Cell(text, **fields), Cell("2"))))


class Page(HTMLParser):
    """The tags of a page, and the text of each that holds some, with its own tags; all are closed in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.cells = [], [], []
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.stack.append(tag)
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th", "caption"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if {"td", "th", "caption"} & set(self.stack):
            self.cells[-1] += data
        else:
            assert not data.strip() or self.stack in (["p"], ["p", "strong"])

    def unexpected(self, data):
        raise AssertionError(f"no part of a table: {data!r}")

    handle_comment = handle_decl = handle_pi = unknown_decl = unexpected


def hostile(test):
    """A property of any text, tried on the hostile ones first."""
    for text in HOSTILE:
        test = example(text)(test)
    return settings(deadline=None)(given(ANY)(test))


@hostile
def test_html_shows_every_text_as_it_is(text):
    """Whichever parser reads it, there are no tags but the table's, and no attributes but class and scope."""
    page = Page(to_html(one_cell(text, bold=True, mark=text)))
    expected = [visible(text)] if text else []
    expected += ["technique", visible(text) + ".", "vanilla", "1", visible(text) * 2, "2"]
    assert page.cells == expected
    assert {tag for tag, _ in page.tags} <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "sup"}
    assert all(set(attributes) <= {"class", "scope"} for _, attributes in page.tags)


def test_of_all_characters_those_that_cannot_be_seen_are_replaced():
    """And no others."""
    letters = "".join(map(chr, range(sys.maxunicode + 1)))
    (_, cell) = Page(to_html(Table("", ("all",), ((Cell(letters),),)))).cells
    assert cell == visible(letters)


@hostile
def test_csv_comes_back_as_it_was_and_runs_nothing(text):
    """Through csv.reader; an apostrophe stands before what would be a formula, and only there."""
    table = one_cell(text, mark=text)
    (head, first, second) = csv.reader(io.StringIO(to_csv(table), newline=""))
    assert (head[0], first, second[1]) == ("technique", ["vanilla", "1"], "2")
    for read, given_text in ((head[1], f"{text}."), (second[0], text * 2)):
        assert read.removeprefix("'") == visible(given_text).removeprefix("'")
        assert not read.startswith(("=", "@", "\t", "\r", "\n"))
        if read.startswith(("+", "-")):
            assert not re.search(r"[A-Z=@(!|]", read)
        if given_text[:1] not in {*"=+-@\t\r\n＝＋－＠"}:
            assert read == visible(given_text)


@pytest.mark.parametrize(
    "figure",
    [
        *("-", "-0.12 ± 0.03", "-0.12 ± 0.03*", "+1.5", "-1,725", "-0.120 to 0.030", "-0.1 to -0.05", "-inf", "-1e-05"),
        *("-*", "-12.5%", "-12 %", "0.5", "n/a", "1,725", "85.2 ± 0.3†"),
    ],
)
def test_figures_stay_usable_in_a_spreadsheet(figure):
    """No apostrophe, though they begin as formulas do."""
    table = Table("", ("gain",), ((Cell(figure),),))
    assert list(csv.reader(io.StringIO(to_csv(table), newline=""))) == [["gain"], [figure]]


@pytest.mark.parametrize(
    "formula",
    [
        *("=1+1", "+1+1", "-1-1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "+", "--", "-x"),
        *("-0.12 ± 0.03+A1", "-0.1 to A1", "＝1+1", "-1\n=1", "-1\n", "-١"),
    ],
)
def test_formulas_get_an_apostrophe(formula):
    """In a cell, as a column's name, and where text and mark are one only together."""
    tables = [
        Table("", (formula, "b"), ((Cell(formula), Cell(formula[:1], mark=formula[1:])),)),
        Table("", (formula, "b"), ((Cell(formula), Cell("", mark=formula)),)),
    ]
    for table in tables:
        (head, row) = csv.reader(io.StringIO(to_csv(table), newline=""))
        assert (head, row) == ([f"'{formula}", "b"], [f"'{formula}"] * 2)


@hostile
def test_markdown_shows_every_text_as_it_is(text):
    """As another program renders it: the same cells, nothing bold or linked but what is said to be."""
    source = to_markdown(one_cell(text, bold=True, mark=text))
    page = Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))
    expected = ["technique", one_line(f"{text}."), "vanilla", "1", one_line(text) * 2, "2"]
    assert [cell.lstrip("\u2003") for cell in page.cells] == expected
    tags = [tag for tag, _ in page.tags]
    assert set(tags) <= {"p", "table", "thead", "tbody", "tr", "th", "td", "strong", "sup"}
    assert tags.count("strong") == 2 * bool(one_line(text))
    assert tags.count("tr") == 3
    assert len(source.splitlines()) == 4 + 2 * bool(text)


LATEX = {f"\\{sign}": sign for sign in "&%$#_{}"} | {f"{{{sign}}}": sign for sign in "[]*"}
LATEX |= {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textasciigrave{}": "`"}
LATEX |= {r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"$\pm$": "±", "$-$": "-", "-{}": "-"}
TOKENS = re.compile("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))) + r"|[^&%$#_{}~^\\<>|±*`\[\]]")


def read_latex(source):
    """What LaTeX sets of a text; a special character that is not escaped fails."""
    at, read = 0, ""
    while at < len(source):
        token = TOKENS.match(source, at)
        assert token, source[at:]
        read += LATEX.get(token[0], token[0])
        at = token.end()
    return read


@hostile
def test_latex_sets_every_text_as_it_is(text):
    """In the caption, the head and a cell; no row more, and no brace left open."""
    source = to_latex(one_cell(text, bold=True, mark=text))
    lines = source.removesuffix("\n").split("\n")
    assert len(lines) == 12 + bool(text)
    if text:
        caption = lines[3].removeprefix(r"  \caption{").removesuffix("}")
        assert read_latex(caption.replace(r"\quad ", "")) == one_line(text)
    head, rows = lines.index(r"    \toprule") + 1, lines.index(r"    \midrule") + 1
    name = lines[head].removeprefix("    technique & ").removesuffix(r" \\").replace(r"\quad ", "")
    assert read_latex(name) == one_line(f"{text}.")
    assert lines[rows] == r"    vanilla & 1 \\"
    cell = lines[rows + 1].removeprefix("    ").removesuffix(r" & 2 \\").replace(r"\quad ", "")
    inner = re.fullmatch(r"\\textbf\{(.*)\}\\textsuperscript\{(.*)\}", cell)
    assert [read_latex(part) for part in inner.groups()] == [one_line(text)] * 2 if one_line(text) else not cell
    assert balanced(re.sub(r"\\[{}]", "", source))


def balanced(source):
    """Whether every brace is closed, and none before it is opened."""
    depth = 0
    for sign in source:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0


def test_a_table_in_each_format():
    """The best in bold with its mark, figures to the right, a minus that is one, indented rows."""
    rows = (
        (Cell("vanilla"), Cell("85.2 ± 0.3"), Cell("-")),
        (Cell("  attention_at"), Cell("86.0 ± 0.2", bold=True, mark="*"), Cell("-0.5")),
    )
    table = Table("SST & more", ("technique", "F1", "gain"), rows)
    assert to_csv(table) == "technique,F1,gain\r\nvanilla,85.2 ± 0.3,-\r\n  attention_at,86.0 ± 0.2*,-0.5\r\n"
    assert to_markdown(table).splitlines() == [
        "**SST &amp; more**",
        "",
        "| technique | F1 | gain |",
        "| --- | ---: | ---: |",
        "| vanilla | 85.2 ± 0.3 | - |",
        r"| &emsp;attention\_at | **86.0 ± 0.2**<sup>\*</sup> | -0.5 |",
    ]
    assert to_latex(table).splitlines()[3:-3] == [
        r"  \caption{SST \& more}",
        r"  \begin{tabular}{lrr}",
        r"    \toprule",
        r"    technique & F1 & gain \\",
        r"    \midrule",
        r"    vanilla & 85.2 $\pm$ 0.3 & - \\",
        r"    \quad attention\_at & \textbf{86.0 $\pm$ 0.2}\textsuperscript{{*}} & $-$0.5 \\",
    ]
    assert to_html(table).splitlines()[1:-2] == [
        "<caption>SST &amp; more</caption>",
        "<thead>",
        '<tr><th scope="col">technique</th><th scope="col" class="figure">F1</th>'
        '<th scope="col" class="figure">gain</th></tr>',
        "</thead>",
        "<tbody>",
        '<tr><th scope="row">vanilla</th><td class="figure">85.2 ± 0.3</td><td class="figure">-</td></tr>',
        '<tr><th scope="row">  attention_at</th><td class="figure"><b>86.0 ± 0.2</b><sup>*</sup></td>'
        '<td class="figure">-0.5</td></tr>',
    ]


@pytest.mark.parametrize("write", FORMATS.values())
def test_a_row_has_one_cell_per_column(write):
    with pytest.raises(ValueError, match="table 'SST', row 2 has 1 cells for 2 columns: give it one for each"):
        write(Table("SST", ("a", "b"), ((Cell("1"), Cell("2")), (Cell("3"),))))
    with pytest.raises(ValueError, match="table 'SST' has no columns"):
        write(Table("SST", (), ()))


def test_a_table_without_rows_is_its_head():
    table = Table("", ("a", "b"), ())
    assert to_csv(table) == "a,b\r\n"
    assert to_markdown(table) == "| a | b |\n| --- | --- |\n"
    assert to_latex(table).count(r"\\") == 1
    assert "<td" not in to_html(table)


def test_files_are_written_whole_under_their_names_alone(tmp_path):
    """Into a folder that was not there; a second time over the first; nothing else is left beside them."""
    old, new = one_cell("old"), one_cell("".join(HOSTILE))
    for table in (old, new):
        paths = write_tables(tmp_path / "report" / "tables", "sst_main-1", table)
        assert [path.name for path in paths] == [f"sst_main-1.{ending}" for ending in ("csv", "md", "tex", "html")]
        assert [path.read_bytes().decode() for path in paths] == [write(table) for write in FORMATS.values()]
        assert {*(tmp_path / "report" / "tables").iterdir()} == {*map(Path, paths)}


def test_whoever_reads_a_table_while_it_is_written_reads_a_whole_one(tmp_path):
    """A file that is open when the table is written anew is the old one to its end."""
    for path in write_tables(tmp_path, "main", one_cell("old")):
        with path.open() as reader:
            write_tables(tmp_path, "main", one_cell("new"))
            assert "old" in reader.read()
        assert "new" in path.read_text()
        write_tables(tmp_path, "main", one_cell("old"))


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    """A folder is in the way of the first file; a row is too short."""
    (tmp_path / "main.csv").mkdir()
    with pytest.raises(OSError, match=r"main\.csv"):
        write_tables(tmp_path, "main", one_cell("text"))
    with pytest.raises(ValueError, match="row 1 has 1 cells"):
        write_tables(tmp_path, "other", Table("", ("a", "b"), ((Cell("1"),),)))
    assert [path.name for path in tmp_path.iterdir()] == ["main.csv"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a.b", "a b", "a\n", "é", "a\x00", "C:a", "=1"])
def test_names_that_are_not_safe_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"is no name for the files of a table: use letters, digits, - and _ only"):
        write_tables(tmp_path, name, one_cell("text"))
    assert not list(tmp_path.iterdir())
