"""What is wrong with a request, as the answer says it: RFC 9457 `application/problem+json`."""

from __future__ import annotations

from typing import Any

import orjson

PROBLEM_JSON = b"application/problem+json"
TITLES: dict[str, tuple[int, str]] = {
    "not-json": (400, "The body is not strict JSON"),
    "not-arrow": (400, "The body is not an Arrow stream"),
    "bad-request": (400, "The request is not well formed"),
    "no-key": (401, "A valid API key is needed"),
    "role": (403, "The API key's role does not allow this"),
    "host": (403, "This host or origin is not served"),
    "no-route": (404, "There is nothing here"),
    "no-model": (404, "This model is not served here"),
    "method": (405, "This method is not allowed"),
    "too-slow": (408, "The body came too slowly"),
    "too-large": (413, "The request is too large"),
    "media-type": (415, "This content type is not read here"),
    "fields": (422, "Fields are wrong"),
    "rows": (422, "Rows cannot be scored"),
    "not-finite": (500, "The model gave a score that is not a number"),
    "internal": (500, "The server failed"),
    "overloaded": (503, "Too many requests at once"),
    "away": (503, "The server starts or ends"),
}


class Problem(Exception):
    """A request that is refused, by a slug of `TITLES`, a sentence and the fields at fault."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: tuple[dict[str, Any], ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.status, self.title = TITLES[slug]
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def __reduce__(self) -> tuple[type[Problem], tuple[str, str]]:
        return (type(self), (self.slug, self.detail))

    def body(self, request_id: str) -> bytes:
        """Return the document; `error` repeats the sentence for Open Inference clients."""
        return orjson.dumps(
            {
                "type": f"urn:arclight:problem:{self.slug}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "errors": self.errors,
                "request_id": request_id,
                "error": self.detail,
            }
        )
