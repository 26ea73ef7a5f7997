"""The heat maps: hostile texts stay texts, nothing is fetched or run, shades are relative to the largest weight."""

import itertools
import re
from html.parser import HTMLParser

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from flax_attnat.reporting.flow import COLUMN, Item, flow
from flax_attnat.reporting.heatmap import (
    FOLD,
    FOLD_FIGURE,
    LONGEST,
    Column,
    Sentence,
    draw_heat_map,
    prepare,
    render,
    shades,
)
from flax_attnat.reporting.plot import save

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'quoted' & \"quoted\" &lt; &amp;lt;",
    "<!-- not a comment",
    "--> ]]> </i></u></p></style>",
    "\u202eright to left",
    "\u2067isolate",
    "שלום",
    "emoji 🎬👩‍👩‍👧 e\u0301 中文",
    "nul \x00 here",
    "half \ud800",
    "{{ 7 * 7 }} {% raw %}",
    "$x^{2$ $",
    "https://example.com/",
    "",
)
SEEN = tuple(re.sub("[\u202e\u2067\x00\ud800]", "\ufffd", text) for text in HOSTILE)
NAN = float("nan")
VOID = {"meta"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section", "div", "span", "strong"),
    *("b", "em", "i", "u", "details", "summary"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "title"),
    *("data-label", "data-technique", "data-first", "data-right"),
}


class Page(HTMLParser):
    """Tags in order, the text of each kind, and the words in rows; a tag that is not closed in order fails."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.comments, self.stack, self.rows, self.text = [], [], [], [], {}
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "p" and re.fullmatch("weights (attention|importance)", attributes.get("class", "")):
            self.rows.append([])
        self.text.setdefault(tag, []).append("")
        if tag in "iu" and self.rows:
            self.rows[-1].append([tag, attributes, ""])

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.text[self.stack[-1]][-1] += data
            if self.stack[-1] in "iu" and self.rows:
                self.rows[-1][-1][2] += data

    def handle_comment(self, data):
        self.comments.append(data)

    def of_sentences(self):
        """The rows behind the two of the legend."""
        return self.rows[2:]


def column(attention, importance, title="vanilla", right=True, radius=""):
    return Column(title, "positive 0.75", right, attention, importance, radius)


def long_sentence(count, techniques=1, word="word"):
    weights = (np.arange(count) / count).tolist()
    return Sentence([f"{word}{n}" for n in range(count)], "positive", (), [column(weights, weights)] * techniques)


def test_hostile_texts_appear_as_themselves_and_as_nothing_else():
    """Everything comes back from an HTML parser as text; what hides or reverses text is replaced by U+FFFD."""
    weights = [1 / len(HOSTILE)] * len(HOSTILE)
    for hostile, seen in zip(HOSTILE, SEEN, strict=True):
        columns = [Column(hostile, hostile, False, weights, weights, hostile)]
        page = Page(render(hostile, hostile, [Sentence(HOSTILE, hostile, (), columns, (), HOSTILE)]))
        assert {tag for tag, _ in page.tags} <= ALLOWED and not page.comments
        assert set().union(*(attributes for _, attributes in page.tags)) <= ATTRIBUTES
        assert [[text for _, _, text in row] for row in page.of_sentences()] == [list(SEEN)] * 2
        assert page.text["i"].count(SEEN[0]) == 3, "the query has it too"
        assert page.text["title"] == page.text["h1"] == [seen] and page.text["p"][0] == seen
        assert page.text["h2"] == [f"1. Label: {seen}" if seen else "Text 1"]
        assert page.text["h3"] == [seen] and page.text["span"][0] == f"{seen}, "
        assert not seen or page.text["span"][1] == f"certified radius {seen}"


def test_a_word_of_ten_thousand_characters_is_cut():
    page = Page(render("", "", [Sentence(["x" * 10_000], "", (), [column([1.0], [1.0])])]))
    (((_, _, text),), _) = page.of_sentences()
    assert text == "x" * (LONGEST - 1) + "…"


def test_nothing_is_fetched_or_run():
    """A Content-Security-Policy forbids everything but the inline style, and the page itself asks for nothing."""
    text = render("Title", "Note.", [Sentence(["a", "b"], "positive", [1], [column([0.5, 0.5], [1.0, 0.0])])])
    policy = [attributes["content"] for _, attributes in Page(text).tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"https?:|//|url\(|@import|<script|javascript:|\son\w+\s*=", text, re.IGNORECASE)


def test_words_are_isolated_in_direction():
    """Hebrew in one word may not reorder the words after it."""
    text = render("Title", "Note.", [])
    assert re.search(r"\.weights i, \.sentence \.weights u \{[^}]*unicode-bidi: isolate", text)


def test_shades_are_relative_to_the_largest_weight():
    assert shades([0.1, 0.4, 0.0]) == [("0.100", 25), ("0.400", 100), ("0.000", 0)]
    assert shades([NAN, 0.2, float("inf"), -0.1]) == [("NaN", 0), ("0.200", 100), ("NaN", 0), ("-0.100", 0)]
    assert shades([0.0, 0.0]) == [("0.000", 0)] * 2
    assert shades([NAN]) == [("NaN", 0)] and shades([]) == []


def test_the_page_shows_weights_rationales_and_unknown_words():
    """Each word's shade and number, under attention and importance; underlined are the words of the rationale alone."""
    columns = [column([0.2, 0.8, 0.0], [NAN] * 3), column([NAN, 0.0, 0.0], [0.5, 0.25, 0.25], "at", False, "0.31")]
    sentence = Sentence(["not", "good", "film"], "negative", (0, 1), columns, (True, False, True))
    page = Page(render("Title", "Note.", [sentence]))
    rows = page.of_sentences()
    assert [[tag for tag, _, _ in row] for row in rows] == [["u", "u", "i"]] * 4
    classes = [[attributes.get("class") for _, attributes, _ in row] for row in rows]
    assert classes[0] == ["s25", "s100 n", None] and classes[3] == ["s100", "s50 n", "s50"]
    assert classes[1] == classes[2] == [None, "s0 n", None]
    assert [attributes["title"] for _, attributes, _ in rows[0]] == ["0.200", "0.800", "0.000"]
    assert page.text["em"] == ["not a number", "1 not a number"]
    assert page.text["strong"] == ["wrong"] and page.text["span"][-1] == "certified radius 0.31"
    assert page.text["b"][2:] == ["attention", "importance"] * 2
    assert re.findall(r"\.s(\d+)\{--w:([\d.]+)\}", "".join(page.text["style"]))[24] == ("25", "0.25")


