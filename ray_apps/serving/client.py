"""A small client of our own endpoint: for `verify`, the demo and tests."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import TYPE_CHECKING, Any

from arclight.errors import EngineError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_S = 60.0


def predict_over_http(
    url: str, name: str, *, key: str | None = None
) -> Callable[[Any], list[Any]]:
    """Return a function that sends rows to a model's endpoint and returns its predictions.

    Args:
        url: where the server listens, such as http://127.0.0.1:8000.
        name: the model.
        key: an API key, when the server asks for one.
    """
    address = urllib.parse.urlsplit(url)
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"

    def predict(rows: Sequence[dict[str, Any]]) -> list[Any]:
        connection = http.client.HTTPConnection(
            str(address.hostname), address.port, timeout=TIMEOUT_S
        )
        try:
            body = json.dumps({"rows": list(rows)}, default=_iso)
            connection.request("POST", f"/v1/models/{name}:predict", body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise EngineError(f"{url} answered {response.status}: {printable(text.decode())}.")
        return list(json.loads(text)["predictions"])

    return predict


def _iso(value: Any) -> str:
    """Return a date or time as the endpoint takes it."""
    return str(value.isoformat())
