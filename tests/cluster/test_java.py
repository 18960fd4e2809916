from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arclight.errors import EngineError
from cluster.java import ELSEWHERE, find_java, install_command

if TYPE_CHECKING:
    from pathlib import Path


def make_java(folder: Path, version: str) -> Path:
    """Write a program that answers like `java -XshowSettings:properties -version`."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        f'printf "    java.home = {folder}\\n    java.specification.version = {version}\\n" >&2\n'
    )
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", ["17", "21"])
def test_java_home_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "jdk", version)))
    java = find_java()
    assert (java.home, java.major) == (tmp_path / "jdk", int(version))


def test_path_is_searched_without_java_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(make_java(tmp_path / "jdk", "17") / "bin"))
    assert find_java().home == tmp_path / "jdk"


@pytest.mark.parametrize("version", ["1.8", "11", "16", "25"])
def test_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "jdk", version)))
    with pytest.raises(EngineError, match=f"version {version.removeprefix('1.')}; run: "):
        find_java()


def test_a_program_that_does_not_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="not a Java that answers; run: "):
        find_java()


def test_no_java_at_all_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"'java' is not on PATH; run: ") as caught:
        find_java()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "apt-get install -y openjdk-17-jre-headless"),
        ('ID=debian\nVERSION_ID="13"\n', "apt-get install -y openjdk-21-jre-headless"),
        ("ID=debian\n", "apt-get install -y openjdk-21-jre-headless"),  # the one to come
        ('ID=ubuntu\nVERSION_ID="26.04"\n', "apt-get install -y openjdk-17-jre-headless"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt-get install -y openjdk-17-jre-headless"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install -y java-17-openjdk-headless"),
        ("ID=alpine\n", "apk add openjdk17-jre-headless"),
        ("ID=plan9\n", ELSEWHERE),
        ("", ELSEWHERE),
    ],
)
def test_the_install_command_fits_the_system(tmp_path: Path, release: str, command: str) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    assert install_command(file) == command


def test_an_unknown_system_is_told_in_words(tmp_path: Path) -> None:
    assert install_command(tmp_path / "none") == ELSEWHERE
