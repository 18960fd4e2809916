"""J1, J2, X5, X7: submissions to a real Ray head with a job server, a token and its own ports."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.catalog import Catalog
from arclight.errors import EngineError, RefusedError, SpecError
from arclight.spec_file import LoadedSpec, load_spec
from arclight.store import Store, open_store
from cluster.head_record import TOKEN
from cluster.launch import start_head, stop_head
from cluster.profiles import Profile, RayPlace, load_profile
from cluster.submit_client import job_server
from jobs.entry import ENTRYPOINT
from jobs.submissions import list_jobs
from jobs.submit import Sent, submit_spec
from jobs.up import write_attached
from jobs.watch import cancel_job, job_output, wait_for
from tests.jobs import small_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.head_record import Head

pytestmark = pytest.mark.ray
SMALL = Profile(name="small", cores=2, memory_gib=3.0)
DEADLINE_S = 60
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Path]]:
    """A head on loopback; when it is stopped, nothing of it is left."""
    folder = tmp_path_factory.mktemp("head")
    head = start_head(SMALL, folder)
    try:
        tree = psutil.Process(head.pid).children(recursive=True)
        yield head, folder
        tree = [*tree, *psutil.Process(head.pid).children(recursive=True)]
    finally:
        assert stop_head(folder)
    assert not [process for process in tree if process.is_running()]
    assert not Path(head.temp_folder).parent.exists()
    assert not stop_head(folder)


@pytest.fixture
def place(head: tuple[Head, Path]) -> Profile:
    """The profile that leads to the head, read back as a user would."""
    return load_profile(str(write_attached(SMALL, head[0], head[1])))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def spec(folder: Path, name: str) -> LoadedSpec:
    file = folder / f"{name}.yaml"
    sql = f"SELECT {next(NUMBERS)} AS late FROM flights -- '; touch canary #$(touch canary)"
    file.write_text(
        f"name: {name}\ntask: binary\nsources: {{flights: {{path: '$(touch canary)'}}}}\n"
        f"etl: {{label: late, sql: {sql!r}}}\n"
    )
    return load_spec(file)


def submit(store: Store, name: str, place: Profile, **options: Any) -> Sent:
    loaded = spec(store.root.parent, name)
    return submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT, **options)


def test_a_job_runs_once_and_its_record_is_the_truth(
    store: Store, place: Profile, tmp_path: Path
) -> None:
    server = job_server(place)
    loaded = spec(tmp_path, "ends-well")
    sent = submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT)
    assert sent.is_new
    twice = submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT)
    assert (twice.is_new, twice.submission) == (False, sent.submission)
    state = wait_for(store, sent.submission, server, poll_s=0.2)
    assert (state.name, state.exit_status) == ("done", 0)
    lines = list(job_output(store, sent.submission, server, follow=True))
    assert lines == ["hello from the cluster", "\x1b[31mred"]
    assert not list(tmp_path.rglob("canary"))

    after = submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT)
    assert (after.is_new, after.state.name) == (False, "done")
    again = submit_spec(store, loaded, place, again=True, entrypoint=small_job.ENTRYPOINT)
    assert (again.is_new, again.submission.attempt) == (True, 2)
    assert wait_for(store, again.submission, server, poll_s=0.2).name == "done"
    assert len(list_jobs(store)) == 2


def test_a_lost_reply_is_made_good_by_the_same_command(
    store: Store, place: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.submit_client import JobServer

    loaded = spec(tmp_path, "ends-well")
    real = JobServer.submit

    def before(*_a: Any, **_k: Any) -> bool:
        raise EngineError("killed before the request")

    def after(self: JobServer, job: str, **options: Any) -> bool:
        real(self, job, **options)
        raise EngineError("killed before the reply")

    for broken in (before, after):
        monkeypatch.setattr(JobServer, "submit", broken)
        with pytest.raises(EngineError, match="killed"):
            submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT)
    monkeypatch.setattr(JobServer, "submit", real)
    sent = submit_spec(store, loaded, place, entrypoint=small_job.ENTRYPOINT)
    state = wait_for(store, sent.submission, job_server(place), poll_s=0.2)
    assert state.name == "done"
    assert list_jobs(store) == (sent.submission.id,)
    log = store.path("submissions", sent.submission.id, "job.log").read_text()
    assert log.count("hello") == 1


@pytest.mark.parametrize(("name", "status"), [("ends-badly", 3), ("is-killed", 137)])
def test_a_bad_end_keeps_its_status(store: Store, place: Profile, name: str, status: int) -> None:
    sent = submit(store, name, place)
    state = wait_for(store, sent.submission, job_server(place), poll_s=0.2)
    assert (state.name, state.exit_status) == ("failed", status)


def test_cancel_is_the_same_however_often_and_leaves_no_process(
    store: Store, place: Profile
) -> None:
    server = job_server(place)
    sent = submit(store, "sleeps", place)
    log = store.path("submissions", sent.submission.id, "job.log")
    until(lambda: log.exists() and "begun" in log.read_text())
    sleepers = [p for p in psutil.process_iter(["cmdline"]) if "time.sleep(600)" in str(p.info)]
    assert sleepers
    for _ in range(2):
        cancel_job(store, sent.submission, server)
    state = wait_for(store, sent.submission, server, poll_s=0.2)
    assert state.name == "cancelled"
    until(lambda: not any(p.is_running() for p in sleepers))
    assert cancel_job(store, sent.submission, server) == state


def test_a_job_cancelled_before_it_begins_never_begins(
    store: Store, place: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.submit_client import JobServer

    monkeypatch.setattr(JobServer, "stop", lambda *_: True)  # the cluster is slow to hear of it
    sent = submit(store, "sleeps", place)
    cancel_job(store, sent.submission, job_server(place))
    state = wait_for(store, sent.submission, job_server(place), poll_s=0.2)
    assert (state.name, state.exit_status) == ("cancelled", 130)
    log = store.path("submissions", sent.submission.id, "job.log")
    assert not log.exists() or "begun" not in log.read_text()


def test_the_keys_named_here_are_those_of_the_job(
    store: Store, place: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them it would sign nothing and check nothing, and not say so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCLIGHT_SIGNING_KEY", "models")
    monkeypatch.setenv("ARCLIGHT_TRUSTED_KEYS", "/keys/trusted")
    sent = submit(store, "tells-keys", place)
    assert wait_for(store, sent.submission, job_server(place), poll_s=0.2).name == "done"
    lines = list(job_output(store, sent.submission, job_server(place), follow=False))
    assert lines == [str([str(tmp_path / "models"), "/keys/trusted"])]


def test_an_ended_job_is_not_cancelled(store: Store, place: Profile) -> None:
    server = job_server(place)
    sent = submit(store, "ends-well", place)
    wait_for(store, sent.submission, server, poll_s=0.2)
    assert cancel_job(store, sent.submission, server).name == "done"


def test_the_real_entry_refuses_a_spec_that_cannot_run(store: Store, place: Profile) -> None:
    server = job_server(place)
    sent = submit_spec(store, spec(store.root.parent, "ends-badly"), place)
    state = wait_for(store, sent.submission, server, poll_s=0.5)
    lines = "\n".join(job_output(store, sent.submission, server, follow=False))
    assert state.name == "failed", lines
    assert "arclight:" in lines
    assert not list(store.root.parent.rglob("canary"))


@pytest.mark.e2e
@pytest.mark.spark
def test_a_submitted_run_ends_in_a_model_in_the_store(store: Store, place: Profile) -> None:
    dice = np.random.default_rng(7)
    x, carrier = dice.normal(size=2000), np.array(["a", "b", "c"])[dice.integers(0, 3, 2000)]
    late = x + (carrier == "a") + dice.normal(size=2000) > 0
    folder = store.root.parent
    (folder / "data").mkdir()
    table = pa.table({"id": np.arange(2000), "x": x, "carrier": carrier, "late": late})
    pq.write_table(table, folder / "data" / "rows.parquet")
    (folder / "spec.yaml").write_text(
        "name: small\ntask: binary\nsources: {rows: {path: data}}\n"
        "etl: {key: [id], label: late}\ntrain: {rounds: 5, params: {max_depth: 3}}\n"
    )
    sent = submit_spec(store, load_spec(folder / "spec.yaml"), place)
    state = wait_for(store, sent.submission, job_server(place))
    lines = list(job_output(store, sent.submission, job_server(place), follow=False))
    assert state.exit_status == 0, lines
    assert Catalog(store).model("small").dataset == "small@1"


def test_a_wrong_token_and_a_dead_address_are_sentences(
    store: Store, place: Profile, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    token.chmod(0o600)
    wrong = place.model_copy(
        update={"ray": RayPlace(jobs_url=place.ray.jobs_url, token_path=str(token))}
    )
    with pytest.raises(RefusedError, match="does not take the token"):
        submit(store, "ends-well", wrong)
    for path, text in ((str(token), "cannot be reached"), (place.ray.token_path, "is down")):
        dead = RayPlace(jobs_url="http://127.0.0.1:9", token_path=path)
        with pytest.raises(EngineError, match=text):
            submit(store, "ends-well", place.model_copy(update={"ray": dead}))
    with pytest.raises(SpecError, match=r"must set ray\.jobs_url"):
        submit(store, "ends-well", SMALL)


def test_only_loopback_listens_and_no_token_is_in_a_command_line(head: tuple[Head, Path]) -> None:
    root = psutil.Process(head[0].pid)
    token = (head[1] / TOKEN).read_text()
    ports = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            command, connections = process.cmdline(), process.net_connections(kind="inet")
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # a worker that has just ended
        assert token not in " ".join(command)
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                ports += 1
                address = connection.laddr.ip.removeprefix("::ffff:")
                assert address in ("127.0.0.1", "::1"), (process.name(), connection.laddr)
    assert ports > 3


def test_the_command_is_a_constant() -> None:
    assert ENTRYPOINT == "python -m jobs.entry"


def until(is_true: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)
