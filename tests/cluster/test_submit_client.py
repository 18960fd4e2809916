"""What answers at a job server's address and is none; the real one is asked in tests of jobs."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest

from arclight.errors import EngineError
from cluster.submit_client import JobServer
from cluster.tokens import create_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ASKED: dict[str, Callable[[JobServer], Any]] = {
    "running": lambda server: server.running(),
    "submit": lambda server: server.submit("a", entrypoint="true", variables={}),
    "hint": lambda server: server.hint("a"),
    "logs": lambda server: server.logs("a"),
}


class Stranger(http.server.ThreadingHTTPServer):
    """A server that gives everybody the same answer."""

    answer = b""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(Stranger.answer)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobServer]:
    create_token(tmp_path / "token")
    with Stranger(("127.0.0.1", 0), _Page) as stranger:
        thread = threading.Thread(target=stranger.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield JobServer(f"http://127.0.0.1:{stranger.server_port}", tmp_path / "token")
        stranger.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".org"])
def test_a_host_that_can_have_no_name_is_a_sentence(tmp_path: Path, host: str) -> None:
    create_token(tmp_path / "token")
    with pytest.raises(EngineError, match=r"cannot be reached .* ray\.jobs_url is right"):
        JobServer(f"https://{host}", tmp_path / "token").running()


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    "answer",
    [b"<html>Sign in</html>", b"", b"7", b"null", b'"x"', b"[7]", b'{"a": 1}', b"[" * 100_000],
)
def test_what_does_not_speak_as_a_job_server_is_no_defect_of_ours(
    server: JobServer, monkeypatch: pytest.MonkeyPatch, answer: bytes, asked: str
) -> None:
    monkeypatch.setattr(Stranger, "answer", answer)
    with pytest.raises(EngineError, match=r"must be a cluster's job server.* ray\.jobs_url"):
        ASKED[asked](server)
