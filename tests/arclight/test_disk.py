from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.catalog import Catalog
from arclight.disk import disk_full
from arclight.errors import ArclightError
from arclight.store import open_store
from tests.arclight.made_records import make_manifest
from tests.full_disk import small_disk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence(number: int) -> None:
    told = disk_full(OSError(number, os.strerror(number), "a\x1b[31m"))
    assert told is not None
    assert told.message.startswith(r"the disk has no room for 'a\x1b[31m' (")
    assert told.message.endswith("free space, and run the same command again.")


def test_other_errors_are_left_alone() -> None:
    assert disk_full(OSError(errno.EACCES, "no")) is None
    assert disk_full(ValueError("no space left on device")) is None


def test_a_writer_of_parquet_says_it_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="64k") as disk:
        with pytest.raises(OSError, match="No space left") as caught:
            pq.write_table(pa.table({"x": range(100_000)}), disk.folder / "a.parquet")
        assert disk_full(caught.value) is not None


def test_a_version_on_a_full_disk_is_absent_and_the_same_command_publishes_it(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", size="1m") as disk:
        catalog = Catalog(open_store(disk.folder))
        first = catalog.publish_dataset(make_manifest(key="k1"))
        filler = disk.fill(leave_bytes=0)
        with pytest.raises(ArclightError, match=r"2\.json' must be written, but No space left"):
            catalog.publish_dataset(make_manifest(key="k2"))
        assert catalog.dataset("flights") == first
        versions = catalog.store.path("datasets", "flights", "versions")
        assert [path.name for path in versions.iterdir()] == ["1.json"]
        filler.unlink()
        assert catalog.publish_dataset(make_manifest(key="k2")).number == 2
        assert [m.number for m in catalog.datasets("flights")] == [2, 1]
