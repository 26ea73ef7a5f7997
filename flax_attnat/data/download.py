"""Downloads of official files that survive broken connections and never leave a wrong file in the right place."""

import contextlib
import fcntl
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from flax_attnat.data.archive import HEAD, Official, head_of, is_html, sha256_of, walk
from flax_attnat.data.errors import DataError

Progress = Callable[[int, int | None], None]
"""`progress(done, total)` in bytes; `total` is None where neither publisher nor server state it."""

_BLOCK = 1 << 20
_PAUSES = (1.0, 2.0, 4.0)  # seconds before further attempts at the same address; anew after each _BLOCK that came
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP errors that another attempt may get over
_MOST_UNSTATED = 16 << 30  # bytes that are taken of a file whose size nobody states
_AGENT = "flax_attnat"  # some servers refuse the name of Python's own client
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_log = logging.getLogger(__name__)


class _Dropped(Exception):
    """The connection broke off or stalled; another attempt may go on from there."""


class _Wrong(Exception):
    """The address does not give the file."""


class _NotThere(Exception):
    """The server cannot go on from where the last attempt ended."""


def no_progress(done: int, total: int | None) -> None:
    """Shows nothing."""


def download(official: Official, folder: Path, *, progress: Progress = no_progress, timeout: float = 60) -> Path:
    """The official file in `folder`, fetched from its address or else a mirror unless it is there already.

    What has come stays in NAME.part when a connection breaks off, and the next call goes on from there. The file takes
    its place in one step, after its size and SHA-256 are found right; where these are not published, after it is found
    to be readable. Processes that fetch the same file at once wait for each other.

    Args:
      official: what to fetch.
      folder: where to put it; made if absent.
      progress: called as bytes arrive.
      timeout: seconds without a byte after which a connection counts as broken.

    Raises:
      DataError: no address gave the file; the message says why for each, and how to get the file by hand.
    """
    target = folder / official.name
    part = target.with_name(target.name + ".part")
    faults: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not _is_there(target, official):
            with part.open("a+b") as file:
                if not _lock(file, part):
                    continue
                faults = _fetch_from_any(official, file, progress, timeout)
                if not faults:
                    os.fsync(file.fileno())
                    part.replace(target)
                elif not file.seek(0, os.SEEK_END):
                    part.unlink()
                break
    except OSError as error:
        faults.append(f"{folder} cannot be written: {error}")
    if faults:
        raise _failure(official, folder, faults)
    return target


def _failure(official: Official, folder: Path, faults: list[str]) -> DataError:
    """What went wrong at each address, and how to get the file by hand."""
    return DataError(
        f"The download of {official.name} failed: {'; '.join(faults)}. {official.sentence()} Fetch it by hand and"
        f" put it in {folder} as {official.name}, or name the folder that holds it with config.data.raw_dir."
    )


def _is_there(target: Path, official: Official) -> bool:
    """Whether the file lies there and is right as far as that is published."""
    if not target.is_file() or official.size not in (None, target.stat().st_size):
        return False
    if official.sha256 is None:
        return not is_html(head_of(target))
    return sha256_of(target) == official.sha256


def _lock(file: IO[bytes], part: Path) -> bool:
    """Waits until no other process writes to the file; whether it is still the unfinished one."""
    with contextlib.suppress(OSError):  # some network file systems have no locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("Another process is downloading to %s; waiting for it.", part)
            fcntl.flock(file, fcntl.LOCK_EX)
    return part.exists() and part.stat().st_ino == os.fstat(file.fileno()).st_ino


def _fetch_from_any(official: Official, file: IO[bytes], progress: Progress, timeout: float) -> list[str]:
    """Fills `file` from the first address that gives the right file; else what went wrong at each."""
    faults: list[str] = []
    for number, url in enumerate((official.url, *official.mirrors)):
        # Without a SHA-256 nothing would tell two halves of different files, so each address then begins anew.
        alone = official.sha256 is None and number > 0
        if alone:
            _empty(file)
        _log.info("Downloading %s to %s.", url, file.name)
        fault = _fetch(url, official, file, progress, timeout)
        if fault is None:
            return []
        faults.append(f"{url} {fault}")
        if alone:
            _empty(file)
    return faults


