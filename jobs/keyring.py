"""`arclight keys`: the API keys of a server, in a file of its own."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from arclight.errors import SpecError
from arclight.spec import parse_duration_s
from jobs.say import answer, say, say_table
from ray_apps.serving.api_keys import ROLES, add_key, load_keys, make_key, remove_key

if TYPE_CHECKING:
    from pathlib import Path

    from ray_apps.serving.api_keys import Role


def add_key_command(file: Path, name: str, *, role: str, expires: str, as_json: bool) -> None:
    """Make a key, keep its hash, and show its secret this once."""
    try:
        seconds = parse_duration_s(expires)
    except ValueError as error:
        raise SpecError(f"--expires: {error}") from error
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    try:
        key, secret = make_key(name, _role(role), expires=end)
    except ValueError as error:
        raise SpecError(
            f"key '{name}' must be named by lower-case letters, digits and '-'."
        ) from error
    add_key(file, key)
    say(f"keys: '{name}' may act as {role} until {key.expires}; its secret is shown only now:")
    if as_json:
        answer({"id": name, "role": role, "expires": key.expires, "secret": secret}, as_json=True)
    else:
        say(secret, style="bold")


def remove_key_command(file: Path, name: str, *, as_json: bool) -> None:
    """Take a key away; a server reads the file when it starts."""
    remove_key(file, name)
    say(f"keys: '{name}' is removed; restart the servers that use this file.")
    answer({"id": name, "removed": True}, as_json=as_json)


def list_keys_command(file: Path, *, as_json: bool) -> None:
    """List keys; there is no secret to show."""
    keys = load_keys(file).keys
    say_table(str(file), ("key", "role", "until"), [(k.id, k.role, k.expires) for k in keys])
    body = [{"id": k.id, "role": k.role, "expires": k.expires} for k in keys]
    answer({"keys": body}, as_json=as_json)


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise SpecError(f"--role must be one of {', '.join(ROLES)}, got '{text}'.")
