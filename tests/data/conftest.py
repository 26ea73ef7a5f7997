"""Small raw files of the official form, and the folder of real ones where it exists."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
TREES = {
    "trees/train.txt": "(3 (2 Good) (3 film))\n(2 (2 So) (2 so))\n(0 (1 Bad) (2 (2 film) (2 .)))\n(4 Bravo)\n",
    "trees/dev.txt": "(1 (2 Good) (1 (2 new) (2 novel)))\n",
    "trees/test.txt": "(3 (2 Unheard) (3 words))\n(1 (2 -LRB-) (2 -RRB-))\n",
}


@pytest.fixture
def shared() -> Path:
    """The folder of real raw files; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the real raw files are not here.")
    return SHARED


@pytest.fixture
def trees() -> dict[str, str]:
    """The members of the small archive."""
    return dict(TREES)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter that has its own home and temporary folder and may not open a connection."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        """One finished process; it fails where the code does."""
        for name in ("home", "tmp"):
            (tmp_path / name).mkdir(exist_ok=True)
        guard = "import socket\ndef refuse(*_): raise RuntimeError('network')\nsocket.socket.connect = refuse\n"
        places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **places, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-W", "error", "-c", guard + code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    return run


@pytest.fixture
def sst_zip(tmp_path: Path) -> Callable[..., Path]:
    """Writes an archive with the given members (by default four, one and two small trees) and gives its folder."""

    def write(members: Mapping[str, str] = TREES, folder: str = "raw") -> Path:
        """One archive of the official name in its own folder."""
        (tmp_path / folder).mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / folder / "trainDevTestTrees_PTB.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                archive.writestr(name, text)
        return tmp_path / folder

    return write
