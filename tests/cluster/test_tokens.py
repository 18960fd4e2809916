from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from arclight.errors import IntegrityError, MissingError, RefusedError
from cluster.tokens import create_secret, create_token, private_folder, read_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_x15_a_token_is_0600_and_its_folder_0700_whatever_the_umask(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "secrets")
    path = create_token(folder / "token")
    assert (mode(folder), mode(path)) == (0o700, 0o600)
    assert len(read_token(path)) == 64


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = create_token(tmp_path / "token")
    before = read_token(path)
    with pytest.raises(FileExistsError):
        create_token(path)
    assert read_token(path) == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_token(tmp_path / "token")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, bits: int) -> None:
    path = create_token(tmp_path / "token")
    path.chmod(bits)
    with pytest.raises(RefusedError, match=f"got mode {bits:04o}; run `chmod 600`"):
        read_token(path)


def test_a_missing_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be read"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "short", "x" * 5000, "has a newline\nin the middle of it"])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = create_secret(tmp_path / "token", text)
    with pytest.raises(IntegrityError, match="must hold one token"):
        read_token(path)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(RefusedError, match="not a link"):
        private_folder(tmp_path / "link")


def test_an_open_folder_of_ours_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    assert mode(private_folder(tmp_path / "open")) == 0o700
