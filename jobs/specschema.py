"""`arclight spec schema`: the JSON Schema of a spec, for editors."""

from __future__ import annotations

import json
import sys

from arclight.errors import SpecError
from arclight.spec import Spec


def print_schema(what: str) -> None:
    """Print the JSON Schema on standard output."""
    if what != "schema":
        raise SpecError(f"'arclight spec {what}' is not a command; 'arclight spec schema' is.")
    sys.stdout.write(json.dumps(Spec.model_json_schema(by_alias=True), indent=1) + "\n")