def test_a_page_explains_what_it_shows_and_nothing_else():
    plain = render("", "", [Sentence(["a"], "", (), [column([1.0], [1.0], right=None)])])
    assert "decides the label" not in plain and "vocabulary" not in plain and "wrong" not in Page(plain).text["p"]
    marked = render("", "", [Sentence(["a"], "", (0,), [column([1.0], [1.0])], (False,))])
    assert "decides the label" in marked and "not in the vocabulary" in marked


def test_long_texts_are_folded():
    page = Page(render("", "", [long_sentence(FOLD), long_sentence(1000)]))
    sizes = [len(row) for row in page.of_sentences()]
    assert sizes == [FOLD, FOLD, FOLD, FOLD, 1000 - FOLD, 1000 - FOLD]
    assert page.text["summary"] == ["… +940 tokens"] and "not in this page" not in str(page.text)
    texts = [text for _, _, text in page.of_sentences()[2] + page.of_sentences()[4]]
    assert texts == [f"word{n}" for n in range(1000)]


def test_the_budget_is_of_all_sentences_together():
    """Words behind the fold are left out when it is spent, and counted; more techniques spend it sooner."""
    sentences = [long_sentence(100)] * 3
    for techniques in (1, 4):
        sentences = [long_sentence(100, techniques)] * 3
        shown = prepare(sentences, budget=techniques * 2 * 60 * (len("word99") + 22))
        assert [(of.folded, of.rest) for of in shown] == [(40, 0), (20, 20), (0, 40)]
    assert [(of.folded, of.rest) for of in prepare(sentences, budget=0)] == [(0, 40)] * 3


def test_two_hundred_long_texts_under_three_techniques_stay_below_five_megabytes():
    sentences = [long_sentence(800, 3)._replace(query=["why"] * 100)] * 200
    page = render("", "", sentences)
    assert 4_000_000 < len(page.encode()) < 5_000_000
    assert "… +40 tokens, not in this page" in page, "of the query"
    assert "… +740 tokens, not in this page" in page and "<summary>… +740 tokens</summary>" in page


