"""`arclight serve`: models over HTTP, until stopped."""

from __future__ import annotations

import json
import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.spec import Replicas
from cluster.profiles import load_profile
from jobs.runs import store_for
from jobs.say import answer, say
from ray_apps.serving.api_keys import load_keys
from ray_apps.serving.deploy import Binding, pin, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.bundle import ModelBundle


def serve_command(
    refs: Sequence[str],
    *,
    store: str | None,
    profile: str,
    port: int,
    replicas: int,
    binding: Binding,
    as_json: bool,
) -> None:
    """Serve models until Ctrl-C or SIGTERM."""
    catalog = store_for(store, Path.cwd())
    bundles = pin(catalog, refs)
    place = load_profile(profile)
    names = ", ".join(bundle.ref for bundle in bundles)
    say(f"serve: checking {names} and starting; this takes about 20 s.")
    copies = Replicas(min=replicas, max=replicas)
    pinned = [bundle.ref for bundle in bundles]
    with served(
        catalog, pinned, profile=place, port=port, binding=binding, replicas=copies
    ) as url:
        say(f"serve: {names} at {url}; stop with Ctrl-C. Try:", style="green")
        for bundle in bundles:
            say(curl_line(url, bundle, has_keys=binding.keys is not None))
        answer({"url": url, "models": pinned}, as_json=as_json)
        threading.Event().wait()


def binding_of(
    *, host: str, keys: Path | None, hosts: Sequence[str], tls: tuple[Path | None, Path | None]
) -> Binding:
    """Return where to listen and whom to let in, as the options say it.

    Raises:
        MissingError: the file of keys does not exist.
        RefusedError: others can read it.
    """
    known = None if keys is None else load_keys(keys)
    cert, key = tls
    return Binding(
        host=host,
        keys=known,
        hosts=frozenset(name.lower() for name in (host, *hosts)),
        tls_cert=cert,
        tls_key=key,
    )


def curl_line(url: str, bundle: ModelBundle, *, has_keys: bool) -> str:
    """Return a command that asks the model for the score of one of its golden rows."""
    row: dict[str, Any] = dict(bundle.golden.rows[0]) if bundle.golden.rows else {}
    body = json.dumps({"rows": [row]}, ensure_ascii=False)
    key = "-H 'Authorization: Bearer KEY' " if has_keys else ""
    return (
        f"curl -s {url}/v1/models/{bundle.name}:predict -H 'Content-Type: application/json' "
        f"{key}-d {shlex.quote(body)}"
    )
