from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.store import find_store
from jobs.guard import INTERRUPTED, guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fail(error: Exception) -> None:
    raise error


def test_a_full_disk_is_no_defect_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/part-0.parquet")
    assert guarded(lambda: fail(error)) == 1
    said = capsys.readouterr().err
    assert said == (
        "arclight: the disk has no room for '/x/part-0.parquet' (No space left on device); "
        "nothing was published: free space, and run the same command again.\n"
    )


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_of_another_user_is_no_defect_of_ours(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: fail(OSError(number, "No", "/x/store/models"))) == 1
    assert capsys.readouterr().err == (
        "arclight: '/x/store/models' must be open to this user, but No; mend its rights, or run "
        "the same command as a user who has them.\n"
    )


def test_a_name_that_is_too_long_is_no_defect_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: find_store(tmp_path / ("x" * 300))) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "must be a name that a file can have, but File name too long; give a" in said


@pytest.mark.parametrize(
    "use",
    [
        lambda path: json.dumps({"a": 1, "store": path}, ensure_ascii=False).encode(),
        lambda path: pq.ParquetWriter(path, pa.schema([])),
    ],
)
def test_a_name_whose_bytes_are_not_utf8_is_no_defect_of_ours(
    capsys: pytest.CaptureFixture[str], use: Callable[[str], object]
) -> None:
    assert guarded(lambda: use(os.fsdecode(b"/x/caf\xe9/store"))) == 2
    assert capsys.readouterr().err == (
        "arclight: '/x/caf\\udce9/store' must be a name in UTF-8, which alone engines and records "
        "take; rename it, or give another.\n"
    )


def test_what_may_not_be_done_to_something_else_is_shown_with_its_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert guarded(lambda: fail(PermissionError(errno.EPERM, "No"))) == 1
    assert "Traceback" in capsys.readouterr().err


class WordlessError(Exception):
    def __str__(self) -> str:
        raise ConnectionError("the gateway is gone")


def test_an_error_whose_words_are_gone_is_still_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert guarded(lambda: fail(WordlessError())) == 1
    said = capsys.readouterr().err
    assert said.endswith("arclight: WordlessError: its words are lost; please report it.\n")
    assert said.count("Traceback") == 1


class _Slow:
    """What a class is asked to name while an interrupt comes."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_while_a_class_is_made_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: type("Imported", (), {"field": _Slow()})) == INTERRUPTED
    assert capsys.readouterr().err == "arclight: interrupted; the same command goes on.\n"


def test_what_nobody_foresaw_is_shown_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: fail(KeyError("\x1b[31m"))) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("please report it.\n")
    assert "\x1b" not in said
