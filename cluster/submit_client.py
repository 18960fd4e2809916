"""The job server of a Ray cluster, by its documented REST interface: submit, status, stop, logs.

Ray's own client is not used: it takes a second to import, sends the token through whatever proxy
the environment names, and tells a refused token from an unknown job only by an English text.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from arclight.errors import EngineError, RefusedError, SpecError, printable
from cluster.head_record import head_elsewhere, is_gone
from cluster.tokens import read_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.profiles import Profile

TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 << 20
Hint = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED", "ABSENT", "GONE"]
"""What a server says of a job; ABSENT: it knows none, GONE: the cluster has ended."""
HINTS: tuple[Hint, ...] = ("PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED", "ABSENT")


class SilentServerError(EngineError):
    """A job server cannot be reached."""


@dataclass(frozen=True)
class ServerJob:
    """A job as its server lists it, with the environment it was given.

    Attributes:
        is_submitted: whether the server can stop it; a driver that only connected has its own id.
    """

    id: str
    is_submitted: bool
    variables: Mapping[str, str]


@dataclass(frozen=True)
class JobServer:
    """A job server and the file with its token."""

    url: str
    token_path: Path
    timeout_s: float = TIMEOUT_S
    """How long it may be silent before it counts as out of reach."""

    @property
    def is_gone(self) -> bool:
        """Whether its cluster was started by `up`, in this home, and has ended."""
        return is_gone(self.token_path.parent, self.url)

    def refuse_down(self) -> None:
        """Refuse to ask a server that is known not to answer here.

        Raises:
            EngineError: its cluster has ended, or answers on another machine only.
        """
        if self.is_gone:
            raise EngineError(
                f"the cluster at {self.url} is down; `arclight up` starts one and names the "
                "profile that leads to it."
            )
        elsewhere = head_elsewhere(self.token_path.parent)
        if elsewhere is not None and elsewhere.jobs_url == self.url:
            raise EngineError(
                f"the cluster at {self.url} answers only on '{printable(elsewhere.host)}', the "
                "machine or container that it runs on; type this there."
            )

    def running(self) -> tuple[ServerJob, ...]:
        """Return what runs or waits to run on the cluster, whoever sent it.

        Raises:
            EngineError: the server cannot be reached or failed.
            RefusedError: the token is not the server's.
        """
        status, text = self._ask("GET", "/api/jobs/")
        if status != http.HTTPStatus.OK:
            raise self._failed(status, text)
        with self._reading():
            return tuple(
                ServerJob(
                    id=str(job.get("submission_id") or job.get("job_id")),
                    is_submitted=bool(job.get("submission_id")),
                    variables=dict((job.get("runtime_env") or {}).get("env_vars") or {}),
                )
                for job in json.loads(text)
                if job["status"] in ("PENDING", "RUNNING")
            )

    def submit(self, job: str, *, entrypoint: str, variables: Mapping[str, str]) -> bool:
        """Start a job under an id that the server takes only once.

        Args:
            job: the id.
            entrypoint: run by a shell on the cluster, so it must be a constant of ours.
            variables: environment of the job; ids and paths, never secrets.

        Returns:
            False when the server has a job of this id already.

        Raises:
            EngineError: the server cannot be reached or failed.
            RefusedError: the token is not the server's.
        """
        status, text = self._ask(
            "POST",
            "/api/jobs/",
            {
                "entrypoint": entrypoint,
                "submission_id": job,
                "runtime_env": {"env_vars": dict(variables)},
                "metadata": {},
            },
        )
        if status == http.HTTPStatus.OK:
            with self._reading():
                return bool(json.loads(text)["submission_id"])
        if "already exists" in text:
            return False
        raise self._failed(status, text)

    def hint(self, job: str) -> Hint:
        """Return what the server thinks of a job; after a failover it may be wrong.

        Raises:
            EngineError: the server cannot be reached or failed.
            RefusedError: the token is not the server's.
        """
        if self.is_gone:
            return "GONE"
        status, text = self._ask("GET", f"/api/jobs/{job}")
        if status == http.HTTPStatus.NOT_FOUND:
            return "ABSENT"
        if status != http.HTTPStatus.OK:
            raise self._failed(status, text)
        with self._reading():
            said = json.loads(text)["status"]
        return next((hint for hint in HINTS if hint == said), "ABSENT")

    def stop(self, job: str) -> bool:
        """Ask the server to stop a job; it returns before the job has ended.

        Returns:
            False when the server knows no such job.

        Raises:
            EngineError: the server cannot be reached or failed.
            RefusedError: the token is not the server's.
        """
        if self.is_gone:
            return False
        status, text = self._ask("POST", f"/api/jobs/{job}/stop")
        if status == http.HTTPStatus.NOT_FOUND:
            return False
        if status != http.HTTPStatus.OK:
            raise self._failed(status, text)
        return True

    def logs(self, job: str) -> str:
        """Return what the server kept of a job's output, empty if it knows no such job.

        Raises:
            EngineError: the server cannot be reached or failed.
            RefusedError: the token is not the server's.
        """
        if self.is_gone:
            return ""
        status, text = self._ask("GET", f"/api/jobs/{job}/logs")
        if status == http.HTTPStatus.NOT_FOUND:
            return ""
        if status != http.HTTPStatus.OK:
            raise self._failed(status, text)
        with self._reading():
            return str(json.loads(text)["logs"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        self.refuse_down()
        headers = {
            "Authorization": f"Bearer {read_token(self.token_path)}",
            "Content-Type": "application/json",
        }
        connection = self._connection()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES).decode(errors="replace")
        # of a host name whose parts are too long, or empty, Python says that it cannot encode it
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise SilentServerError(
                f"the job server at {self.url} cannot be reached ({printable(error)}); check "
                "that the cluster runs and that the profile's ray.jobs_url is right."
            ) from error
        finally:
            connection.close()
        if response.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise RefusedError(
                f"the job server at {self.url} does not take the token in "
                f"'{printable(self.token_path)}'; ask for the cluster's token and name its file "
                "as ray.token_path in the profile."
            )
        return response.status, text

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Refuse an answer that is none of a job server's, as a proxy's own page is."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"what answers at {self.url} must be a cluster's job server, but does not speak "
                "as one; check the profile's ray.jobs_url."
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        address = urllib.parse.urlsplit(self.url)
        host = str(address.hostname)
        if address.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                host, address.port, timeout=self.timeout_s, context=context
            )
        return http.client.HTTPConnection(host, address.port, timeout=self.timeout_s)

    def _failed(self, status: int, text: str) -> EngineError:
        lines = [line for line in text.strip().splitlines() if line.strip()]
        last = printable(lines[-1]) if lines else "no text"
        return EngineError(f"the job server at {self.url} answered {status} ({last}).")


def job_server(profile: Profile) -> JobServer:
    """Return the job server that a profile names.

    Raises:
        SpecError: the profile names none.
    """
    place = profile.ray
    if place.jobs_url is None or place.token_path is None:
        raise SpecError(
            f"profile '{profile.name}' must set ray.jobs_url and ray.token_path for jobs to be "
            "submitted; `arclight up` starts a cluster and writes such a profile."
        )
    return JobServer(url=place.jobs_url.rstrip("/"), token_path=Path(place.token_path))
