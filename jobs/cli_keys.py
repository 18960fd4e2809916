"""The commands on keys: those of a server's callers, and those that sign models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import JsonOption, ModelRef, StoreOption

keys_app = typer.Typer(help="API keys of a server; signing keys of models.")

KeyFile = Annotated[Path, typer.Argument(help="The file of keys.", show_default=False)]
KeyName = Annotated[str, typer.Argument(help="The key's name.", show_default=False)]


@keys_app.command("add")
def keys_add(
    file: KeyFile,
    name: KeyName,
    role: Annotated[str, typer.Option(help="viewer, submitter, deployer or admin.")] = "viewer",
    expires: Annotated[str, typer.Option(help="How long it holds, such as 90d.")] = "90d",
    as_json: JsonOption = False,
) -> None:
    """Make a key and show its secret once."""
    from jobs.keyring import add_key_command

    add_key_command(file, name, role=role, expires=expires, as_json=as_json)


@keys_app.command("remove")
def keys_remove(file: KeyFile, name: KeyName, as_json: JsonOption = False) -> None:
    """Take a key away."""
    from jobs.keyring import remove_key_command

    remove_key_command(file, name, as_json=as_json)


@keys_app.command("list")
def keys_list(file: KeyFile, as_json: JsonOption = False) -> None:
    """List keys, without their secrets."""
    from jobs.keyring import list_keys_command

    list_keys_command(file, as_json=as_json)


@keys_app.command("signing")
def keys_signing(
    file: Annotated[Path, typer.Argument(help="The private key to make.", show_default=False)],
    name: Annotated[str, typer.Option(help="What to call the key.")] = "models",
    as_json: JsonOption = False,
) -> None:
    """Make a key that signs models, and its public line beside it."""
    from jobs.keyring import make_signing_key_command

    make_signing_key_command(file, name, as_json=as_json)


@keys_app.command("sign")
def keys_sign(model: ModelRef, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Sign a version that is there, with the key ARCLIGHT_SIGNING_KEY names."""
    from jobs.keyring import sign_command

    sign_command(model, store=store, as_json=as_json)
