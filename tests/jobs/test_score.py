"""What `arclight score` says of rows that could not be scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arclight.catalog import Catalog
from arclight.store import open_store
from jobs import cli, score
from ray_apps.score import ScoreResult
from tests.arclight.made_records import make_bundle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ({}, "."),
        ({"derive:d": 2_000}, ", 2,000 rejected (derive:d 2,000)."),
        (
            {"derive:a": 7, "derive:b": 9, "infinite:c": 2_000, "infinite:e": 8, "not_utf8:f": 1},
            ", 2,000 rejected (infinite:c 2,000, derive:b 9, infinite:e 8 and 2 more).",
        ),
    ],
)
def test_rejected_rows_are_said_with_their_reasons(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reasons: dict[str, int],
    said: str,
):
    Catalog(open_store(tmp_path)).publish_model(make_bundle())
    result = ScoreResult(
        model="flights@1",
        model_digest="m",
        source="in",
        rows_in=5_000,
        rows_scored=3_000,
        rows_rejected=2_000 if reasons else 0,
        reasons=reasons,
        files=(),
        rejected=(),
        made_at="2026-01-01T00:00:00+00:00",
    )
    monkeypatch.setattr(score, "score_folder", lambda *_, **__: result)
    words = ["score", "flights@1", "in", "out", "--store", str(tmp_path)]
    assert cli.guarded(lambda: cli.app(words, standalone_mode=False)) == 0
    assert f"score: 3,000 rows by flights@1 in out{said}\n" in capsys.readouterr().err
