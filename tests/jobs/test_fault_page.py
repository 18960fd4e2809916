"""docs/faults.md promises nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
NIGHTLY = re.compile(r"^@pytest\.mark\.fault|^pytestmark.*mark\.fault", re.MULTILINE)
LINE = re.compile(r"`([\w/]+\.py)::(test_\w+)`( \(nightly\))?")


def decorators_of(file: Path, name: str) -> str:
    """Return what stands between the function before and this one, and the file's own marks."""
    text = file.read_text()
    above = text[: text.index(f"def {name}(")]
    return above.rpartition("\n\n\n")[2]


def test_each_fault_names_a_test_that_runs_when_the_page_says() -> None:
    found = LINE.findall(PAGE.read_text())
    assert len(found) > 60
    for path, name, nightly in found:
        file = TESTS / path
        assert f"def {name}(" in file.read_text(), f"{path}::{name} is not there"
        is_nightly = NIGHTLY.search(decorators_of(file, name)) is not None
        assert is_nightly == bool(nightly), f"{path}::{name}: nightly or not?"


def test_each_row_of_its_tables_names_one() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    bare = [row for row in rows if not LINE.search(row) and not row.startswith("| what goes")]
    assert bare == []
