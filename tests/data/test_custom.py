"""A user's own files: what is read, what is noted, and how every bad row is named."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flax_attnat.data import custom
from flax_attnat.data.errors import DataError
from flax_attnat.data.source import Example, Notes

Write = Callable[[str, str | bytes], Path]
# What a file can hold: no NUL, no lone surrogate; a label is stripped and stays on one line.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LABELS = TEXTS.map(lambda label: " ".join(label.split())).filter(bool)
PAIRS = st.lists(st.tuples(TEXTS, LABELS), min_size=1)
ROUND_TRIP = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, text in UTF-8."""

    def one(name: str, content: str | bytes) -> Path:
        """Its path."""
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return one


def problems(path: Path) -> list[tuple[int, int, str]]:
    """Row, line and field of every problem."""
    return [(problem.row, problem.line, problem.field) for problem in custom.check(path).problems]


def only_problem(path: Path) -> custom.Problem:
    """The problem of a file that has one."""
    (problem,) = custom.check(path).problems
    return problem


# --- good files


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'text,label\n"Good, new",1\n\nSo so, 0 \n'),
        ("a.TSV", b"label\ttext\n1\tGood, new\n 0 \tSo so\n"),
        ("a.jsonl", b'{"text": "Good, new", "label": 1}\n \n{"label": " 0 ", "text": "So so"}'),
        ("a.ndjson", b'{"text": "Good, new", "label": "1"}\n{"text": "So so", "label": "0"}\n\n'),
    ],
)
def test_each_kind_of_file_gives_the_same_examples(
    write: Write, name: str, content: bytes, end: bytes, mark: bytes
) -> None:
    path = write(name, mark + content.replace(b"\n", end))
    assert custom.read(path, Notes()) == [Example("Good, new", "1"), Example("So so", "0")]
    assert custom.check(path) == custom.Report(2, "text", {"0": 1, "1": 1}, [], Notes())


@ROUND_TRIP
@given(pairs=PAIRS, end=st.sampled_from(["\n", "\r\n"]), table=st.sampled_from([(".csv", ","), (".tsv", "\t")]))
def test_a_written_table_reads_back_equal(
    write: Write, pairs: list[tuple[str, str]], end: str, table: tuple[str, str]
) -> None:
    suffix, separator = table
    file = io.StringIO()
    # Before Python 3.13 the writer leaves a lone CR unquoted unless the line ends with one.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting).writerows([("text", "label"), *pairs])
    examples = custom.read(write(f"a{suffix}", file.getvalue()), Notes())
    assert [(example.text, example.label) for example in examples] == pairs


