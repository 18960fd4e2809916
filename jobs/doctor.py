"""`arclight doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from arclight.errors import RefusedError
from cluster.doctor import examine, find_constraints
from cluster.profiles import load_profile
from jobs.runs import store_root
from jobs.say import answer, say, say_table


def doctor_command(*, store: str | None, profile: str, as_json: bool) -> None:
    """Examine this machine and print one line a finding."""
    root = store_root(store, Path.cwd())
    new = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        findings = examine(load_profile(profile), find_constraints(), root)
    finally:
        # a look leaves nothing: a store is made by the command that puts something into it
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
    say_table(
        "doctor",
        ("check", "state", "found", "what to do"),
        [(f.check, f.state, f.found, f.advice) for f in findings],
    )
    answer(
        {
            "findings": [
                {"check": f.check, "state": f.state, "found": f.found, "advice": f.advice}
                for f in findings
            ]
        },
        as_json=as_json,
    )
    failed = [f.check for f in findings if f.state == "fail"]
    if failed:
        raise RefusedError(
            f"{', '.join(failed)} must be mended before a run; see the advice above."
        )
    say("doctor: this machine can run Arclight.")
