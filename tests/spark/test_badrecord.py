from __future__ import annotations

import pytest

from spark.badrecord import LONGEST, bad_record, describe_bad_rows, explain_rows

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


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (SAID.format("[7,null]"), "the file 'file:///x/a%20b.csv' holds a record that does not"),
        ("Caused by: EOF", "the file 'file:///x/a%20b.csv' cannot be read (FAILED_READ_FILE.X)."),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_plain_words(cause: str, sentence: str) -> None:
    said = "[FAILED_READ_FILE.X] Encountered error while reading file file:///x/a%20b.csv."
    text = describe_bad_rows(RuntimeError(f"{said} SQLSTATE: KD001\n{cause}"))
    assert text.startswith(sentence)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "[X] OSError: [Errno 28] No space left on device: '/s/part-0.parquet'",
            "for '/s/part-0.p",
        ),
        ("[X] Job aborted.\nCaused by: java.io.IOException: No space left on device", "(TMPDIR)"),
    ],
)
def test_a_full_disk_is_no_bad_row(said: str, sentence: str) -> None:
    error = explain_rows(RuntimeError(said), "the rows could not be read or computed")
    assert error.exit_status == 1
    assert sentence in error.message
    assert error.message.endswith("free space, and run the same command again.")
