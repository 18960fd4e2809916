"""Finding a Java that this Spark runs on, before any JVM of ours starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from arclight.errors import EngineError, printable

SUPPORTED = (17, 21)
VERSION_TIMEOUT_S = 20
OS_RELEASE = Path("/etc/os-release")
INSTALL = {
    "debian": "apt-get install -y openjdk-17-jre-headless",
    "ubuntu": "apt-get install -y openjdk-17-jre-headless",
    "fedora": "dnf install -y java-21-openjdk-headless",
    "rhel": "dnf install -y java-17-openjdk-headless",
    "alpine": "apk add openjdk17-jre-headless",
    "arch": "pacman -S --noconfirm jre17-openjdk-headless",
    "suse": "zypper install -y java-17-openjdk-headless",
}
FIRST_WITH_21 = 13
"""Debian's release, and those to come: it has Java 21 and no 17, the one before the other way."""
ELSEWHERE = "install a Java 17 runtime and set JAVA_HOME to its folder"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that was asked for its version."""

    home: Path
    major: int


def find_java() -> Java:
    """Return the Java of JAVA_HOME, or else the one on PATH.

    Raises:
        EngineError: there is none, or its version is not one Spark runs on; the sentence has
            the command that installs one on this system.
    """
    program = _program()
    if program is None:
        raise EngineError(
            f"Spark needs Java {_wanted()}, but JAVA_HOME is not set and 'java' is not on PATH; "
            f"run: {install_command()}"
        )
    java = ask_java(program)
    if java is None or java.major not in SUPPORTED:
        answer = "not a Java that answers" if java is None else f"version {java.major}"
        raise EngineError(
            f"Spark needs Java {_wanted()}, but '{printable(program)}' is {answer}; "
            f"run: {install_command()}, or set JAVA_HOME."
        )
    return java


def ask_java(program: Path) -> Java | None:
    """Ask a `java` program for its home and version; None when it does not answer.

    The program may be a link or a script of a version switcher, so its path says nothing.
    """
    try:
        answer = subprocess.run(  # noqa: S603 -- the user's own JAVA_HOME or PATH, no shell
            [program, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    home = re.search(r"^\s*java\.home = (.+)$", answer.stderr, re.MULTILINE)
    major = re.search(
        r"^\s*java\.specification\.version = (?:1\.)?(\d+)", answer.stderr, re.MULTILINE
    )
    if home is None or major is None:
        return None
    return Java(home=Path(home.group(1).strip()), major=int(major.group(1)))


def install_command(release: Path = OS_RELEASE) -> str:
    """Return the one command that installs a fitting Java on this system."""
    try:
        text = release.read_text(encoding="utf-8")
    except OSError:
        return ELSEWHERE
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    names = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    found = next((INSTALL[name] for name in names if name in INSTALL), ELSEWHERE)
    release_number = fields.get("VERSION_ID", "").strip('"').partition(".")[0]
    is_newer = not release_number.isdigit() or int(release_number) >= FIRST_WITH_21
    return found.replace("17", "21") if names[:1] == ["debian"] and is_newer else found


def _program() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    if home:
        return Path(home) / "bin" / "java"
    found = shutil.which("java")
    return Path(found) if found else None


def _wanted() -> str:
    return " or ".join(str(version) for version in SUPPORTED)


def main() -> None:
    """Exit with the sentence that says how to get a fitting Java, if there is none."""
    try:
        find_java()
    except EngineError as error:
        sys.exit(f"java: {error}")


if __name__ == "__main__":
    main()
