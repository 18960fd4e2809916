"""Where a run's pages are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.pages.dataset_page import dataset_page
from arclight.pages.model_page import model_page

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import Evaluation, ModelBundle
    from arclight.decision import Decision
    from arclight.manifest import DatasetManifest
    from jobs.runs import Run


def write_dataset_page(run: Run, manifest: DatasetManifest) -> Path:
    """Write the profile of a dataset into the run's folder and return its path."""
    return _write(run.folder / "profile.html", dataset_page(manifest))


def write_model_page(
    run: Run,
    bundle: ModelBundle,
    evaluation: Evaluation,
    manifest: DatasetManifest,
    decision: Decision,
) -> Path:
    """Write the report of a model into the run's folder and return its path."""
    return _write(run.folder / "report.html", model_page(bundle, evaluation, manifest, decision))


def _write(path: Path, text: str) -> Path:
    whole = path.with_suffix(".tmp")
    whole.write_text(text, encoding="utf-8")
    whole.replace(path)
    return path
