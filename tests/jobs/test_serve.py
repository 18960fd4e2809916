"""`arclight serve` and `arclight keys` as typed: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from arclight.catalog import Catalog
from arclight.errors import SpecError
from arclight.spec import Replicas
from arclight.store import open_store
from jobs.cli import main
from jobs.keyring import add_key_command, list_keys_command, remove_key_command
from jobs.serve import ServeOptions, curl_line
from ray_apps.serving import deploy
from tests.ray_apps.serving.small_model import ROW, make_bundle, publish_small_model

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
START_S = 90


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one small model."""
    root = tmp_path_factory.mktemp("serve") / "store"
    publish_small_model(Catalog(open_store(root)))
    return root


@contextmanager
def typed(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Type `arclight …` and read what it says until its curl line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    lines: list[str] = []
    try:
        assert process.stderr is not None
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            lines.append(process.stderr.readline().rstrip("\n"))
            if lines[-1].startswith("curl"):
                break
        yield process, lines
    finally:
        if process.poll() is None:
            for left in psutil.Process(process.pid).children(recursive=True):
                left.kill()
            process.kill()
            process.communicate()


def stop(it: subprocess.Popen[str], number: int) -> None:
    """Send a signal and see the command end as interrupted, with every process of it."""
    tree = psutil.Process(it.pid).children(recursive=True)
    assert tree
    it.send_signal(number)
    out, err = it.communicate(timeout=60)
    assert it.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert not [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.ray
def test_it_serves_until_it_is_stopped_and_leaves_nothing(store: Path) -> None:
    with typed("serve", "delay", "--port", "0", "--store", str(store), "--json") as (it, lines):
        assert lines[-1].startswith("curl"), lines
        words = shlex.split(lines[-1])
        url, body = words[2], words[words.index("-d") + 1]
        headers = {"content-type": "application/json"}
        answer = httpx.post(url, content=body, headers=headers)
        assert answer.json()["predictions"][0].keys() == {"score", "label"}
        assert it.stdout is not None
        said = json.loads(it.stdout.readline())
        assert said["models"] == ["delay@1"]
        assert url.startswith(said["url"])
        stop(it, signal.SIGINT)


@pytest.mark.ray
def test_what_it_has_begun_to_answer_is_answered_when_it_is_ended(store: Path) -> None:
    with typed("serve", "delay", "--port", "0", "--store", str(store)) as (it, lines):
        assert lines[-1].startswith("curl"), lines
        url, body = shlex.split(lines[-1])[2], json.dumps({"rows": [ROW] * 9000}).encode()
        answers: list[tuple[float, int | str]] = []

        def ask() -> None:
            while not answers or answers[-1][1] == 200:
                began = time.monotonic()
                try:
                    headers = {"content-type": "application/json"}
                    status = httpx.post(url, content=body, headers=headers, timeout=30).status_code
                    answers.append((began, status))
                except httpx.TransportError:
                    answers.append((began, "cut off"))

        callers = [threading.Thread(target=ask) for _ in range(4)]
        for caller in callers:
            caller.start()
        while len(answers) < 8:
            time.sleep(0.05)
        ended = time.monotonic()
        it.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert it.wait(timeout=60) == 130
    begun = Counter(answer for began, answer in answers if began < ended)
    assert begun[200] >= 8
    assert set(begun) <= {200, 503}, begun
    assert 503 in {answer for _, answer in answers}


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_it_ends_when_ray_has_ended_and_leaves_nothing(store: Path, part: str) -> None:
    """Its proxy would still take requests and answer none."""
    with typed("serve", "delay", "--port", "0", "--store", str(store)) as (it, lines):
        assert lines[-1].startswith("curl"), lines
        tree = psutil.Process(it.pid).children(recursive=True)
        next(process for process in tree if process.name() == part).kill()
        _, err = it.communicate(timeout=45)
        assert it.returncode == 1, err
        assert f"Ray's {part} must run while" in err
        assert "Traceback" not in err
        _, left = psutil.wait_procs(tree, timeout=30)
        assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.ray
def test_beyond_loopback_it_speaks_tls_and_asks_for_keys(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = certificate(tmp_path)
    keys = tmp_path / "keys.json"
    add_key_command(keys, "me", role="submitter", expires="1d", as_json=True)
    secret = json.loads(capsys.readouterr().out)["secret"]
    options = ["--keys", str(keys), "--tls-cert", str(cert), "--tls-key", str(key)]
    command = ["serve", "delay", "--host", "0.0.0.0", "--port", "0", "--store", str(store)]
    with typed(*command, *options) as (it, lines):
        assert lines[-1].startswith("curl"), lines
        url = shlex.split(lines[-1])[2]
        assert url.startswith("https://127.0.0.1:")
        assert httpx.post(url, json=ROW, verify=False).status_code == 401
        header = {"authorization": f"Bearer {secret}"}
        assert httpx.post(url, json=ROW, headers=header, verify=False).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.post(url.replace("https", "http"), json=ROW)
        stop(it, signal.SIGTERM)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this test."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_the_curl_line_survives_any_golden_row() -> None:
    bundle = make_bundle()
    row = {**ROW, "a_string": 'O\'Hare $(touch x) `y` "z" é'}
    golden = bundle.golden.model_copy(update={"rows": (row,)})
    line = curl_line("http://h:1", bundle.model_copy(update={"golden": golden}), has_keys=True)
    words = shlex.split(line)
    assert json.loads(words[words.index("-d") + 1]) == {"rows": [row]}
    assert "Authorization: Bearer KEY" in words
    empty = bundle.golden.model_copy(update={"rows": ()})
    plain = curl_line("http://h:1", bundle.model_copy(update={"golden": empty}), has_keys=False)
    assert "Authorization" not in plain


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5"])
@pytest.mark.parametrize("has_keys", [False, True])
def test_X12_beyond_loopback_without_tls_and_keys_ends_with_3(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    has_keys: bool,
) -> None:
    # a guard that is broken must fail this test, and not open this machine
    monkeypatch.setattr(deploy, "ray_session", lambda *_, **__: pytest.fail("it started"))
    words = ["serve", "delay", "--host", host, "--port", "0", "--store", str(store)]
    if has_keys:
        keys = tmp_path / "keys.json"
        add_key_command(keys, "one", role="viewer", expires="1d", as_json=False)
        words += ["--keys", str(keys)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 3
    said = capsys.readouterr().err
    assert f"'{host}' must not be listened on without TLS" in said
    assert not psutil.Process().net_connections(kind="inet")


@pytest.mark.parametrize(
    ("words", "text"),
    [("--tls-cert nope --tls-key nope", "--tls-cert 'nope' must be a certificate in PEM"),
     ("--tls-cert nope", "--tls-cert must come with --tls-key"),
     ("--port 99999", "port must be 0 (a free one) to 65535, got 99999"),
     ("--port -1", "port must be 0 (a free one) to 65535, got -1"),
     ("--replicas 0", "replicas must be at least 1, got 0"),
     ("--replicas -3", "replicas must be at least 1, got -3"),
     ("--replicas 99999", "replicas must be at most"),
     ("--host no.such.host.invalid --keys K --tls-cert C --tls-key P", "must be free, but")],
)  # fmt: skip
def test_a_wrong_option_is_a_sentence_before_anything_starts(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    text: str,
) -> None:
    monkeypatch.setattr(deploy, "ray_session", lambda *_, **__: pytest.fail("it started"))
    monkeypatch.setattr(deploy, "load_endpoints", lambda *_: pytest.fail("it loaded"))
    given = words.split()
    if "K" in given:
        cert, key = certificate(tmp_path)
        add_key_command(tmp_path / "k", "one", role="viewer", expires="1d", as_json=False)
        places = {"K": str(tmp_path / "k"), "C": str(cert), "P": str(key)}
        given = [places.get(word, word) for word in given]
    with pytest.raises(SystemExit) as ended:
        main(["serve", "delay", "--store", str(store), *given])
    said = capsys.readouterr().err
    assert (ended.value.code, "Traceback" in said) == (2, False)
    assert text in said.splitlines()[-1]


def test_the_spec_says_how_many_copies_serve_unless_the_command_does(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    body = write_spec(spec, serve={"replicas": {"min": 2, "max": 3, "ongoing_per_replica": 7}})
    assert body["serve"]
    assert ServeOptions().copies() == Replicas()
    assert ServeOptions(spec=spec).copies() == Replicas(min=2, max=3, ongoing_per_replica=7)
    given = ServeOptions(spec=spec, replicas=1).copies()
    assert given == Replicas(min=1, max=1, ongoing_per_replica=7)


def write_spec(path: Path, **more: object) -> dict[str, object]:
    body = {
        "name": "demo",
        "task": "binary",
        "sources": {"t": {"path": "t"}},
        "etl": {"key": ["id"], "label": "y", "split": {"by": "hash"}},
        **more,
    }
    path.write_text(json.dumps(body), encoding="utf-8")
    return body


def test_options_become_a_binding() -> None:
    binding = ServeOptions(hosts=("Model.Example",)).binding()
    assert binding.hosts == {"127.0.0.1", "model.example"}
    assert binding.keys is None
    assert not binding.has_tls


def test_keys_are_made_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    add_key_command(file, "grafana", role="viewer", expires="90d", as_json=False)
    printed = capsys.readouterr()
    assert re.search(r"arc_grafana_[0-9a-f]{64}", printed.err)
    assert printed.out == ""
    list_keys_command(file, as_json=True)
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [(k["id"], k["role"]) for k in listed] == [("grafana", "viewer")]
    remove_key_command(file, "grafana", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": "grafana", "removed": True}


@pytest.mark.parametrize(
    ("name", "role", "expires", "text"),
    [("a", "root", "1d", "--role must be one of"), ("A b", "viewer", "1d", "lower-case letters"),
     ("a", "viewer", "soon", "--expires"),
     ("a", "viewer", "999999w", "--expires: '999999w' must end before the year 10000"),
     ("a", "viewer", "999999999w", "must end before the year 10000")],
)  # fmt: skip
def test_a_wrong_key_is_a_sentence(
    tmp_path: Path, name: str, role: str, expires: str, text: str
) -> None:
    with pytest.raises(SpecError, match=text):
        add_key_command(tmp_path / "k", name, role=role, expires=expires, as_json=False)
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2001:DB8::1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("API.example.com", "api.example.com"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_host_is_known_as_the_header_names_it(name: str, expected: str) -> None:
    assert expected in ServeOptions(hosts=(name,)).binding().hosts


@pytest.mark.parametrize("name", ["api.example.com:8443", "https://api.example.com"])
def test_a_host_with_a_port_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"--allow-host must be a name without a port"):
        ServeOptions(hosts=(name,)).binding()
