"""The heat-map page: hostile texts stay texts, nothing is fetched or run, shades are relative to the largest weight."""

import re
from html.parser import HTMLParser

import pytest

from flax_attnat.reporting.heatmap import Column, Sentence, render, shades

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'quoted' & \"quoted\" &lt; &amp;lt;",
    "<!-- not a comment",
    "--> ]]> </span></p></style>",
    "\u202eright to left",
    "\u2067isolate",
    "emoji 🎬👩‍👩‍👧 e\u0301",
    "nul \x00 here",
    "{{ 7 * 7 }} {% raw %}",
    "https://example.com/",
    "",
)
VOID = {"meta"}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section", "div", "b", "span"}


class Page(HTMLParser):
    """Tags, attributes and, per place in the tree, the text of a page; a tag that is not closed in order fails."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.comments, self.stack, self.words = [], [], [], []
        self.text = {}
        self.feed(page)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if self.in_words(tag):
            self.words.append((dict(attrs), ""))

    def in_words(self, tag):
        """Whether a tag is a word of a sentence."""
        return tag == "span" and self.stack[-2:] == ["p", "span"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.in_words(self.stack[-1]):
            attributes, text = self.words.pop()
            self.words.append((attributes, text + data))
        elif self.stack:
            self.text.setdefault(self.stack[-1], []).append(data)

    def handle_comment(self, data):
        self.comments.append(data)


def column(attention, importance, title="vanilla", right=True):
    """What one technique says."""
    return Column(title, "positive 0.75", right, attention, importance)


def test_hostile_texts_appear_as_themselves_and_as_nothing_else():
    """Words, title, note, label, technique and prediction come back from an HTML parser unchanged, as text."""
    n = len(HOSTILE)
    for hostile in filter(None, HOSTILE):
        sentence = Sentence(HOSTILE, hostile, (), [Column(hostile, hostile, False, [1 / n] * n, [1 / n] * n)])
        page = Page(render(hostile, hostile, [sentence]))
        assert {tag for tag, _ in page.tags} <= ALLOWED
        assert not page.comments
        for _, attributes in page.tags:
            assert set(attributes) <= {"lang", "charset", "name", "content", "http-equiv", "class", "style", "title"}
        assert [text for _, text in page.words] == [*HOSTILE, *HOSTILE]
        assert "".join(page.text["title"]) == "".join(page.text["h1"]) == hostile
        assert page.text["p"][0] == hostile
        assert "".join(page.text["h2"]) == f"1. Label: {hostile}"
        assert "".join(page.text["h3"]) == f"{hostile} "
        assert "".join(page.text["span"]) == f"{hostile}, wrong"


def test_nothing_is_fetched_or_run():
    """A Content-Security-Policy forbids everything but the inline style, and the page itself asks for nothing."""
    text = render("Title", "Note.", [Sentence(["a", "b"], "positive", [1], [column([0.5, 0.5], [1.0, 0.0])])])
    policy = [attributes["content"] for _, attributes in Page(text).tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"https?:|//|url\(|@import|<script|javascript:|\son\w+\s*=", text, re.IGNORECASE)


def test_a_direction_override_ends_with_its_word():
    """U+202E inside a word may not reverse the words after it: each word is isolated for bidirectional text."""
    text = render("Title", "Note.", [Sentence(["\u202ea"], "x", (), [column([1.0], [1.0])])])
    assert re.search(r"\.words span \{[^}]*unicode-bidi: isolate", text)


def test_shades_are_relative_to_the_largest_weight():
    assert shades([0.1, 0.4, 0.0]) == [("0.100", pytest.approx(0.25)), ("0.400", 1.0), ("0.000", 0.0)]
    nan, inf = float("nan"), float("inf")
    assert shades([nan, 0.2, inf, -inf, 0.1]) == [
        ("0.000", 0),
        ("0.200", 1),
        ("0.000", 0),
        ("0.000", 0),
        ("0.100", 0.5),
    ]
    assert shades([0.0, 0.0]) == [("0.000", 0.0)] * 2
    assert shades([nan, nan]) == [("0.000", 0.0)] * 2
    assert shades([]) == []


def test_the_page_shows_weights_and_marks_the_rationale():
    """Each word's shade and number, under attention and importance; the words of the rationale, and no others."""
    columns = [column([0.2, 0.8, 0.0], [float("nan")] * 3), column([0.0] * 3, [0.5, 0.25, 0.25], "attention_at", False)]
    page = Page(render("Title", "Note.", [Sentence(["not", "good", "film"], "negative", (0, 1), columns)]))
    shown = [re.fullmatch(r"--w:([\d.]+)", attributes["style"]).group(1) for attributes, _ in page.words]
    assert [float(shade) for shade in shown] == [0.25, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0.5, 0.5]
    assert [attributes["title"] for attributes, _ in page.words[:3]] == ["0.200", "0.800", "0.000"]
    assert [attributes.get("class") for attributes, _ in page.words] == ["rationale", "rationale", None] * 4
    assert page.text["span"] == ["positive 0.75", "positive 0.75, wrong"]
    kinds = [attributes["class"] for tag, attributes in page.tags if tag == "p" and "class" in attributes]
    assert kinds == ["words attention", "words importance"] * 2
