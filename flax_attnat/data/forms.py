"""The forms that a user's file may have, and which one it has."""

import difflib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from flax_attnat.data.errors import DataError
from flax_attnat.data.records import first, open_records, quote

RATIONALE = "rationale"
"""The field that every form may have besides its own."""


class Form(NamedTuple):
    """The fields that hold an example; `text` also names the form.

    Attributes:
      text: field of the text.
      query: field of the query, "" for none.
      label: field of the label.
    """

    text: str
    query: str
    label: str

    def fields(self) -> tuple[str, ...]:
        """The fields that every row must have."""
        return tuple(filter(None, self))


FORMS = (Form("text", "", "label"), Form("premise", "hypothesis", "label"), Form("passage", "question", "answer"))
_KNOWN = sorted({RATIONALE}.union(*(form.fields() for form in FORMS)))


def recognise(path: Path, candidates: Iterable[Collection[str]]) -> Form:
    """The form of the first names of fields that have all that a form needs.

    Args:
      path: the file, for the message.
      candidates: the names in its header, or in each of its objects.

    Raises:
      DataError: none has, or the first that has could be of several forms.
    """
    found: dict[str, None] = {}
    fit: list[Form] = []
    for names in candidates:
        fit = [form for form in FORMS if set(form.fields()) <= set(names)]
        if len(fit) == 1:
            return fit[0]
        found.update(dict.fromkeys(names))
        if fit:
            break
    if not found:
        flaws = (f"; line {record.line}: {record.flaws[0]}" for record in open_records(path)[1] if record.flaws)
        raise DataError(f"{path} has no JSON object with fields{next(flaws, '')}. Write one object per line.")
    forms = " or ".join(",".join(form.fields()) for form in FORMS)
    raise DataError(
        f"{path} has the fields {first(map(quote, found), 10)}, which are those of"
        f" {'more than one form' if fit else 'no form'}; a file has the fields {forms}. {_advice(found)}".rstrip()
    )


def _advice(names: Collection[str]) -> str:
    """Questions about names that are nearly those of a field."""
    advice = []
    for name in names:
        lower = name.strip().lower()
        near = difflib.get_close_matches(lower, _KNOWN, n=1, cutoff=0.7)
        if near and near[0] not in names:
            remark = " (upper and lower case and spaces count)" * (lower == near[0])
            advice.append(f"Did you mean {near[0]!r} where it has {quote(name)}{remark}?")
        if len(names) == 1 and re.search("[,;\t]", name):
            advice.append("Fields are separated by commas in a .csv file, by tabs in a .tsv file.")
    return " ".join(advice)
