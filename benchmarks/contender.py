"""A contender as the harness sees it: a fresh process on the race's cores, asked line by line."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.proctree import end_tree, look, tell, tree_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.proctree import Seen

REPOSITORY = Path(__file__).resolve().parent.parent
ANSWER_S = 3600.0
QUIT_S = 60.0
BREAK_S = 5.0


class ContenderError(Exception):
    """A contender did not start, failed, or did not answer; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side of a race.

    Attributes:
        name: as the results call it.
        module: has `open_side(params)`, a context that gives a `Side`.
        params: plain values for `open_side`.
        env: variables set before the process starts, on top of the thread counts.
        note: how it is set up, for people.
        sleeps: whether it is stopped while others work, with all it has started. Idle clusters of
            Ray take a quarter of a core; a Spark or Dask that slept believes its workers lost.
        rounds: at most, of one that takes minutes; None as many as the others.
    """

    name: str
    module: str
    params: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    note: str = ""
    sleeps: bool = True
    rounds: int | None = None


class Running:
    """A contender's process; a context that leaves nothing of its tree behind."""

    def __init__(self, contender: Contender, cores: Sequence[int], log: Path) -> None:
        self.contender = contender
        self._cores, self._log = cores, log
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._asleep: list[Seen] = []

    def __enter__(self) -> Self:
        threads = str(len(self._cores))
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
        environment = {**os.environ, **dict.fromkeys(counts, threads), **self.contender.env}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the harness alone, which ends the tree
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.guard", str(self.pid)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._say(
                {
                    "module": self.contender.module,
                    "params": self.contender.params,
                    "cores": list(self._cores),
                }
            )
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        self.wake()
        tree = tree_of(self.pid, look())
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            # it closes its engine and ends; in the middle of a round it would not notice
            self._process.wait(QUIT_S if kind is None else BREAK_S)
        except subprocess.TimeoutExpired:
            tree = tree_of(self.pid, look()) or tree
        end_tree(tree)
        self._process.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        return self._process.pid

    def sleep(self) -> None:
        """Stop everything it has started, until `wake`."""
        if not self.contender.sleeps:
            return
        before = -1
        while len(self._asleep) != before:  # one more look, for what was started meanwhile
            before, self._asleep = len(self._asleep), tree_of(self.pid, look())
            tell(self._asleep, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        tell(self._asleep[::-1], signal.SIGCONT)  # a parent last: it sees its children awake
        self._asleep = []

    def run(self, number: int) -> float:
        """Do round `number` (0 is the warm-up) and return its seconds, call to return.

        Raises:
            ContenderError: it failed or did not answer.
        """
        self._say({"do": "run", "number": number})
        return float(self._answer()["seconds"])

    def facts(self) -> dict[str, Any]:
        """Return what the quality gate compares, of the last round.

        Raises:
            ContenderError: it failed or did not answer.
        """
        self._say({"do": "facts"})
        return dict(self._answer()["facts"])

    def _say(self, body: dict[str, Any]) -> None:
        stream = self._process.stdin
        if stream is None:
            raise ContenderError("its input is closed")
        try:
            stream.write((json.dumps(body) + "\n").encode())
            stream.flush()
        except BrokenPipeError as error:
            raise ContenderError(self._last_words()) from error

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise ContenderError(f"it did not answer within {ANSWER_S:.0f} s") from None
        if line is None:
            raise ContenderError(self._last_words())
        body: dict[str, Any] = json.loads(line)
        if "error" in body:
            raise ContenderError(body["error"])
        return body

    def _listen(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line.decode())
        self._answers.put(None)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended: {lines[-1][:300] if lines else 'no output'}"
