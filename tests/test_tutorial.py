"""The tutorial: its cells run in order in a fresh process, and the notebook shows what they give."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
PLACE = re.compile(r"(?<![\w.:/])(?:/(?:home|Users|root|work|mnt|srv|scratch|opt|tmp|usr|var)\b/?|[A-Z]:\\+Users)")

# As a kernel does, without one. What each cell printed goes to a file.
RUN = """
import contextlib, io, json, linecache, pathlib, sys, traceback
names, printed = {"__name__": "__main__"}, []
for number, cell in enumerate(json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"], 1):
    source, name = "".join(cell["source"]), f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            exec(compile(source if cell["cell_type"] == "code" else "", name, "exec"), names)
        except BaseException:
            sys.exit(f"cell {number} failed\\n{text.getvalue()}{traceback.format_exc()}")
    printed.append(text.getvalue())
pathlib.Path(sys.argv[2]).write_text(json.dumps(printed))
"""


def run(notebook: Path, folder: Path) -> list[str]:
    """What every cell prints when they run in one process, in a folder of their own that they leave empty."""
    inside, temporary, printed = folder / "inside", folder / "temporary", folder / "printed.json"
    inside.mkdir()
    temporary.mkdir()
    environment = os.environ | {"MPLBACKEND": "Agg", "TMPDIR": str(temporary)}
    command = [sys.executable, "-W", "error", "-c", RUN, str(notebook), str(printed)]
    done = subprocess.run(command, cwd=inside, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr)
    assert [*inside.iterdir(), *temporary.iterdir()] == []
    return json.loads(printed.read_text())


def words(text: str) -> list[str]:
    """The words of a text, without its numbers."""
    return re.findall(r"[A-Za-z_]{2,}", text)


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    return notebook["cells"]


def stream(cell: dict[str, Any], name: str) -> str:
    """What the notebook says that a cell printed."""
    found = (out for out in cell.get("outputs", []) if out["output_type"] == "stream" and out["name"] == name)
    return "".join("".join(out["text"]) for out in found)


def test_every_cell_runs_and_says_what_the_notebook_shows(cells: list[dict[str, Any]], tmp_path: Path) -> None:
    """Numbers aside: they are those of the machine, as trainings are."""
    printed = run(NOTEBOOK, tmp_path)
    for number, (cell, text) in enumerate(zip(cells, printed, strict=True), 1):
        assert words(stream(cell, "stdout")) == words(text), f"cell {number}"


def test_a_cell_that_fails_is_named(tmp_path: Path) -> None:
    """With its line, and what it printed before."""
    sources = [("markdown", "text"), ("code", "a = 0"), ("code", "print('so far')\n1 / a")]
    path = tmp_path / "wrong.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": kind, "source": [source]} for kind, source in sources]}))
    with pytest.raises(pytest.fail.Exception, match=r"(?s)cell 3 failed\nso far\n.*line 2.*1 / a\n.*ZeroDivisionError"):
        run(path, tmp_path)


def test_it_was_saved_after_one_run_from_the_start(cells: list[dict[str, Any]]) -> None:
    """Every code cell once, in order, nothing on standard error, no error; no times and no settings of an editor."""
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(cell["metadata"] == {} for cell in cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [cell["id"] for cell in code if stream(cell, "stderr")]
    kinds = {out["output_type"] for cell in code for out in cell["outputs"]}
    assert kinds == {"stream", "execute_result"}


def test_it_shows_its_figures(cells: list[dict[str, Any]]) -> None:
    """The epsilon figure and the heat map, as PNG; and it says from the start that the data are not real."""
    shown = [out["data"]["image/png"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    assert len(shown) == 2
    assert "synthetic" in "".join(cells[0]["source"])
    for picture in shown:
        assert base64.b64decode("".join(picture)).startswith(b"\x89PNG\r\n\x1a\n")


def test_it_is_small_and_names_no_place_of_a_machine(cells: list[dict[str, Any]]) -> None:
    """Neither in a source nor in an output."""
    assert NOTEBOOK.stat().st_size < 300_000
    for number, cell in enumerate(cells, 1):
        texts = ["".join(cell["source"])]
        for out in cell.get("outputs", []):
            texts += ["".join(out.get("text", ""))]
            texts += ["".join(text) for kind, text in out.get("data", {}).items() if kind != "image/png"]
        assert not [text for text in texts if PLACE.search(text)], f"cell {number}"