def _fetch(url: str, official: Official, file: IO[bytes], progress: Progress, timeout: float) -> str | None:
    """Fills `file` from one address in a few attempts; what is wrong, or None."""
    pauses = iter(_PAUSES)
    while True:
        begun = file.seek(0, os.SEEK_END)
        try:
            if begun != official.size:
                _receive(url, official, file, progress, timeout)
            file.flush()
            fault = _fault(Path(file.name), official)
            if fault is None:
                return None
            _empty(file)
            if not begun:
                return fault
        except _NotThere:
            _empty(file)
        except _Wrong as wrong:  # what came before it may be right
            return str(wrong)
        except _Dropped as dropped:
            if file.tell() - begun >= _BLOCK:
                pauses = iter(_PAUSES)
            if (pause := next(pauses, None)) is None:
                return str(dropped)
            time.sleep(pause)


def _receive(url: str, official: Official, file: IO[bytes], progress: Progress, timeout: float) -> None:
    """One attempt: what the server sends from the end of `file` on is appended, or all of it if it begins anew."""
    with _open(url, file.tell(), timeout) as response:
        done, total = _place(response, file.tell())
        expected = official.size if official.size is not None else total
        if total is not None and total != expected:
            page = is_html(response.read(HEAD)) if not done else False
            raise _Wrong(_PAGE if page else f"brought {total:,} bytes where {expected:,} are expected")
        file.seek(done)
        file.truncate()
        while done != total:
            try:
                block = response.read1(_BLOCK)
            except (OSError, HTTPException) as error:
                raise _Dropped(f"failed: broke off after {done:,} bytes ({error or type(error).__name__})") from error
            if not block:
                break
            done += len(block)
            if done > (most := _MOST_UNSTATED if expected is None else expected):
                _empty(file)
                raise _Wrong(f"brought more than the {most:,} bytes that are expected")
            file.write(block)
            progress(done, expected)
    file.flush()
    if expected is not None and done < expected and not is_html(head_of(Path(file.name))):
        raise _Dropped(f"failed: broke off after {done:,} of {expected:,} bytes")


_PAGE = "brought a web page in place of the file (Google Drive does so where it asks for a confirmation)"


def _open(url: str, offset: int, timeout: float) -> HTTPResponse:
    """The server's answer to the request for everything from `offset` on."""
    opener = urllib.request.OpenerDirector()  # not build_opener: neither files nor FTP, and no redirection to them
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    headers = {"User-Agent": _AGENT} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:
            raise _NotThere from error
        raise (_Dropped if error.code in _PASSING else _Wrong)(f"failed: {error}") from error
    except urllib.error.URLError as error:
        raise _Wrong(f"failed: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _Dropped(f"failed: no answer ({error or type(error).__name__})") from error
    except ValueError as error:  # no address at all
        raise _Wrong(f"failed: {error}") from error


def _place(response: HTTPResponse, offset: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and the size of the whole file if the server states it."""
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != offset:
            raise _NotThere if offset else _Wrong("failed: it sent a part of the file unasked")
        return offset, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _fault(path: Path, official: Official) -> str | None:
    """What is wrong with a file that came whole, or None."""
    if is_html(head_of(path)):
        return _PAGE
    size = path.stat().st_size
    if official.size not in (None, size):
        return f"brought {size:,} bytes where {official.size:,} are expected"
    sha256 = sha256_of(path)
    if official.sha256 is not None:
        if sha256 != official.sha256:
            return f"brought a file with SHA-256 {sha256} where {official.sha256} is expected"
        return None
    try:
        if official.name.endswith(_ARCHIVES):
            for _ in walk(path, lambda _: False, limit=0, total=0):
                pass
    except DataError as error:
        return f"brought what is no archive: {error}"
    _log.info(
        "%s has %s bytes and SHA-256 %s; none is published to compare it with.", official.name, f"{size:,}", sha256
    )
    return None


def _empty(file: IO[bytes]) -> None:
    """Drops what has come."""
    file.seek(0)
    file.truncate()
