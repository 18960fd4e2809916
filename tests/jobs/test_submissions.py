"""What the store says of a submission, and what follows from it; no cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arclight.errors import ConflictError, EngineError, IntegrityError, MissingError, SpecError
from arclight.spec_file import LoadedSpec, load_spec
from arclight.store import Store, open_store
from cluster.head_record import LOG as HEAD_LOG
from cluster.profiles import Profile, RayPlace, load_profile
from cluster.tokens import create_token
from jobs import entry
from jobs.submissions import (
    ExitRecord,
    RunOption,
    create_submission,
    decide_state,
    find_latest,
    is_cancelled,
    job_id,
    key_of,
    list_jobs,
    read_exit,
    read_submission,
    record_cancel,
    record_exit,
)
from jobs.submit import submit_spec
from jobs.watch import jobs_command

PLACE = Profile(
    name="far", ray=RayPlace(jobs_url="https://far.example:8265", token_path="/secrets/token")
)
SPEC = """
name: flight-delay
task: binary
sources: {flights: {path: data/flights}}
etl: {sql_file: join.sql, label: late}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSpec:
    (tmp_path / "join.sql").write_text("SELECT * FROM flights -- $(touch canary)")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return load_spec(tmp_path / "spec.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def ended(status: int) -> ExitRecord:
    return ExitRecord(job="j", status=status, reason="r", at="now")


@pytest.mark.parametrize(
    ("end", "cancelled", "hint", "seen", "name", "status"),
    [(0, False, None, True, "done", 0), (0, True, "FAILED", True, "done", 0),
     (3, False, "SUCCEEDED", True, "failed", 3), (130, True, "STOPPED", True, "cancelled", 130),
     (137, False, "ABSENT", True, "failed", 137),
     (None, False, "PENDING", False, "queued", None),
     (None, False, "RUNNING", True, "running", None),
     (None, True, "RUNNING", True, "running", None),
     (None, True, "STOPPED", True, "cancelled", 130),
     (None, True, "ABSENT", False, "cancelled", 130), (None, False, "FAILED", True, "lost", 1),
     (None, False, "SUCCEEDED", True, "lost", 1), (None, False, "ABSENT", True, "lost", 1),
     (None, False, "ABSENT", False, "unsent", 1), (0, False, "GONE", True, "done", 0),
     (None, True, "GONE", True, "cancelled", 130), (None, False, "GONE", False, "lost", 1),
     (None, False, None, True, "unknown", None)],
)  # fmt: skip
def test_the_record_is_the_truth_and_the_cluster_a_hint(
    end: int | None, cancelled: bool, hint: str | None, seen: bool, name: str, status: int | None
) -> None:
    record = None if end is None else ended(end)
    state = decide_state(record, cancelled=cancelled, hint=hint, seen_log=seen)  # type: ignore[arg-type]
    assert (state.name, state.exit_status) == (name, status)
    assert state.is_over == (name not in ("queued", "running", "unknown"))


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_is_there_is_not_over_before_its_cluster(*, cancelled: bool) -> None:
    """It was lost for `wait` as soon as the head was, and ended otherwise by its record."""
    state = decide_state(None, cancelled=cancelled, hint="GONE", seen_log=True, is_here=True)
    assert (state.name, state.is_over) == ("running", False)
    assert decide_state(ended(130), cancelled=cancelled, hint="GONE", is_here=True).is_over


def test_what_the_job_reads_means_the_same_anywhere(loaded: LoadedSpec, store: Store) -> None:
    submission = create_submission(store, loaded, PLACE, attempt=1)
    folder = store.path("submissions", submission.id)
    there = load_spec(folder / "spec.yaml")
    assert there.sql == loaded.sql
    source = there.spec.sources["flights"].path
    assert source == str(loaded.folder / "data" / "flights")
    assert there.spec.etl.label == "late"
    assert there.spec.train == loaded.spec.train
    assert Profile.model_validate_json((folder / "profile.yaml").read_bytes()) == PLACE
    assert load_profile(str(folder / "profile.yaml")) == PLACE
    assert all(p.stat().st_mode & 0o077 == 0 for p in [folder, *folder.iterdir()])


ODD = "".join(map(chr, (0, 7, 9, 10, 13, 27, 127, *range(128, 161), 0x2028, 0x2029, 0xFEFF)))


@pytest.mark.parametrize("sign", [*ODD, "\ufffd", "\ufffe", "\uffff", "😀", "\\", '"', "'"])
def test_the_spec_that_a_job_reads_is_the_one_that_was_sent(
    store: Store, tmp_path: Path, sign: str
) -> None:
    """Any text, and a null whose default is another: the cluster must train the same model."""
    body = {
        "name": "odd",
        "task": "binary",
        "sources": {"f": {"path": "/data/f", "format": "csv", "options": {"nullValue": sign}}},
        "etl": {
            "sql": f"SELECT f.*, ' {sign} ' AS a, '{sign}{sign}' AS b FROM f",
            "label": "late",
            "checks": [{"name": "c", "expect": f"carrier = 'a {sign} b'", "else": "warn"}],
        },
        "features": {"derive": {f"a {sign} b": "x"}},
        "train": {"early_stopping": None, "params": {"eta": 1e-05}},
    }
    file = tmp_path / "odd.yaml"
    file.write_text(json.dumps(body, ensure_ascii=sign != "😀"))  # YAML takes no half of a pair
    here = load_spec(file)
    job = create_submission(store, here, PLACE, attempt=1).id
    there = load_spec(store.path("submissions", job, "spec.yaml"))
    assert here.spec.train.early_stopping is None
    assert (there.spec, there.sql) == (here.spec, here.sql)


def test_what_the_job_could_not_read_is_told_here(loaded: LoadedSpec, store: Store) -> None:
    """The SQL alone is not too long, and the spec without it is not either."""
    (loaded.folder / "join.sql").write_text('SELECT "x"\n' * 22_000 + "FROM flights")
    long = load_spec(loaded.file)
    with pytest.raises(SpecError, match=r"spec\.yaml: what the job reads.* at most 262,144 bytes"):
        create_submission(store, long, PLACE, attempt=1)
    assert list_jobs(store) == ()
    assert not list(store.path("submissions").iterdir())


def test_the_same_again_is_the_same_submission(loaded: LoadedSpec, store: Store) -> None:
    first = create_submission(store, loaded, PLACE, attempt=1)
    assert create_submission(store, loaded, PLACE, attempt=1) == first
    assert find_latest(store, "flight-delay", first.key) == first
    second = create_submission(store, loaded, PLACE, attempt=2)
    assert second.id == f"{first.id}-2"
    assert find_latest(store, "flight-delay", first.key) == second
    assert list_jobs(store) == (first.id, second.id)


def test_a_cluster_that_is_down_gets_no_attempt(
    loaded: LoadedSpec, store: Store, tmp_path: Path
) -> None:
    """Each `--again` made one more, which stood in the list as lost and had never begun."""
    ray = RayPlace(jobs_url="http://127.0.0.1:9", token_path=str(create_token(tmp_path / "token")))
    (tmp_path / HEAD_LOG).touch()  # a head was here
    place = PLACE.model_copy(update={"ray": ray})
    for is_known in (False, True):
        if is_known:
            create_submission(store, loaded, place, attempt=1)
        with pytest.raises(EngineError, match="is down; `arclight up`"):
            submit_spec(store, loaded, place, again=True)
        assert len(list_jobs(store)) == is_known


def test_a_damaged_record_is_named_and_hides_no_other(
    loaded: LoadedSpec, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (create_submission(store, loaded, PLACE, attempt=n) for n in (1, 2))
    record = store.record(1, "submissions", first.id).path
    Path(record).chmod(0o600)
    Path(record).write_text('{"kind"')
    assert list_jobs(store) == (second.id, first.id)
    with pytest.raises(IntegrityError, match=first.id):
        jobs_command(store=str(store.root), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [row["job"] for row in told["jobs"]] == [second.id]
    assert [row["job"] for row in told["damaged"]] == [first.id]


def test_what_is_no_submission_is_passed_over(loaded: LoadedSpec, store: Store) -> None:
    made = create_submission(store, loaded, PLACE, attempt=1)
    folder = store.path("submissions", made.id)
    shutil.copytree(folder, folder.with_name(f"{made.id}.bak"))
    (folder.with_name("notes")).mkdir()
    assert list_jobs(store) == (made.id,)
    with pytest.raises(MissingError, match="does not exist"):
        read_submission(store, "flight-delay-0123456789ab")


def test_another_spec_profile_or_store_is_another(
    loaded: LoadedSpec, store: Store, tmp_path: Path
) -> None:
    keys = {key_of(loaded, PLACE, store)}
    keys.add(key_of(loaded, PLACE.model_copy(update={"cores": 3}), store))
    keys.add(key_of(loaded, PLACE, open_store(tmp_path / "other")))
    (tmp_path / "join.sql").write_text("SELECT 1 AS late FROM flights")
    keys.add(key_of(load_spec(tmp_path / "spec.yaml"), PLACE, store))
    keys.add(key_of(loaded, PLACE, store, ("--new-study",)))
    keys.add(key_of(loaded, PLACE, store, ("--accept-schema", "--new-study")))
    assert len(keys) == 6


def test_a_store_is_the_same_by_every_way_to_it(
    loaded: LoadedSpec, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(store.root)
    ways = (store.root, tmp_path / "store" / ".." / "store", tmp_path / "link")
    assert len({key_of(loaded, PLACE, open_store(way)) for way in ways}) == 1


@pytest.mark.parametrize("options", [(), ("--new-study",), ("--accept-schema", "--new-study")])
def test_the_options_of_a_run_go_with_its_job(
    loaded: LoadedSpec,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[RunOption, ...],
) -> None:
    made = create_submission(store, loaded, PLACE, attempt=1, options=options)
    assert ("options" in json.loads(made.to_json())) == bool(options)  # older releases know none
    commands: list[list[str]] = []

    def supervised(_: Store, job: str, command: list[str], **_watch: object) -> int:
        assert job == made.id
        commands.append(command)
        return 0

    monkeypatch.setattr(entry, "supervise", supervised)
    monkeypatch.setenv(entry.JOB, made.id)
    monkeypatch.setenv(entry.STORE, str(store.root))
    assert entry.main() == 0
    (command,) = commands
    assert command[1:5] == ["-P", "-m", "jobs.cli", "run"]
    assert tuple(command[command.index("--profile") + 2 :]) == options


def test_a_job_whose_engine_ended_before_it_was_cancelled_all_the_same(
    loaded: LoadedSpec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal goes to the whole tree, and a JVM is quicker to end."""
    job = create_submission(store, loaded, PLACE, attempt=1).id
    monkeypatch.setattr(entry, "_SIGNALS", ())
    answers = iter([False, True])
    monkeypatch.setattr(entry, "is_cancelled", lambda *_: next(answers))
    assert entry.supervise(store, job, [sys.executable, "-c", "raise SystemExit(1)"]) == 130
    ended = read_exit(store, job)
    assert ended is not None
    assert (ended.status, ended.reason) == (130, "it was cancelled.")


def test_a_store_that_the_cluster_does_not_see_is_told_and_not_made_there(
    loaded: LoadedSpec, store: Store, tmp_path: Path
) -> None:
    job = create_submission(store, loaded, PLACE, attempt=1).id
    away = tmp_path / "away"
    for root in (away, tmp_path):
        with pytest.raises(MissingError, match=r"must lie under the same path here and there"):
            entry.find_job({entry.JOB: job, entry.STORE: str(root)})
    assert not away.exists()
    found, submission = entry.find_job({entry.JOB: job, entry.STORE: str(store.root)})
    assert (found, submission.id) == (store, job)


def test_a_job_whose_cluster_is_gone_is_ended_and_says_so(
    loaded: LoadedSpec, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `kill -9` of the head, which takes what would have told the job with it."""
    ray = RayPlace(jobs_url="http://127.0.0.1:9", token_path=str(tmp_path / "head" / "token"))
    place = PLACE.model_copy(update={"ray": ray})
    job = create_submission(store, loaded, place, attempt=1).id
    monkeypatch.setattr(entry, "_SIGNALS", ())
    is_gone = entry.cluster_watch(store.path("submissions", job))
    assert not is_gone()
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / HEAD_LOG).touch()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert entry.supervise(store, job, sleeps, is_gone=is_gone) == 130
    ended = read_exit(store, job)
    assert ended is not None
    assert ended.reason.startswith("its cluster ended, and it was ended too")


SMALL_LOG = """
import resource, sys
from arclight.store import open_store
from jobs.entry import supervise
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
supervise(open_store(sys.argv[1]), sys.argv[2], [sys.executable, "-c", sys.argv[3]])
"""
MUCH = """
import os, resource
for number in range(4000):
    print(f"{number:0100d}", flush=True)
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print("the last line")
"""


def test_a_job_whose_output_cannot_be_written_goes_on_to_its_end(
    loaded: LoadedSpec, store: Store
) -> None:
    """No room for its log, then room again; and what this process itself says goes nowhere."""
    job = create_submission(store, loaded, PLACE, attempt=1).id
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", SMALL_LOG, str(store.root), job, MUCH]
        subprocess.run(command, stdout=full, timeout=60, check=False)
    ended = read_exit(store, job)
    assert ended is not None
    assert (ended.status, ended.reason) == (0, "it ended well.")
    kept = store.path("submissions", job, "job.log").read_text()
    assert kept.startswith("0" * 100 + "\n")
    assert kept.count("[lines are missing here: there was no room for them]\n") == 1
    assert kept.endswith("\nthe last line\n")


def test_a_short_id_of_another_submission_is_a_conflict(loaded: LoadedSpec, store: Store) -> None:
    first = create_submission(store, loaded, PLACE, attempt=1)
    with pytest.raises(ConflictError, match="another one"):
        find_latest(store, "flight-delay", first.key[:12] + "f" * 52)


@pytest.mark.parametrize("job", ["", "x", "../../etc", "a/b-0123456789ab", "A-0123456789ab"])
def test_what_is_no_id_is_refused(store: Store, job: str) -> None:
    with pytest.raises(SpecError, match="must be a job's id"):
        read_submission(store, job)


def test_an_unknown_job_names_the_nearest(loaded: LoadedSpec, store: Store) -> None:
    first = create_submission(store, loaded, PLACE, attempt=1)
    wrong = first.id[:-1] + ("0" if first.id[-1] != "0" else "1")
    with pytest.raises(MissingError, match=f"Did you mean '{first.id}'"):
        read_submission(store, wrong)


def test_the_first_end_holds(loaded: LoadedSpec, store: Store) -> None:
    job = create_submission(store, loaded, PLACE, attempt=1).id
    assert read_exit(store, job) is None
    assert record_exit(store, job, status=0, reason="well").status == 0
    assert record_exit(store, job, status=1, reason="later").status == 0
    assert not is_cancelled(store, job)
    record_cancel(store, job)
    record_cancel(store, job)
    assert is_cancelled(store, job)


def test_ids_are_names_of_the_spec_and_the_key() -> None:
    assert job_id("a", "0123456789abcdef", 1) == "a-0123456789ab"
    assert job_id("a", "0123456789abcdef", 12) == "a-0123456789ab-12"


def test_the_written_spec_is_plain_json(loaded: LoadedSpec, store: Store) -> None:
    job = create_submission(store, loaded, PLACE, attempt=1).id
    body = json.loads(store.path("submissions", job, "spec.yaml").read_text())
    assert body["etl"]["sql"].endswith("$(touch canary)")
