"""Downloads from a server on this machine that resumes, drops, stalls, lies and refuses."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import logging
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flax_attnat.data import download as module
from flax_attnat.data.archive import Official
from flax_attnat.data.download import download
from flax_attnat.data.errors import DataError

CONTENT = hashlib.shake_256(b"content").digest(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"


@dataclasses.dataclass
class Answers:
    """What the server does with each request, and what it was asked.

    Attributes:
      address: where it listens.
      body: the file that it serves.
      drops: numbers of body bytes after which it closes the connection, one for each of the first requests.
      ranges: whether it answers a request for a range with that range.
      shift: by how much it says that a range begins elsewhere.
      stated: the length that it states, -1 for none; None for the true one.
      codes: HTTP status codes for the first requests (0: none, it answers).
      stall: whether it keeps silent where it would close the connection.
      asked: path and "Range" header of each request.
    """

    address: str = ""
    body: bytes = CONTENT
    drops: list[int] = dataclasses.field(default_factory=list)
    ranges: bool = True
    shift: int = 0
    stated: int | None = None
    codes: list[int] = dataclasses.field(default_factory=list)
    stall: bool = False
    released: threading.Event = dataclasses.field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)


def make_handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    """A handler that does as it is told; paths: /absent is 404, /page a web page, /elsewhere leads to a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = self.headers.get("Range")
            answers.asked.append((self.path, begin))
            code = 404 if self.path == "/absent" else answers.codes.pop(0) if answers.codes else 0
            if code:
                return self.send_error(code)
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "ftp://127.0.0.1/x")
                return self.end_headers()
            body = PAGE if self.path == "/page" else answers.body
            start = int(begin.removeprefix("bytes=").rstrip("-")) if begin and answers.ranges else 0
            if start >= len(body) and start:
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start + answers.shift}-{len(body) - 1}/{len(body)}")
            if answers.stated != -1:
                self.send_header("Content-Length", str(answers.stated or len(body) - start))
            self.end_headers()
            rest = body[start:]
            with contextlib.suppress(OSError):
                if answers.drops:
                    self.wfile.write(rest[: answers.drops.pop(0)])
                    if answers.stall:
                        answers.released.wait(20)
                else:
                    self.wfile.write(rest)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch) -> Iterator[Answers]:
    """A server and what it does; attempts follow each other without a pause."""
    monkeypatch.setattr(module, "_PAUSES", (0, 0, 0))
    answers = Answers()
    with ThreadingHTTPServer(("127.0.0.1", 0), make_handler(answers)) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        answers.address = f"http://127.0.0.1:{http.server_port}"
        yield answers
        answers.released.set()
        http.shutdown()
        thread.join()


