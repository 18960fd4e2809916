"""The options every command shares, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[Path, typer.Argument(help="The spec, a YAML file.", show_default=False)]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="ARCLIGHT_STORE",
        help="The store's folder; default: .arclight beside the spec, else in this folder.",
        show_default=False,
    ),
]
ProfileOption = Annotated[
    str, typer.Option("--profile", help="Where to run: a profile's name or file.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
AcceptSchema = Annotated[
    bool, typer.Option("--accept-schema", help="Take changed source columns as the new contract.")
]
NewStudy = Annotated[
    bool, typer.Option("--new-study", help="Begin another search, whatever there is of the last.")
]
MODEL_HELP = "NAME@VERSION or NAME@ALIAS; NAME alone is its newest version."
ModelRef = Annotated[str, typer.Argument(help=MODEL_HELP, show_default=False)]