def test_headings_are_in_order_at_any_level():
    """The macro is told where the page stands; the rows of every technique are under a heading and a name."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("flax_attnat.reporting"), autoescape=True)
    text = '{% from "words.html" import sentence %}{{ sentence(shown, 7, 3) }}'
    (shown,) = prepare([long_sentence(2, 2)])
    page = Page(environment.from_string(text).render(shown=shown))
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h3", "h4", "h4"]
    assert page.text["h3"] == ["7. Label: positive"]


def test_a_filter_finds_labels_techniques_and_predictions():
    columns = [column([1.0], [1.0], 'a "b"', right) for right in (True, False, None)]
    page = Page(render("", "", [Sentence(["a"], "it's", (), columns)]))
    (section,) = [attributes for tag, attributes in page.tags if tag == "section"]
    assert section["data-label"] == "it's"
    found = [attributes for _, attributes in page.tags if "data-technique" in attributes]
    assert [attributes["data-right"] for attributes in found] == ["true", "false", "unknown"]
    assert {attributes["data-technique"] for attributes in found} == {'a "b"'}
    assert ["data-first" in attributes for attributes in found] == [True, False, False]


def test_weights_that_are_not_one_per_word_are_refused():
    with pytest.raises(ValueError, match="sentence 1 has 2 words and 1 importance weights of vanilla"):
        render("", "", [Sentence(["a", "b"], "", (), [column([0.5, 0.5], [1.0])])])
    with pytest.raises(ValueError, match="sentence 2 has 1 words and 3 places in known"):
        draw_heat_map([Sentence(["a"], "", (), []), Sentence(["a"], "", (), [], (True,) * 3)], "")


def test_items_flow_over_lines_of_the_width_given():
    """No line is wider than the column, none is broken too early, and words keep their order."""
    rng = np.random.default_rng(0)
    items = [Item("w" * int(size), 0) for size in rng.integers(1, 60, 200)]
    placed = flow(items)
    assert all(of.left + of.width <= COLUMN for of in placed)
    for before, after in itertools.pairwise(placed):
        if after.line == before.line:
            assert after.left > before.left + before.width
        else:
            assert after.line == before.line + 1 and before.left + before.width + after.width > COLUMN - 5


def figure_texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_figure_has_every_word_with_its_shade():
    columns = [column([0.2, 0.8, 0.0], [NAN] * 3), column([1.0, 0.0, 0.0], [0.5, 0.5, 0.25], "at", False, "0.31")]
    sentence = Sentence(["not", "$good$", "film"], "negative", (0,), columns, (True, True, False), ("why", "?"))
    figure = draw_heat_map([sentence, long_sentence(100)], "Two")
    texts = figure_texts(figure)
    assert texts.count("$good$") == 4 and texts.count("not a number") == 1 and texts[0] == "Two"
    assert "1. Label: negative. Query: why ?" in texts and "positive 0.75" in texts
    assert texts[texts.index("positive 0.75, wrong,") + 1] == "radius 0.31", "it has no room on the line"
    assert f"word{FOLD_FIGURE - 1}" in texts and f"word{FOLD_FIGURE}" not in texts
    assert texts.count("… +60 tokens") == 2
    lines = figure.axes[0].lines
    assert sum(line.get_linestyle() == "-" and line.get_color() == "#000000" for line in lines) == 4
    assert sum(line.get_linestyle() == "--" for line in lines) == 4
    scale, shaded = 40, 2 + 1 + 3 + 2 * (FOLD_FIGURE - 1)
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(patches) == scale + shaded
    strong, weak = patches[scale + 1].get_facecolor(), patches[scale].get_facecolor()
    assert np.isclose(1 - weak[0], 0.25 * (1 - strong[0])) and strong[0] < 0.5
    assert max(text.get_position()[1] for text in figure.axes[0].texts) < figure.axes[0].get_ylim()[0]
    assert not plt.get_fignums()


def test_the_figure_draws_hostile_texts(tmp_path):
    """No warning (they are errors here) of mathtext or of letters that the font lacks; SVG and PNG are whole."""
    weights = [1 / len(HOSTILE)] * len(HOSTILE)
    for hostile in HOSTILE:
        columns = [Column(hostile, hostile, False, weights, weights, hostile)]
        sentence = Sentence([*HOSTILE[:-1], "x" * 10_000], hostile, (), columns, [False] * len(HOSTILE), HOSTILE)
        figure = draw_heat_map([sentence], hostile)
    png, svg = save(figure, tmp_path, "heatmap")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in svg.read_text() and "<script" not in svg.read_text()
    assert draw_heat_map([], "").axes
