from __future__ import annotations

import pytest

from spark.badrecord import LONGEST, bad_record

SAID = "[X] Malformed records are detected in record parsing: {}. Parse Mode: FAILFAST. To"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (SAID.format("[null,1.0,b]"), "reads '[null,1.0,b]' (null"),
        (SAID.format("[a\nb\x1b[31m]"), "reads '[a\\nb\\x1b[31m]' (null"),
        (SAID.format("y" * 500), f"reads '{'y' * (LONGEST - 1)}…' (null"),
    ],
)
def test_a_bad_record_is_short_and_printable(said: str, shown: str) -> None:
    assert shown in bad_record(RuntimeError(said))


def test_another_failure_has_no_record() -> None:
    assert not bad_record(RuntimeError("[DIVIDE_BY_ZERO] Division by zero."))