@ROUND_TRIP
@given(pairs=PAIRS, ascii_only=st.booleans())
def test_written_objects_read_back_equal(write: Write, pairs: list[tuple[str, str]], ascii_only: bool) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in pairs]
    examples = custom.read(write("a.jsonl", "\n".join(lines)), Notes())
    assert [(example.text, example.label) for example in examples] == pairs


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=60), kind=st.sampled_from([("a.csv", b"text,label\n"), ("a.jsonl", b"")]))
def test_any_bytes_are_rows_or_a_sentence(write: Write, body: bytes, kind: tuple[str, bytes]) -> None:
    name, head = kind
    path = write(name, head + body)
    try:
        report = custom.check(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert sum(report.labels.values()) + len({problem.row for problem in report.problems}) == report.rows


def test_pairs_have_their_query(write: Write) -> None:
    premise = write("a.csv", "premise,hypothesis,label\nIt rains .,It is wet .,yes\n")
    passage = write("a.jsonl", '{"passage": "Mary is home .", "question": "Where is Mary ?", "answer": "home"}')
    assert custom.read(premise, Notes()) == [Example("It rains .", "yes", "It is wet .")]
    assert custom.read(passage, Notes()) == [Example("Mary is home .", "home", "Where is Mary ?")]
    assert (custom.check(premise).form, custom.check(passage).form) == ("premise", "passage")


def test_a_quoted_field_keeps_its_line_ends_and_rows_know_their_line(write: Write) -> None:
    path = write("a.csv", 'text,label\n"one\r\ntwo\n\nthree",x\n\nfour,\nfive,y\n')
    assert problems(path) == [(2, 7, "label")]
    assert custom.read(write("b.csv", path.read_bytes().replace(b"four,", b"four,z")), Notes())[0].text == (
        "one\r\ntwo\n\nthree"
    )


def test_only_a_line_feed_ends_a_line_of_objects(write: Write) -> None:
    path = write("a.jsonl", '{"text": "one\u2028two\x85three", "label": "x"}\n')
    assert custom.read(path, Notes())[0].text == "one\u2028two\x85three"


def test_a_text_of_100_000_words_passes_and_the_limit_of_csv_is_put_back(write: Write) -> None:
    before = csv.field_size_limit()
    text = "tremendous " * 100_000
    assert custom.read(write("a.csv", f'text,label\n"{text}",x\n'), Notes()) == [Example(text, "x")]
    with pytest.raises(DataError, match="row 1"):
        custom.read(write("b.csv", "text,label\nno label\n"), Notes())
    assert csv.field_size_limit() == before


def test_a_label_may_be_a_whole_number_or_a_truth_value(write: Write) -> None:
    lines = [json.dumps({"text": str(place), "label": label}) for place, label in enumerate([0, -7, True, False, "x"])]
    assert [e.label for e in custom.read(write("a.jsonl", "\n".join(lines)), Notes())] == [
        "0",
        "-7",
        "true",
        "false",
        "x",
    ]


# --- rationales


def test_a_rationale_is_every_run_of_its_words(write: Write) -> None:
    text = "A GOOD, good film that isn't a good film"  # a good , good film that is n't a good film
    wanted = [Example(text, "x", rationale=(3, 4, 6, 7, 9, 10)), Example("plain", "y")]
    pieces = ["good  Film", "isn't"]
    objects = [{"text": text, "label": "x", "rationale": pieces}, {"text": "plain", "label": "y"}]
    assert custom.read(write("a.jsonl", "\n".join(map(json.dumps, objects))), Notes()) == wanted
    table = f'text,label,rationale\n"{text}",x,{"|".join(pieces)}\nplain,y,\n'
    assert custom.read(write("a.csv", table), Notes()) == wanted


@pytest.mark.parametrize("value", [None, "", " ", [], [""], "absent"])
def test_nothing_marked_is_no_rationale(write: Write, value: object) -> None:
    row = {"text": "good film", "label": "x", "rationale": value}
    if value == "absent":
        del row["rationale"]
    assert custom.read(write("a.jsonl", json.dumps(row)), Notes())[0].rationale is None


def test_a_bar_separates_only_in_tables(write: Write) -> None:
    row = {"text": "a | b", "label": "x", "rationale": "a | b"}
    assert custom.read(write("a.jsonl", json.dumps(row)), Notes())[0].rationale == (0, 1, 2)
    table = "text\tlabel\trationale\na | b\tx\ta | b\n"
    assert custom.read(write("a.tsv", table), Notes())[0].rationale == (0, 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("bad", "'bad' is not found in the text"),
        ("film good", "'film good' is not found"),
        (["good", "goo"], "'goo' is not found"),
        (3, "is a number where a string or a list of strings is expected"),
        (True, "is true or false"),
        ({"good": 1}, "is an object"),
        (["good", 3], "is a number where a string is expected"),
        ([["good"]], "is a list where a string is expected"),
        ("\ud83d", "lone surrogate"),
    ],
)
def test_a_rationale_must_come_from_the_text(write: Write, value: object, words: str) -> None:
    good = {"text": "good film", "label": "x"}
    path = write("a.jsonl", "\n".join(map(json.dumps, [good, good | {"rationale": value}, good])))
    problem = only_problem(path)
    assert (problem.row, problem.field) == (2, "rationale")
    assert words in problem.text


def test_a_rationale_of_a_table_must_come_from_the_text(write: Write) -> None:
    assert problems(write("a.csv", "text,label,rationale\ngood film,x,good\ngood film,x,good|bad\n")) == [
        (2, 3, "rationale")
    ]


# --- bad rows

