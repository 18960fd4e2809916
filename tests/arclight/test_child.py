"""A process of our own code runs that code, wherever the command was typed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from arclight.child import ROOT, module_command, own_variables

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("arclight", "cluster", "spark", "ray_apps", "jobs")


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder whose files have the names of modules."""
    (tmp_path / "jobs").mkdir()
    for name in ("jobs/__init__.py", "jobs/cli.py", "yaml.py", "typer.py"):
        (tmp_path / name).write_text("raise SystemExit('taken from the current folder')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", [None, "", os.pathsep])
def test_no_module_is_taken_from_the_current_folder(strange, monkeypatch, path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    done = subprocess.run(
        module_command("jobs.cli", "--help"),
        env=own_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_what_is_on_the_path_stays_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/a", str(ROOT), "/b"]))
    assert own_variables()["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/a", "/b"]


def test_every_module_is_run_this_way():
    sources = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    assert [p.name for p in sources if '"-m"' in p.read_text(encoding="utf-8")] == ["child.py"]
