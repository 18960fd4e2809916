"""`arclight keys`: the API keys of a server, and the keys that sign models."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.catalog import Catalog
from arclight.errors import SpecError, printable
from arclight.spec_field import parse_duration_s
from arclight.store import find_store
from cluster.machine import look_at_machine
from jobs.say import answer, say, say_table
from jobs.signing import SIGNING_KEY, TRUSTED_KEYS, signer_here
from ray_apps.predictor import load_predictor
from ray_apps.serving.api_keys import ROLES, add_key, load_keys, make_key, remove_key
from ray_apps.signing_keys import make_signing_key

if TYPE_CHECKING:
    from ray_apps.serving.api_keys import Role


def add_key_command(file: Path, name: str, *, role: str, expires: str, as_json: bool) -> None:
    """Make a key, keep its hash, and show its secret this once."""
    try:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=parse_duration_s(expires))
    except ValueError as error:
        raise SpecError(f"--expires: {error}") from error
    except OverflowError as error:
        raise SpecError(
            f"--expires: '{printable(expires)}' must end before the year 10000; give a shorter "
            "time, such as 90d."
        ) from error
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


def make_signing_key_command(file: Path, name: str, *, as_json: bool) -> None:
    """Make a signing key and say what to trust."""
    key = make_signing_key(file, name)
    say(
        f"keys: signing key {key.id} ({name}) is in '{file}'; sign with {SIGNING_KEY}={file}, and "
        f"add this line to the file that {TRUSTED_KEYS} names where models are loaded:"
    )
    say(key.line, style="bold")
    answer({"id": key.id, "name": name, "public": key.line}, as_json=as_json)


def sign_command(ref: str, *, store: str | None, as_json: bool) -> None:
    """Sign a version that is there, after it was loaded and repeated its golden rows."""
    signer = signer_here()
    if signer is None:
        raise SpecError(
            f"variable {SIGNING_KEY} must name the key to sign with; make one with "
            "`arclight keys signing FILE`."
        )
    opened = find_store(store if store is not None else Path.cwd() / ".arclight")
    # trusts anything: what is signed now has no trusted signature yet
    catalog = Catalog(opened)
    bundle = catalog.model(ref)
    load_predictor(catalog, bundle, threads=look_at_machine(opened.root).cores)
    signature = catalog.sign_model(bundle, signer)
    say(f"keys: {bundle.ref} is signed by key {signature.key_id}.")
    answer(signature.model_dump(mode="json"), as_json=as_json)


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise SpecError(f"--role must be one of {', '.join(ROLES)}, got '{text}'.")
