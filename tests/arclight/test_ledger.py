from __future__ import annotations

import pytest

from arclight.errors import IntegrityError
from arclight.ledger import RowLedger, Stage, add_stages

READ = Stage(name="read", rows_in=1000, rows_out=1000)
CHECK = Stage(
    name="check", rows_in=1000, rows_out=980, quarantined={"a": 12, "b": 3}, dropped={"gap": 5}
)


def test_a_whole_ledger_is_proven():
    ledger = RowLedger(sources={"t": 1000}, stages=(READ, CHECK))
    ledger.prove()
    assert ledger.quarantined == 15
    assert RowLedger.model_validate_json(ledger.model_dump_json()) == ledger


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (CHECK.model_copy(update={"rows_out": 979}), "1 of 1,000 are in no account"),
        (CHECK.model_copy(update={"rows_out": 981}), "-1 of 1,000 are in no account"),
        (CHECK.model_copy(update={"dropped": {}}), "5 of 1,000"),
        (CHECK.model_copy(update={"quarantined": {"a": 13, "b": 3}}), "-1 of 1,000"),
    ],
)
def test_e7_a_stage_that_loses_or_makes_rows_is_named(stage: Stage, missing: str):
    with pytest.raises(IntegrityError, match=f"stage 'check' must account .* {missing}"):
        RowLedger(stages=(READ, stage)).prove()


def test_stages_that_do_not_meet_are_named():
    last = Stage(name="write", rows_in=981, rows_out=981)
    with pytest.raises(IntegrityError, match=r"stage 'write' must take the 980 rows .* took 981"):
        RowLedger(stages=(READ, CHECK, last)).prove()


def test_two_tasks_add_up():
    other = Stage(name="check", rows_in=10, rows_out=7, quarantined={"b": 1, "c": 2})
    (total,) = add_stages((CHECK,), (other,))
    assert total == Stage(
        name="check",
        rows_in=1010,
        rows_out=987,
        quarantined={"a": 12, "b": 4, "c": 2},
        dropped={"gap": 5},
    )
    assert total.missing == 0


def test_other_stages_do_not_add_up():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        add_stages((READ, CHECK), (READ,))
