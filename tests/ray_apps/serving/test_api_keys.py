"""Keys: kept as hashes, with a role and an end, in a file of mode 0600."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from arclight.errors import ConflictError, IntegrityError, MissingError, RefusedError, SpecError
from ray_apps.serving.api_keys import ApiKey, ApiKeys, add_key, load_keys, make_key, remove_key

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(days=1)


def test_a_secret_finds_its_key_until_it_ends() -> None:
    key, secret = make_key("grafana", "viewer", expires=LATER)
    other, other_secret = make_key("batch", "admin", expires=LATER)
    keys = ApiKeys(keys=(key, other))
    assert keys.find(secret, NOW) == key
    assert keys.find(other_secret, NOW) == other
    assert keys.find(secret, LATER) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda s: "",
        lambda s: s[:-1],
        lambda s: s + "0",
        lambda s: s[:-1] + ("0" if s[-1] != "0" else "1"),
        lambda s: s.replace("grafana", "batch"),
        lambda s: s.upper(),
        lambda s: s + "\n",
        lambda s: s.removeprefix("arc_"),
        lambda s: "arc_grafana_" + "0" * 64,
    ],
)
def test_no_other_secret_does(change: object) -> None:
    key, secret = make_key("grafana", "viewer", expires=LATER)
    other, _ = make_key("batch", "admin", expires=LATER)
    assert ApiKeys(keys=(key, other)).find(change(secret), NOW) is None  # type: ignore[operator]


def test_the_file_is_private_and_holds_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key, secret = make_key("grafana", "viewer", expires=LATER)
    add_key(file, key)
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret.rpartition("_")[2] not in file.read_text()
    assert load_keys(file).keys == (key,)
    assert list(tmp_path.iterdir()) == [file]


def test_keys_are_added_and_removed_by_id(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    one, _ = make_key("one", "viewer", expires=LATER)
    two, _ = make_key("two", "admin", expires=LATER)
    add_key(file, one)
    add_key(file, two)
    with pytest.raises(ConflictError, match="'one' exists"):
        add_key(file, one)
    with pytest.raises(MissingError, match="Did you mean 'two'"):
        remove_key(file, "twoo")
    assert remove_key(file, "one").keys == (two,)
    assert load_keys(file).keys == (two,)


def test_a_key_that_is_removed_through_a_link_is_gone(tmp_path: Path) -> None:
    file, link = tmp_path / "keys.json", tmp_path / "link.json"
    link.symlink_to(file)
    for name in ("one", "two"):
        add_key(link, make_key(name, "viewer", expires=LATER)[0])
    remove_key(link, "one")
    assert link.is_symlink()
    assert [key.id for key in load_keys(file).keys] == ["two"]


def test_of_many_that_change_a_file_none_undoes_the_others(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = [make_key(f"k{i}", "viewer", expires=LATER)[0] for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: add_key(file, key), made))
        list(pool.map(lambda key: remove_key(file, key.id), made[::2]))
    assert {key.id for key in load_keys(file).keys} == {key.id for key in made[1::2]}


def test_a_loose_or_broken_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(MissingError):
        load_keys(file)
    add_key(file, make_key("one", "viewer", expires=LATER)[0])
    file.chmod(0o640)
    with pytest.raises(RefusedError, match="chmod 600"):
        load_keys(file)
    file.chmod(0o600)
    file.write_text("{}")
    with pytest.raises(IntegrityError, match="api-keys"):
        load_keys(file)
    with pytest.raises(SpecError, match="folder"):
        add_key(tmp_path / "no" / "keys.json", make_key("one", "viewer", expires=LATER)[0])


def test_ids_are_unique() -> None:
    key = ApiKey(id="a", role="viewer", sha256="0" * 64, expires="2030-01-01")
    with pytest.raises(ValueError, match="once"):
        ApiKeys(keys=(key, key))
