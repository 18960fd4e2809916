"""The first load of a model file, in a process that may die: `python -m ray_apps.first_load`.

A damaged LightGBM file ends the process that parses it, and no `try` can catch that. So this
process takes the risk once, under limits, scores the golden rows, and says what it saw.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arclight.child import module_command, own_variables
from arclight.errors import ArclightError, IntegrityError, printable
from ray_apps.lean import lean_imports
from ray_apps.trainers import load_trainer

if TYPE_CHECKING:
    import numpy.typing as npt

    from arclight.plan import Matrix

MEMORY_BYTES = 8 << 30  # of addresses, not of memory: libraries reserve far more than they use
FILE_FACTOR = 40
CPU_S = 120
TIMEOUT_S = 180


@dataclass(frozen=True)
class Seen:
    """What the child saw in a model file."""

    features: int
    rounds: int
    scores: npt.NDArray[np.float64]


def load_in_child(trainer: str, path: Path, golden: Matrix) -> Seen:
    """Load a model file and score some rows in a throw-away process.

    Args:
        trainer: the name of the library.
        path: the model file; its bytes were checked.
        golden: rows to score, float32 [rows, features].

    Raises:
        IntegrityError: the file was refused, or the process that read it died or hung.
    """
    rows = io.BytesIO()
    np.save(rows, golden, allow_pickle=False)
    try:
        done = subprocess.run(  # noqa: S603 -- this interpreter, a list of arguments
            module_command("ray_apps.first_load", trainer, str(path)),
            input=rows.getvalue(),
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**own_variables(), "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(path, f"took more than {TIMEOUT_S} s") from error
    if done.returncode:
        raise _refused(path, _reason(done))
    try:
        answer = json.loads(done.stdout)
        scores = np.asarray(answer["scores"], dtype=np.float64)
        return Seen(features=answer["features"], rounds=answer["rounds"], scores=scores)
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, "gave no answer that can be read") from error


def _refused(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"model file '{path}' must load and score in a process of its own, but that process "
        f"{reason}; train again or publish another version."
    )


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"failed: {printable(lines[-1])}" if lines else f"ended with {done.returncode}"


def main(trainer: str, path: Path) -> None:
    """Load, score the rows on standard input, and print what was seen as JSON."""
    _limit(path)
    golden = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    with lean_imports():
        model = load_trainer(trainer).load(path, threads=1)
        scores = model.predict(golden) if len(golden) else np.empty(0)
    answer = {"features": model.features, "rounds": model.rounds, "scores": scores.tolist()}
    sys.stdout.write(json.dumps(answer))


def _limit(path: Path) -> None:
    """Bound memory and processor time, and leave no core file of somebody's data."""
    addresses = MEMORY_BYTES + FILE_FACTOR * path.stat().st_size
    for kind, value in (
        (resource.RLIMIT_AS, addresses),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        low = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (low, low))


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except ArclightError as problem:
        sys.exit(problem.message)
