"""Two processes race for one name again and again: the proof that a store's link() is atomic."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from arclight.child import module_command, own_variables

RACE_TIMEOUT_S = 60


def race_for_names(folder: Path, rounds: int) -> list[int]:
    """Let two processes link the same names in `folder`; return how many won each.

    The processes meet at a barrier before each round, so that the calls really overlap.

    Raises:
        OSError: the folder cannot be written, or a racer failed.
    """
    racers = [_start_racer(folder.resolve(), name, rounds) for name in ("a", "b")]
    try:
        outputs = [racer.communicate(timeout=RACE_TIMEOUT_S)[0] for racer in racers]
    except subprocess.TimeoutExpired as error:
        raise OSError(None, f"no end within {RACE_TIMEOUT_S} s") from error
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    if any(racer.returncode for racer in racers):
        raise OSError(None, "link() is not supported")
    won = [[line == "1" for line in output.split()] for output in outputs]
    return [sum(results) for results in zip(*won, strict=True)]


def _start_racer(folder: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 -- this module itself, no shell
        module_command("cluster.linkrace", str(folder), name, str(rounds)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=own_variables(),
    )


def run_racer(folder: Path, name: str, rounds: int) -> list[bool]:
    """Link one own file to each round's name; return which rounds were won."""
    other = "b" if name == "a" else "a"
    own = folder / f"own-{name}"
    own.write_text(name, encoding="utf-8")
    won = []
    deadline = time.monotonic() + RACE_TIMEOUT_S
    for turn in range(rounds):
        (folder / f"at-{turn}-{name}").touch()
        rival = folder / f"at-{turn}-{other}"
        while not rival.exists():  # busy, because sleeping would order the two calls
            if time.monotonic() > deadline:
                raise TimeoutError(f"racer '{other}' did not come to round {turn}")
        won.append(_link(own, folder / f"name-{turn}"))
    return won


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def main() -> None:
    """Run one racer: folder, own name, rounds; print 1 or 0 a round."""
    folder, name, rounds = sys.argv[1:]
    for won in run_racer(Path(folder), name, int(rounds)):
        sys.stdout.write(f"{int(won)}\n")


if __name__ == "__main__":
    main()
