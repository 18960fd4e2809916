"""Bad input, as typed: one sentence that says where and what to do, a status, and no engine."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.say import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = """\
name: flights
task: binary
sources:
  flights: {path: data}
etl:
  label: late
"""
TIME = pa.timestamp("us")
LAUGHS = "x: &l0 [ha, ha]\n" + "".join(
    f"x{n}: &l{n} [*l{n - 1}, *l{n - 1}]\n" for n in range(1, 50)
)
DEEP = "x: " + "[" * 10_000 + "]" * 10_000 + "\n"

# what follows SMALL, and the sentence after the file's name
WRONG_SPECS = {
    "unknown field": (
        "train: {ronds: 3}\n",
        ":7: 'train.ronds' is not a field of a spec. Did you mean 'rounds'?",
    ),
    "wrong type": (
        "train:\n  rounds: many\n",
        ":8: 'train.rounds' is wrong: it should be a valid integer, got 'many'.",
    ),
    "out of range": ("train:\n  rounds: 0\n", ":8: 'train.rounds' is wrong: "),
    "contradiction": (
        "  split: {by: time, valid_from: 2024-02-01, test_from: 2024-01-01}\n  time: at\n",
        ":7: ",
    ),
    "a split by a time that is not named": (
        "  split: {by: time, valid_from: 2024-01-01, test_from: 2024-02-01}\n",
        "etl.time",
    ),
    "a tag": ("x: !!python/object/apply:os.system ['touch canary']\n", ":7: a spec must be plain"),
    "50 levels of alias": (LAUGHS, "aliases; write the values out."),
    "depth 10,000": (DEEP, ":7: a spec must nest at most"),
    "50 MB": ("# " + "x" * (50 << 20), "must be at most"),
    "half a file": ("train: {rounds: 3\n", ": not valid YAML: "),
    "a field twice": ("name: other\n", ":7: field 'name' stands twice; remove one."),
    "no UTF-8": (b"# \xff\n", "must be UTF-8 text"),
    "terminal escapes in a field": (
        '"\\e[31mred\\e]0;title\\a": 1\n',
        ":7: '\\x1b[31mred\\x1b]0;title\\x07' is not a field",
    ),
    "terminal escapes in a value": ('train: {rounds: "\\e[2J\\u202e"}\n', "\\x1b[2J\\u202e"),
    "SQL that writes": ("  sql: DROP TABLE flights\n", ":7: etl.sql: The SQL must be a SELECT"),
    "a check": (
        "  checks:\n  - name: a\n    expect: 'hour('\n",
        ":9: etl.checks.0.expect: ",
    ),
    "an expression": ("features: {derive: {a: 'hour('}}\n", ":7: features.derive.a: "),
    "a library's parameter": (
        "train: {params: {max_dept: 3}}\n",
        ":7: train.params: XGBoost does not use 'max_dept'",
    ),
}


# what follows SMALL, and the sentence after the file's name: seen in the footers
WRONG_COLUMNS = {
    "no such label": ("  key: [x]\n", ":6: etl.label: the joined table has no column 'late'."),
    "no such key": ("  key: [idd]\n", ":7: etl.key: the joined table has no column 'idd'."),
    "no such time": ("  time: att\n", ":7: etl.time: the joined table has no column 'att'."),
    "no such group": (
        "  split: {by: hash, group: [cust]}\n",
        ":7: etl.split.group: the joined table has no column 'cust'.",
    ),
    "no such drop": ("  drop: [xx]\n", ":7: etl.drop: the joined table has no column 'xx'."),
    "no such segment": (
        "evaluate: {segments: [xx]}\n",
        ":7: evaluate.segments: the joined table has no column 'xx'.",
    ),
    "a check's column": (
        "  drop: ['placed at']\n  checks:\n  - name: price_ok\n    expect: pric > 0\n",
        ":10: etl.checks.price_ok: The expression 'pric > 0' must use columns that exist once, "
        "got 'pric'; the columns are price, x, placed at, late. Did you mean 'price'?",
    ),
    "a check that is a number": (
        "  checks:\n  - {name: n, expect: x + 1}\n",
        ":8: etl.checks.n: the expression 'x + 1' must be true or false, but is int64",
    ),
    "a derived feature's column": (
        "features: {derive: {a: pric * 2}}\n",
        ":7: features.derive.a: The expression 'pric * 2' must use columns that exist once",
    ),
    "a time that is no feature": (
        "",
        ":5: column 'placed at' is timestamp[us, tz=UTC], which is no feature by itself; derive "
        "features from it (such as hour(`placed at`)), or name it in etl.drop.",
    ),
    "a column of the SQL": (
        "  sql: SELECT late, pric FROM flights\n",
        ":7: etl.sql: no source has a column 'pric'. Did you mean 'price'?",
    ),
    "a label that the SQL leaves out": (
        "  sql: SELECT x, price * 2 AS p FROM flights\n",
        ":6: etl.label: the joined table has no column 'late'. It has: x, p.",
    ),
    "a derived feature's column, of a computed table": (
        "  sql: SELECT late, price * 2 AS p FROM flights\nfeatures: {derive: {a: pp + 1}}\n",
        ":8: features.derive.a: The expression 'pp + 1' must use columns that exist once",
    ),
}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command takes SIGTERM over; give it back."""
    held = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, held)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was started: a JVM, a raylet and a child of ours all begin as a Popen."""
    seen: list[Any] = []
    real = subprocess.Popen.__init__

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        seen.append(arguments)
        real(self, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    return seen


@pytest.fixture
def sentence(
    capsys: pytest.CaptureFixture[str],
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., str]:
    """Type a command that must fail; return its one sentence."""
    monkeypatch.chdir(tmp_path)

    def type_it(*words: str, status: int = 2) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capsys.readouterr()
        assert ended.value.code == status, err
        assert out == ""
        said = err.splitlines()[-1]
        assert said.startswith("arclight: ")
        assert said.endswith((".", "?")) or "; run: " in said
        assert "Traceback" not in err
        assert all(c.isprintable() for line in err.splitlines() for c in line), err
        assert started == []
        return said

    return type_it


def write(folder: Path, more: str | bytes = "") -> Path:
    file = folder / "a.yaml"
    file.write_bytes(SMALL.encode() + (more if isinstance(more, bytes) else more.encode()))
    (folder / "data").mkdir(exist_ok=True)
    table = pa.table({"late": [True, False] * 50, "x": range(100)})
    pq.write_table(table, folder / "data" / "rows.parquet")
    return file


@pytest.mark.parametrize("command", ["check", "run", "submit"])
@pytest.mark.parametrize("case", WRONG_SPECS)
def test_a_wrong_spec(
    tmp_path: Path, sentence: Callable[..., str], command: str, case: str
) -> None:
    more, text = WRONG_SPECS[case]
    said = sentence(command, str(write(tmp_path, more)), "--json")
    assert text in said
    assert str(tmp_path / "a.yaml") in said
    assert not (tmp_path / ".arclight").exists()
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("command", ["check", "submit"])
@pytest.mark.parametrize("case", WRONG_COLUMNS)
def test_check_knows_the_columns(
    tmp_path: Path, sentence: Callable[..., str], command: str, case: str
) -> None:
    more, text = WRONG_COLUMNS[case]
    file = write(tmp_path, more)
    late = {} if case == "no such label" else {"late": [True, False] * 50}
    columns = {"price": [1.5] * 100, "x": range(100), "placed at": pa.array([0] * 100, TIME)}
    pq.write_table(pa.table({**columns, **late}), tmp_path / "data" / "rows.parquet")
    assert f"a.yaml{text}" in sentence(command, str(file))
    assert not (tmp_path / ".arclight").exists()


# what is typed, and what the sentence must hold
WRONG_WORDS = {
    "no command": (("chek", "a.yaml"), "No such command 'chek'. Did you mean 'check'?"),
    "no spec": (("run",), "Missing argument"),
    "no such option": (("run", "a.yaml", "--stor", "x"), "--stor"),
    "no number": (("serve", "flights", "--port", "http"), "'--port'"),
    "no such file": (("run", "none.yaml"), "spec 'none.yaml' does not exist"),
    "a folder": (("check", "data"), "spec 'data'"),
    "escapes in a path": (("check", "\x1b[31m\n.yaml"), "spec '\\x1b[31m\\n.yaml' does not exist"),
    "escapes in a command": (("\x1b[31m",), "'\\x1b[31m'"),
    "escapes in an option": (("run", "a.yaml", "--profile", "\x9b2J"), "profile '\\x9b2J'"),
    "no such profile": (("run", "a.yaml", "--profile", "locla"), "Did you mean 'local'?"),
    "no such profile file": (("up", "--profile", "none.yaml"), "profile 'none.yaml' does not"),
    "a name outside": (("down", "--profile", "../../etc"), "profile '../../etc' must be"),
    "no such model": (("score", "flights@1", "data", "out"), "model 'flights' does not exist"),
    "no reference": (("serve", "Flights!"), "'Flights!' must be NAME"),
    "no model to prove": (("verify", "flights"), "model 'flights' does not exist"),
    "no model to move": (("promote", "flights@1", "champion"), "model 'flights' does not exist"),
    "no model to move back": (("rollback", "flights"), "model 'flights'"),
    "nothing to list": (("models", "flights"), "model 'flights' does not exist"),
    "no dataset": (("datasets", "flights@2"), "dataset 'flights' does not exist"),
    "no run": (("runs", "flights-1"), "there is no run 'flights-1'"),
    "no job": (("logs", "flights-0123456789ab"), "job 'flights-0123456789ab' does not exist"),
    "no job's id": (("cancel", "../x"), "'../x' must be a job's id"),
    "nowhere to submit": (("submit", "a.yaml"), "must set ray.jobs_url"),
    "a bucket": (("models", "--store", "s3://b/x"), "object stores are not supported yet"),
}


@pytest.mark.parametrize("case", WRONG_WORDS)
def test_a_wrong_command(tmp_path: Path, sentence: Callable[..., str], case: str) -> None:
    write(tmp_path)
    (tmp_path / ".arclight").mkdir()
    words, text = WRONG_WORDS[case]
    assert text in sentence(*words)
    assert not list((tmp_path / ".arclight").rglob("*"))


@pytest.mark.parametrize(
    "words",
    [("models",), ("runs",), ("jobs",), ("score", "m@1", "in", "out"), ("serve", "m@1"),
     ("verify", "m"), ("promote", "m@1", "x"), ("rollback", "m"), ("sweep",),
     ("evaluate", "a.yaml")],
)  # fmt: skip
def test_a_command_that_reads_makes_no_store(
    tmp_path: Path, sentence: Callable[..., str], words: tuple[str, ...]
) -> None:
    write(tmp_path)
    assert f"there is no store '{tmp_path / '.arclight'}'" in sentence(*words)
    assert not (tmp_path / ".arclight").exists()


@pytest.mark.parametrize(
    ("output", "text"),
    [("a.yaml/out", "Not a directory"), ("a.yaml/b/out", "Not a directory"),
     ("dangling/out", "No such file"), ("/proc/arclight/out", "No such file"),
     ("x" * 300, "File name too long")],
)  # fmt: skip
def test_rows_that_cannot_be_written_are_a_sentence_before_spark_starts(
    tmp_path: Path, sentence: Callable[..., str], output: str, text: str
) -> None:
    file = write(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    said = sentence("rows", str(file), output)
    assert f"must be a folder that can be made, but {text}" in said
    assert "exists; nothing is overwritten" in sentence("rows", str(file), "dangling", status=3)


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_missing_source_is_named(
    tmp_path: Path, sentence: Callable[..., str], command: str
) -> None:
    file = write(tmp_path)
    (tmp_path / "data" / "rows.parquet").unlink()
    (tmp_path / "data").rmdir()
    said = sentence(command, str(file))
    assert f"a.yaml:4: source 'flights': '{tmp_path / 'data'}' does not exist; mend" in said


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_missing_file_of_sql_is_named(
    tmp_path: Path, sentence: Callable[..., str], command: str
) -> None:
    file = write(tmp_path, "  sql_file: none.sql\n")
    assert "a.yaml:7: etl.sql_file '" in sentence(command, str(file))


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_empty_folder_is_named(
    tmp_path: Path, sentence: Callable[..., str], command: str
) -> None:
    file = write(tmp_path)
    (tmp_path / "data" / "rows.parquet").unlink()
    assert "source 'flights': the folder '" in sentence(command, str(file), status=1)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) * 9 // 10], lambda _: b"", lambda _: b"a"]
)
def test_check_names_a_damaged_file(
    tmp_path: Path, sentence: Callable[..., str], damage: Callable[[bytes], bytes]
) -> None:
    file = write(tmp_path)
    part = tmp_path / "data" / "rows.parquet"
    part.write_bytes(damage(part.read_bytes()))
    assert f"'{part}'" in sentence("check", str(file), status=1)


@pytest.mark.parametrize("store", ["a.yaml", "a.yaml/store", "/proc/store"])
@pytest.mark.parametrize("words", [("run", "a.yaml"), ("train", "a.yaml")])
def test_j8_a_store_that_cannot_be_written(
    tmp_path: Path, sentence: Callable[..., str], words: tuple[str, ...], store: str
) -> None:
    before = write(tmp_path).read_bytes()
    said = sentence(*words, "--store", store, status=1)
    assert "must be a folder that can be written" in said
    assert "use --store FOLDER" in said
    assert (tmp_path / "a.yaml").read_bytes() == before


def test_j8_no_java(
    tmp_path: Path, sentence: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    said = sentence("run", "a.yaml", status=1)
    assert "Spark needs Java 17 or 21, but JAVA_HOME is not set" in said
    assert "run: " in said


def test_j8_a_full_disk(tmp_path: Path) -> None:
    """No file may grow: what a full disk is to a program."""
    write(tmp_path)
    (tmp_path / "store").mkdir()
    done = typed(tmp_path, "run", "a.yaml", "--store", "store", full=True)
    assert done.returncode == 1, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "File too large" in said
    assert "free space" in said
    assert "Traceback" not in done.stderr


def test_the_status_is_the_process_s_own(tmp_path: Path) -> None:
    write(tmp_path, WRONG_SPECS["unknown field"][0])
    done = typed(tmp_path, "run", "a.yaml", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("arclight: a.yaml:7: 'train.ronds' is not a field")
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", "data"]


def test_an_answer_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"reason": "\x9b2J é\u2028 \x1b[31m\n"}
    answer(body, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == body
    assert out.rstrip("\n").isascii()
    assert out.rstrip("\n").isprintable()
    assert err == ""


def typed(
    folder: Path, *words: str, full: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Type a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_fill if full else None,
    )


def _fill() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