GOOD = b'{"text": "good", "label": "x"}'


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        (b'{"text": "a"}', "label", "is missing"),
        (b'{"label": "x"}', "text", "is missing"),
        (b'{"text": null, "label": "x"}', "text", "is null where a string is expected"),
        (b'{"text": 3, "label": "x"}', "text", "is a number"),
        (b'{"text": true, "label": "x"}', "text", "is true or false"),
        (b'{"text": ["a"], "label": "x"}', "text", "is a list"),
        (b'{"text": "a", "label": 1.0}', "label", "is a number"),
        (b'{"text": "a", "label": null}', "label", "is null"),
        (b'{"text": "a", "label": {}}', "label", "is an object"),
        (b'{"text": "a", "label": " "}', "label", "is empty"),
        (b'{"text": "a", "label": "x\\ny"}', "label", "holds a line end"),
        (b'{"text": "a", "label": "x"', "", "broken JSON at column 27"),
        (b'{"text": "a" "label": "x"}', "", "broken JSON at column 14"),
        pytest.param(b"[" * 100_000, "", "nested too deeply", id="deep"),
        pytest.param(b'{"text": "a", "label": ' + b"1" * 5000 + b"}", "", "cannot be used", id="digits"),
        (b'["a", "x"]', "", "a list where a JSON object is expected"),
        (b'"a"', "", "a string where a JSON object"),
        (b"NaN", "", "a number where a JSON object"),
        (b"null", "", "null where a JSON object"),
        (b'{"text": "a", "label": "x", "text": "b"}', "", "'text' stands twice"),
        (b'{"text": "a", "label": "x", "more": {"id": 1, "id": 1}}', "", "'id' stands twice"),
        (b'{"text": "caf\xe9", "label": "x"}', "", "not UTF-8 (byte 14 of line 4 is 0xe9)"),
        (b'{"text": "a\0", "label": "x"}', "", "holds NUL (byte 12 of line 4)"),
        (b'{"text": "ab\\u0000", "label": "x"}', "text", "holds NUL (character 3)"),
        (b'{"text": "ab\\ud83d!", "label": "x"}', "text", "lone surrogate (\\ud83d, character 3)"),
        (b'{"text": "a", "label": "\\udc00"}', "label", "lone surrogate (\\udc00, character 1)"),
    ],
)
def test_a_bad_object_is_named_and_the_others_are_read(write: Write, line: bytes, field: str, words: str) -> None:
    path = write("a.jsonl", b"\n".join([GOOD, b"", GOOD, line, GOOD]))
    problem = only_problem(path)
    assert (problem.row, problem.line, problem.field) == (3, 4, field)
    assert words in problem.text
    report = custom.check(path)
    assert (report.rows, report.labels) == (4, {"x": 3})


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (b"only one\n", "", "has 1 fields where the header has 2"),
        (b"good, new,x\n", "", "has 3 fields where the header has 2"),
        (b"good,\n", "label", "is empty"),
        (b'good,"x\ny"\n', "label", "holds a line end"),
        (b'"good" film,x\n', "", "double each quote"),
        (b"one\rtwo,x\n", "", "CR without LF"),
        (b"caf\xe9,x\n", "", "not UTF-8 (byte 4 of line 4 is 0xe9)"),
        (b'"one\ncaf\xe9",x\n', "", "not UTF-8 (byte 4 of line 5 is 0xe9)"),
        (b"good\0,x\n", "", "holds NUL (byte 5 of line 4)"),
    ],
)
def test_a_bad_row_of_a_table_is_named_and_the_others_are_read(
    write: Write, row: bytes, field: str, words: str
) -> None:
    path = write("a.csv", b"text,label\ngood,x\n\n" + row + b"good,x\n")
    problem = only_problem(path)
    assert (problem.row, problem.line, problem.field) == (2, 4, field)
    assert words in problem.text
    report = custom.check(path)
    assert (report.rows, report.labels) == (3, {"x": 2})


def test_an_unclosed_quote_is_named_where_it_opens(write: Write) -> None:
    problem = only_problem(write("a.csv", 'text,label\ngood,x\n"open,x\ngood,x\ngood,x\n'))
    assert (problem.row, problem.line, problem.field) == (2, 3, "")
    assert "never closed" in problem.text


