import pytest

from arclight.ledger import RowLedger, Stage
from arclight.pages.findings import Finding, find_warnings
from tests.arclight.pages.made_up import flights_manifest


@pytest.fixture(scope="module")
def found():
    return find_warnings(flights_manifest(wide=2))


@pytest.mark.parametrize(
    ("column", "weight", "text"),
    [
        ("always_one", "high", "one value"), ("never_known", "high", "no value"),
        ("leaked", "high", "label"), ("month", "high", "not as in train"),
        ("pressure", "low", "null"), ("tailnum", "high", "keeps none of its"),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(found, column, weight, text):
    mine = [finding for finding in found if finding.column == column]
    assert [finding.weight for finding in mine] == [weight]
    assert text in mine[0].text


def test_what_is_well_is_not_named(found):
    assert not {"temp", "carrier", "origin", "distance_miles", "late"} & {f.column for f in found}


def test_heavy_ones_come_first(found):
    weights = [finding.weight for finding in found]
    assert weights == sorted(weights, key=lambda weight: weight != "high")


def test_a_class_without_rows_is_named():
    manifest = flights_manifest(wide=0)
    empty = manifest.model_copy(update={"class_rows": {"test": {"0": 5000, "1": 0}}})
    assert any("no row of class '1'" in finding.text for finding in find_warnings(empty))


@pytest.mark.parametrize(("rows_in", "is_told"), [(99, True), (100, False)])
def test_a_large_loss_of_rows_is_told_with_its_first_reason(rows_in, is_told):
    stages = (
        Stage(name="label", rows_in=rows_in, rows_out=rows_in - 2, quarantined={"label_null": 2}),
        Stage(name="rows", rows_in=rows_in - 2, rows_out=rows_in - 5, quarantined={"derive:d": 3}),
    )
    ledger = RowLedger(stages=stages)
    ledger.prove()
    found = find_warnings(flights_manifest(wide=0).model_copy(update={"ledger": ledger}))
    text = "5.1 % of all rows are in quarantine, 3 of them for derive:d: is that meant?"
    assert (Finding("high", None, text) in found) == is_told
    assert any("in quarantine" in finding.text for finding in found) == is_told


def test_numbers_of_classes_are_no_leak():
    found = find_warnings(flights_manifest(task="multiclass", wide=0))
    assert "leaked" not in {finding.column for finding in found}


def test_a_class_that_a_split_has_not_is_said_whatever_the_task():
    manifest = flights_manifest().model_copy(
        update={
            "task": "multiclass",
            "class_rows": {"train": {"a": 5, "d": 2}, "valid": {"a": 3}, "test": {"a": 1, "d": 1}},
        }
    )
    found = [finding.text for finding in find_warnings(manifest)]
    assert "The valid split has no row of class 'd'." in found
    assert sum("has no row of class" in text for text in found) == 1