def official(server: Answers, path: str = "/good", **changes) -> Official:
    """The file of the given path, its size and hash published."""
    fields = {"name": "x.bin", "folders": (), "url": server.address + path, "size": len(CONTENT), "sha256": SHA256}
    return Official(**{**fields, **changes})


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_good_file(server, tmp_path):
    """The file arrives whole, progress ends at its size, nothing else stays, and no second request is made."""
    seen = []
    file = official(server)
    for _ in range(2):
        path = download(file, tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
        assert path == tmp_path / "new" / "x.bin"
        assert path.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["x.bin"]
    assert server.asked == [("/good", None)]
    assert seen[-1] == (300_000, 300_000)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_resume_after_drops_within_a_call(server, tmp_path):
    """Each new attempt asks for what is missing, and only for that."""
    server.drops = [100_000, 50_000]
    assert download(official(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/good", None), ("/good", "bytes=100000-"), ("/good", "bytes=150000-")]


def test_resume_in_a_later_call(server, tmp_path):
    """A file that broke off four times stays as NAME.part; the next call goes on from there."""
    server.drops = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"/good failed: broke off after 100,000 of 300,000 bytes"):
        download(official(server), tmp_path)
    assert names(tmp_path) == ["x.bin.part"]
    assert len(server.asked) == 4
    assert download(official(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[4:] == [("/good", "bytes=100000-")]
    assert names(tmp_path) == ["x.bin"]


def test_a_part_survives_addresses_that_do_not_answer(server, tmp_path):
    """A 404 and an address where nobody listens take nothing from what has come."""
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match="404"):
        download(official(server, "/absent", mirrors=("http://127.0.0.1:1/x",)), tmp_path)
    assert (tmp_path / "x.bin.part").read_bytes() == CONTENT[:1000]
    assert download(official(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/good", "bytes=1000-")


@pytest.mark.parametrize(
    ("changes", "part", "asked"),
    [
        ({"ranges": False}, CONTENT[:1000], ["bytes=1000-"]),  # it answers 200 with all
        ({"shift": 1}, CONTENT[:1000], ["bytes=1000-", None]),  # the range is another one
        ({}, CONTENT + b"more", ["bytes=300004-", None]),  # 416
        ({}, b"another file", ["bytes=12-", None]),  # the whole has another hash
        ({}, CONTENT, []),  # stopped after the last byte
        ({}, b"!" * 300_000, [None]),  # as long as the file, and another
    ],
)
def test_parts_of_every_kind_end_in_the_right_file(server, tmp_path, changes, part, asked):
    """Whatever an earlier attempt left, what is there at the end is the file, after these requests."""
    for name, value in changes.items():
        setattr(server, name, value)
    (tmp_path / "x.bin.part").write_bytes(part)
    assert download(official(server), tmp_path).read_bytes() == CONTENT
    assert [begin for _, begin in server.asked] == asked
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.parametrize(
    ("path", "changes", "fault"),
    [
        ("/good", {"body": CONTENT[:-1]}, "brought 299,999 bytes where 300,000 are expected"),
        ("/good", {"body": CONTENT * 2}, "brought 600,000 bytes where 300,000 are expected"),
        ("/good", {"body": CONTENT * 2, "stated": -1}, "brought more than the 300,000 bytes that are expected"),
        ("/good", {"body": CONTENT[::-1]}, f"brought a file with SHA-256 [0-9a-f]{{64}} where {SHA256} is expected"),
        ("/page", {}, r"brought a web page in place of the file \(Google Drive"),
        ("/page", {"stated": -1}, "brought a web page in place of the file"),
        ("/absent", {}, "failed: HTTP Error 404"),
        ("/good", {"codes": [403]}, "failed: HTTP Error 403"),
        ("/good", {"codes": [503] * 4}, "failed: HTTP Error 503"),
        ("/elsewhere", {}, "failed: .*ftp"),
    ],
)
def test_bad_files_leave_nothing(server, tmp_path, path, changes, fault):
    """The sentence says what came, what was expected and what to do by hand; an older file stays as it is."""
    for name, value in changes.items():
        setattr(server, name, value)
    target = tmp_path / "x.bin"
    target.write_bytes(b"older")
    with pytest.raises(DataError, match=f"{server.address}{path} {fault}") as error:
        download(official(server, path), tmp_path)
    for part in ("300,000 bytes", SHA256, server.address + path, f"put it in {tmp_path} as x.bin", "raw_dir"):
        assert part in str(error.value)
    assert names(tmp_path) == ["x.bin"]
    assert target.read_bytes() == b"older"


def test_passing_errors_are_tried_again(server, tmp_path):
    """A server that is busy twice gives the file at the third request."""
    server.codes = [503, 429]
    assert download(official(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_stalled_connection_is_dropped_and_resumed(server, tmp_path):
    """A silent server is left after the time limit, and asked for the rest."""
    server.drops, server.stall = [100_000], True
    assert download(official(server), tmp_path, timeout=0.3).read_bytes() == CONTENT
    assert [begin for _, begin in server.asked] == [None, "bytes=100000-"]


def test_mirrors_in_their_order(server, tmp_path):
    """The first address that gives the right file ends it, and takes up what another began."""
    server.drops = [100_000, 0, 0, 0]
    mirrors = tuple(server.address + path for path in ("/absent", "/second", "/third"))
    assert download(official(server, mirrors=mirrors), tmp_path).read_bytes() == CONTENT
    assert server.asked[4:] == [("/absent", "bytes=100000-"), ("/second", "bytes=100000-")]


def test_every_address_is_in_the_sentence(server, tmp_path):
    """What went wrong is told for each."""
    mirrors = (server.address + "/page", "ftp://127.0.0.1/x", "file:///etc/hostname", "nowhere")
    with pytest.raises(DataError, match=r"/absent failed: .*404.*/page brought a web page") as error:
        download(official(server, "/absent", mirrors=mirrors), tmp_path)
    for part in ("unknown url type: ftp", "unknown url type: file", "nowhere failed: unknown url type"):
        assert part in str(error.value)
    assert names(tmp_path) == []


def test_nobody_there(tmp_path):
    """A refused connection is a sentence, and leaves an empty folder."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = Official("x.zip", (), f"http://127.0.0.1:{unused.getsockname()[1]}/x", 1, SHA256)
        with pytest.raises(DataError, match=r"failed: .*refused.*Fetch it by hand"):
            download(nobody, tmp_path / "new")
    assert names(tmp_path / "new") == []


def test_a_folder_that_is_a_file(server, tmp_path):
    """What cannot be written is a sentence too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be written: .*Fetch it by hand"):
        download(official(server), tmp_path / "file")


def archives() -> dict[str, bytes]:
    """A small zip archive, tar.gz archive and file of vectors."""
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"text")
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    return {"x.zip": packed.getvalue(), "x.tar.gz": tarred.getvalue(), "x.vec": b"film 1 2\n"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.vec"])
@pytest.mark.parametrize("stated", [None, -1])
def test_files_without_a_published_hash(server, tmp_path, caplog, name, stated):
    """They are taken where they can be read, and their SHA-256 is told."""
    server.body, server.stated = archives()[name], stated
    file = official(server, name=name, size=None, sha256=None)
    with caplog.at_level(logging.INFO):
        assert download(file, tmp_path).read_bytes() == server.body
    assert hashlib.sha256(server.body).hexdigest() in caplog.text
    assert download(file, tmp_path).read_bytes() == server.body
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("name", "spoil", "fault"),
    [
        ("x.zip", lambda body: body[:-10], "brought what is no archive"),
        ("x.tar.gz", lambda body: gzip.compress(b"text" * 500), "brought what is no archive"),
        ("x.tar.gz", lambda body: body[:-8] + bytes(8), "brought what is no archive: .*CRC"),
        ("x.zip", lambda body: PAGE, "brought a web page"),
        ("x.vec", lambda body: PAGE, "brought a web page"),
    ],
)
def test_unreadable_files_without_a_published_hash(server, tmp_path, name, spoil, fault):
    """They are refused and removed."""
    server.body = spoil(archives()[name])
    with pytest.raises(DataError, match=f"/good {fault}.*size not published, SHA-256 not published"):
        download(official(server, name=name, size=None, sha256=None), tmp_path)
    assert names(tmp_path) == []


def test_without_a_hash_a_mirror_does_not_go_on_with_another_address_part(server, tmp_path):
    """Two halves of different files would not be told from one file, so each address begins anew."""
    server.body, server.drops = archives()["x.zip"], [50, 0, 0, 0]
    file = official(server, name="x.zip", size=None, sha256=None, mirrors=(server.address + "/mirror",))
    assert download(file, tmp_path).read_bytes() == server.body
    assert server.asked[4:] == [("/mirror", None)]


def test_two_at_once(server, tmp_path, caplog):
    """The second waits for the first (each opens the file by itself, as processes do); it is fetched once for both."""
    server.drops, server.stall = [100_000], True  # the first is held there until the second waits for it
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(2) as pool:
        both = [pool.submit(download, official(server), tmp_path) for _ in range(2)]
        while "Another process is downloading" not in caplog.text and not any(one.done() for one in both):
            threading.Event().wait(0.01)
        server.released.set()
        assert [one.result().read_bytes() == CONTENT for one in both] == [True, True]
    assert "Another process is downloading" in caplog.text
    assert [begin for _, begin in server.asked] == [None, "bytes=100000-"]
    assert names(tmp_path) == ["x.bin"]
