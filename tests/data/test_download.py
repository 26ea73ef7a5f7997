"""Downloads from a server on this machine: good, cut short, too long, another file, a web page, nobody there."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flax_attnat.data.archive import download
from flax_attnat.data.errors import DataError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ANSWERS = {
    "/good": CONTENT,
    "/short": CONTENT[:-1],
    "/long": CONTENT * 2,
    "/other": CONTENT[::-1],
    "/page": b"<!doctype html><title>Moved</title>",
}


class _Handler(BaseHTTPRequestHandler):
    """Answers with ANSWERS, cuts the connection on "/cut", and knows nothing else."""

    def do_GET(self) -> None:
        """One answer."""
        body = CONTENT if self.path == "/cut" else ANSWERS.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_good_file(address, tmp_path):
    """The file arrives whole, a leftover of an earlier attempt is no obstacle, and nothing else stays."""
    target = tmp_path / "new" / "x.zip"
    for _ in range(2):
        download(address + "/good", len(CONTENT), SHA256, target)
        assert target.read_bytes() == CONTENT
        assert list(target.parent.iterdir()) == [target]
        target.with_name("x.zip.part").write_bytes(b"leftover" * 10_000)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/short", "brought 10,239 bytes where 10,240 are expected"),
        ("/cut", "(brought 100 bytes where 10,240 are expected|failed: .*)"),
        ("/long", "brought more than 10,240 bytes where 10,240 are expected"),
        ("/other", f"brought a file with SHA-256 [0-9a-f]{{64}} where {SHA256} is expected"),
        ("/page", "brought a web page in place of the file"),
        ("/absent", "failed: HTTP Error 404"),
    ],
)
def test_bad_files_leave_nothing(address, tmp_path, path, fault):
    """The sentence says what came, what was expected and what to do by hand; an older file stays as it is."""
    target = tmp_path / "x.zip"
    target.write_bytes(b"older")
    with pytest.raises(DataError, match=f"{address}{path} {fault}") as error:
        download(address + path, len(CONTENT), SHA256, target)
    for part in (address + path, "10,240 bytes", SHA256, str(tmp_path), "x.zip", "config.data.raw_dir"):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"older"


def test_nobody_there(tmp_path):
    """A refused connection is a sentence too."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(DataError, match=r"failed: .*Fetch http://127.* by hand"):
            download(address, 1, SHA256, tmp_path / "x.zip")
    assert not list(tmp_path.iterdir())