def test_a_field_beyond_the_limit_is_a_bad_row(write: Write) -> None:
    problem = custom.check(write("a.csv", f'text,label\n"{"a" * (1 << 24)}b",x\ngood,x\n')).problems[0]
    assert (problem.row, problem.line) == (1, 2)
    assert "16,777,216 characters" in problem.text


def test_all_problems_of_a_row_are_reported(write: Write) -> None:
    path = write("a.csv", "premise,hypothesis,label,rationale\na,b,x,\na,b,,c\n")
    assert problems(path) == [(2, 3, "label"), (2, 3, "rationale")]


def test_reading_quotes_the_first_three_bad_rows(write: Write) -> None:
    path = write("a b.csv", "text,label\n" + "good,x\n" + "bad,\n" * 4)
    with pytest.raises(DataError) as caught:
        custom.read(path, Notes())
    message = str(caught.value)
    assert "4 of 5 rows cannot be used" in message
    assert [f"row {row} (line {row + 1}): label is empty" in message for row in range(1, 6)] == [0, 1, 1, 1, 0]
    assert f"python -m launch.prepare --check '{path}'" in message


# --- files that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b"\xef\xbb\xbf", "is empty"),
        ("a.csv", b"\n\n", "empty"),
        ("a.csv", b"text,label\n\n", "empty below its header"),
        ("a.jsonl", b"\n \n", "no JSON object"),
        ("a.jsonl", b"[\n" + GOOD + b",\n]", "line 1: broken JSON at column 2"),
        ("a.jsonl", b"{}", "no JSON object with fields"),
        ("a.jsonl", b'{"text": "caf\xe9", "label": "x"}', "line 1: not UTF-8"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.csv", "text,label\na,b\n".encode("utf-16-le"), "header (line 1): holds NUL"),
        ("a.csv", b"te\xe9t,label\na,b\n", "header (line 1): not UTF-8"),
        ("a.csv", b'text,"label\na,b\n', "header (line 1): a quote opens here"),
        ("a.csv", b"text,label\ra,b\r", "header (line 1): a CR without LF"),
        ("a.csv", b"text,label,text\na,b,c\n", "the name 'text' stands there twice"),
        ("a.json", b"[" + GOOD + b"]", "one object per line"),
        ("a.txt", b"text,label\na,b\n", "the suffix '.txt' is not known"),
        ("a.csv.gz", b"", "the suffix '.gz' is not known"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(write: Write, name: str, content: bytes, words: str) -> None:
    path = write(name, content)
    for refuse in (custom.check, lambda path: custom.read(path, Notes())):
        with pytest.raises(DataError) as caught:
            refuse(path)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file"):
        custom.check(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(DataError, match=r"cannot be read"):
        custom.check(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        ("text,lable", ["no form", "'text', 'lable'", "Did you mean 'label' where it has 'lable'?"]),
        ("Text,LABEL", ["'text' where it has 'Text' (upper and lower case", "'label' where it has 'LABEL' (upper"]),
        ("text, label", ["'label' where it has ' label' (upper and lower case and spaces"]),
        ("premise,hypotesis,label", ["'hypothesis' where it has 'hypotesis'"]),
        ("text;label", ["separated by commas"]),
        ("text,premise,hypothesis,label", ["more than one form"]),
        ("text,label,passage,question,answer", ["more than one form"]),
        ("a film,good", ["no form", "'a film', 'good'"]),
    ],
)
def test_fields_of_no_form_or_of_several_are_refused(write: Write, header: str, advice: list[str]) -> None:
    cells = header.split(",")
    table = write("a.csv", f"{header}\n{','.join('x' for _ in cells)}\n")
    objects = write("a.jsonl", json.dumps(dict.fromkeys(cells, "x")))
    for path in (table, objects):
        with pytest.raises(DataError) as caught:
            custom.check(path)
        for words in [*advice, "text,label or premise,hypothesis,label or passage,question,answer"]:
            assert words in str(caught.value)


def test_no_field_is_proposed_that_is_there(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        custom.check(write("a.csv", "text,texts\na,b\n"))
    assert "Did you mean" not in str(caught.value)


def test_the_first_object_with_all_fields_gives_the_form(write: Write) -> None:
    lines = ["{", '{"text": "a"}', '{"premise": "a", "hypothesis": "b", "label": "x"}', '{"text": "a", "label": "x"}']
    path = write("a.jsonl", "\n".join(lines))
    report = custom.check(path)
    assert (report.form, report.rows, report.labels) == ("premise", 4, {"x": 1})
    assert {problem.row for problem in report.problems} == {1, 2, 4}


# --- notes and labels


def test_ignored_fields_are_noted_once(write: Write) -> None:
    lines = [json.dumps({"text": str(n), "label": "x", "id": n, "Rationale": "?"}) for n in range(5)]
    objects = custom.check(write("a.jsonl", "\n".join(lines))).notes
    assert objects == {"field 'id' was ignored": 1, "field 'Rationale' was ignored": 1}
    assert custom.check(write("a.csv", "id,text,label,,\n1,a,x,,\n")).notes == {
        "field 'id' was ignored": 1,
        "field '' was ignored": 1,
    }


def test_a_field_of_another_form_is_an_ignored_one(write: Write) -> None:
    path = write("a.csv", "passage,question,answer,label\na,b,c,d\n")
    notes = Notes()
    assert custom.read(path, notes) == [Example("a", "c", "b")]
    assert notes == {"field 'label' was ignored": 1}


def test_empty_and_repeated_texts_are_kept_and_noted(write: Write) -> None:
    rows = [("a", "x"), ("", "x"), ("a", "y"), ("a", "x"), ("a", "z"), (" ", "x"), ("b", "x"), ("b", "x"), ("a", "y")]
    path = write("a.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    notes = Notes()
    assert [(example.text, example.label) for example in custom.read(path, notes)] == rows
    assert notes == {
        "empty texts": 2,
        "rows repeat an earlier one": 3,
        "texts occur more than once with different labels": 1,
    }


def test_the_query_makes_a_text_another(write: Write) -> None:
    lines = ["ab,c,x", "a,bc,y", "ab,d,y", "ab,c,y"]
    notes = custom.check(write("a.csv", "premise,hypothesis,label\n" + "\n".join(lines))).notes
    assert notes == {"texts occur more than once with different labels": 1}


def test_labels_are_counted_in_natural_order(write: Write) -> None:
    lines = ["label,text"] + [f"{label},{place}" for place, label in enumerate(["10", "2", "a10", "a9", "02", "2"])]
    path = write("a.csv", "\n".join(lines))
    counts = custom.check(path).labels
    assert list(counts.items()) == [("02", 1), ("2", 2), ("10", 1), ("a9", 1), ("a10", 1)]
    assert custom.label_names(custom.read(path, Notes())) == tuple(counts)


@given(st.lists(st.integers(0, 10**30), unique=True))
def test_numbers_are_in_natural_order(numbers: list[int]) -> None:
    names = custom.label_names([Example("", str(number)) for number in numbers])
    assert names == tuple(map(str, sorted(numbers)))


def test_a_number_of_any_length_is_a_label() -> None:
    longer = "9" * (sys.get_int_max_str_digits() + 1)
    assert custom.label_names([Example("", longer), Example("", "10"), Example("", "²")]) == ("10", longer, "²")


def test_labels_that_the_training_file_lacks_are_refused_with_their_rows() -> None:
    names = ("no", "yes")
    custom.check_labels("dev.csv", [Example("a", "no"), Example("b", "yes")], names)
    labels = ["no", "maybe", "yes", "maybe", "Yes", *["so"] * 12]
    with pytest.raises(DataError) as caught:
        custom.check_labels("dev.csv", [Example("a", label) for label in labels], names)
    message = str(caught.value)
    assert message.startswith("dev.csv: ")
    assert "'maybe' (rows 2, 4), 'Yes' (row 5), 'so' (rows 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 2 more)" in message
    assert "its labels are 'no', 'yes'" in message
