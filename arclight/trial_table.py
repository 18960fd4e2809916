"""The lines of a study's trials in a table of a Postgres server.

For searches whose command may end on one machine and go on from another: the server tells who
searches, where a lock of a shared file system would have to be trusted.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from arclight.errors import ArclightError, ConflictError, IntegrityError, SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

_T = TypeVar("_T")
_HOST = r"(?:\[[\w:.%-]+\]|[^][@:,/?#]*)(?::\d{0,5})?"
_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^@:/?#]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?:/[^?#]*)?(?:\?(?P<options>[^#]*))?"
)
"""As libpq reads it, which knows no fragment: what stands behind a `#` would be options."""
_LAST_PORT = 65_535
_MAYBE_SECRET = re.compile(r"//.*:.*@|password")
"""In what is not such a URL; it is not repeated then."""
OPTIONS = ("host", "port", "sslmode", "connect_timeout", "target_session_attrs")
"""Of a URL. Others name files and services of whoever reads it."""
PASSWORD = "PGPASSWORD"  # noqa: S105 -- the variable's name
PATIENCE_S = 60.0
"""How long who searches waits for a server that was there before."""
ANSWERS_S = 25.0
"""After which a server that takes words and says nothing is as one that is gone."""
_WAITS_S = (0.1, 2.0)
_HELD_BEFORE = "the server has not yet let go of the connection that was lost"
HOLDING = """\
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 25000; SET idle_session_timeout = 0"""
"""A machine that says nothing for 25 s holds nothing any more; a trial may take longer."""
ASKING = {
    "application_name": "arclight",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
TABLE = """\
CREATE TABLE IF NOT EXISTS arclight_trials (
  study text, line bigint, body bytea NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (study, line))"""


def check_url(url: str) -> str:
    """Return a server's URL.

    Raises:
        ValueError: it is none, or says what a spec must not.
    """
    rule = "must be the URL of a Postgres database such as postgresql://user@host/database"
    found = _URL.fullmatch(url)
    query = (found and found["options"]) or ""
    options = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if "password" in options if found else _MAYBE_SECRET.search(url):
        raise ValueError(
            "the URL must hold no password, since a spec is kept as it is; leave it out and "
            f"set {PASSWORD}, or write it into ~/.pgpass."
        )
    ports = re.findall(r":(\d+)(?=,|$)", found["hosts"]) if found else []
    is_one = found is not None and all(int(port) <= _LAST_PORT for port in ports)
    if not is_one or url != printable(url, limit=len(url)):
        raise ValueError(f"'{printable(url)}' {rule}.")
    if other := [name for name in options if name not in OPTIONS]:
        raise ValueError(
            f"the URL's option '{printable(other[0])}' must be one of {', '.join(OPTIONS)}; set "
            "others in the environment, as libpq reads it."
        )
    return url


@dataclass
class TrialTable:
    """The lines of one study; `held` by one process at a time.

    Args:
        url: of the server (`check_url`).
        study: its own id, which no other study of any store has.
    """

    url: str
    study: str
    _open: Connection | None = field(default=None, repr=False, compare=False)
    """Of the one who holds it; what the server lets others take once it is closed."""
    _lines: int = field(default=0, repr=False, compare=False)
    _session: int = field(default=0, repr=False, compare=False)
    """The server's number of the one that holds it, or held it last."""
    _away_s: float | None = field(default=None, repr=False, compare=False)
    """Since when the server is waited for."""

    def __str__(self) -> str:
        return f"study {self.study} in {self.url}"

    def after(self, place: int) -> tuple[list[bytes], int]:
        """Return the lines behind a place, and the place behind them.

        Args:
            place: a number of lines; 0: the beginning.

        Raises:
            ArclightError: the server is not there, or refuses.
            IntegrityError: a line between others is gone.
        """
        asked = "SELECT line, body FROM arclight_trials WHERE study = %s AND line > %s ORDER BY 1"

        def read(connection: Connection) -> list[tuple[Any, ...]]:
            if not _is_there(connection):
                return []
            return connection.execute(asked, (self.study, place)).fetchall()

        with _told(self.url), _closed(connect(self.url)) as connection, _answering(connection):
            rows = read(connection)
        for number, (line, _) in enumerate(rows, start=place + 1):
            if line != number:
                raise IntegrityError(
                    f"line {number} of {self} must be there, since {line} is; restore the table "
                    "from a backup or begin anew with --new-study."
                )
        return [bytes(body) for _, body in rows], place + len(rows)

    def append(self, line: bytes, *, is_lasting: bool) -> None:  # noqa: ARG002 -- it always lasts
        """Append a line; the server has it when this returns.

        Waits for a server that was there before (`PATIENCE_S`).

        Raises:
            ConflictError: another process holds the study now.
            IntegrityError: the server came back without lines that it had.
            ArclightError: it is not there, or refuses.
        """
        if self._open is None:
            with self.held() as is_mine:
                if not is_mine:
                    raise self._taken()
                self.append(line, is_lasting=True)
            return
        number = self._lines + 1

        def write(connection: Connection) -> None:
            told = connection.execute(
                "INSERT INTO arclight_trials (study, line, body) VALUES (%s, %s, %s) "
                "ON CONFLICT (study, line) DO NOTHING",
                (self.study, number, line),
            )
            if told.rowcount == 0 and self._body_of(connection, number) != line:
                raise self._taken()
            # the same line: it was taken just before a connection was lost

        self._do(write)
        self._lines = number

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the study for the length of a block; yields whether nobody else holds it.

        Raises:
            ArclightError: the server is not there, or refuses.
        """
        with _told(self.url):
            found = connect(self.url)
            try:
                with _answering(found):
                    _make_table(found)
                    is_mine = self._take(found)
            except BaseException:
                found.close()
                raise
        self._open, self._away_s = (found if is_mine else None), None
        try:
            yield is_mine
        finally:
            _let_go(self._open or found)
            self._open = None

    def _do(self, work: Callable[[Connection], _T]) -> _T:
        """Do something as the one who holds the study, again where the connection was lost.

        The others who wait for the same server do not wait once more each.
        """
        import psycopg  # noqa: PLC0415 -- an extra

        begun, wait = time.monotonic(), _WAITS_S[0]
        while True:
            with _told(self.url):
                try:
                    connection = self._held_connection()
                    with _answering(connection):
                        done = work(connection)
                except psycopg.OperationalError:
                    is_lost = self._open is None or self._open.closed
                    self._away_s = begun if self._away_s is None else self._away_s
                    if not is_lost or time.monotonic() > self._away_s + PATIENCE_S:
                        raise
                else:
                    self._away_s = None
                    return done
            time.sleep(wait)
            wait = min(2 * wait, _WAITS_S[1])

    def _held_connection(self) -> Connection:
        """Return the connection that holds the study; another one where it was lost.

        Raises:
            ConflictError: another process took the study meanwhile.
            IntegrityError: lines are gone, as after a failover to a server that had not all.
            psycopg.OperationalError: the server does not know yet that the lost one is lost.
            psycopg.Error: it is not there, or refuses.
        """
        assert self._open is not None
        if not self._open.closed:
            return self._open
        before, found = self._session, connect(self.url)
        try:
            with _answering(found):
                self._take_again(found, before)
        except BaseException:
            found.close()
            raise
        self._open = found
        return found

    def _take_again(self, connection: Connection, before: int) -> None:
        """Take what the session of that number held, with the lines that it had."""
        import psycopg  # noqa: PLC0415 -- an extra

        if not self._take(connection, lines=self._lines):
            is_free_soon = self._holder(connection) in (0, before)
            raise psycopg.OperationalError(_HELD_BEFORE) if is_free_soon else self._taken()
        if (there := self._last_line(connection)) < self._lines:
            raise IntegrityError(
                f"{self} must have {self._lines:,} lines, but has {there:,} since the server "
                "came back; the same command goes on from those."
            )

    def _take(self, connection: Connection, lines: int | None = None) -> bool:
        """Take the study if nobody has it, with the lines that it has, or is known to have."""
        connection.execute(HOLDING)
        asked = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
        (is_mine,) = connection.execute(asked, (self.study,)).fetchone() or (False,)
        if is_mine:  # asked for: a pooler tells its clients numbers of its own
            (self._session,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        if is_mine and lines is None:
            self._lines = self._last_line(connection)
        return bool(is_mine)

    def _last_line(self, connection: Connection) -> int:
        asked = "SELECT coalesce(max(line), 0) FROM arclight_trials WHERE study = %s"
        (last,) = connection.execute(asked, (self.study,)).fetchone() or (0,)
        return int(last)

    def _holder(self, connection: Connection) -> int:
        """Return the server's number of the session that holds the study; 0: none does."""
        asked = (
            "SELECT pid FROM pg_locks JOIN pg_database ON oid = database AND "
            "datname = current_database() WHERE locktype = 'advisory' AND granted AND "
            "objsubid = 1 AND classid::bigint << 32 | objid::bigint = hashtextextended(%s, 0)"
        )
        (session,) = connection.execute(asked, (self.study,)).fetchone() or (0,)
        return int(session)

    def _body_of(self, connection: Connection, number: int) -> bytes:
        asked = "SELECT body FROM arclight_trials WHERE study = %s AND line = %s"
        (body,) = connection.execute(asked, (self.study, number)).fetchone() or (b"",)
        return bytes(body)

    def _taken(self) -> ConflictError:
        return ConflictError(
            f"tune: {self} is being searched by another command by now; wait for it, or stop it."
        )


def connect(url: str) -> Connection:
    """Connect to a server; to one of another machine only as who it proves to be.

    Raises:
        SpecError: the package is not installed.
        psycopg.Error: the server is not there, or refuses.
    """
    try:
        import psycopg  # noqa: PLC0415 -- an extra
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError as error:
        raise SpecError(
            "tune.storage: a Postgres server needs psycopg; run `pip install "
            "'arclight[postgres]'`, or leave tune.storage out."
        ) from error
    given = conninfo_to_dict(url)
    asked: dict[str, Any] = {name: value for name, value in ASKING.items() if name not in given}
    if "sslmode" not in given and "PGSSLMODE" not in os.environ:
        hosts = str(given.get("host") or os.environ.get("PGHOST", "")).split(",")
        if not all(_is_here(host) for host in hosts):
            asked["sslmode"] = "verify-full"
    return psycopg.connect(url, autocommit=True, **asked)


@contextmanager
def password_as(given: str | None) -> Iterator[None]:
    """Have the password of whoever asked for a search, in a process that Ray started."""
    before = os.environ.get(PASSWORD)
    if given is None:
        yield
        return
    os.environ[PASSWORD] = given
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(PASSWORD, None)
        else:
            os.environ[PASSWORD] = before


def reach(url: str) -> None:
    """Connect once: nothing is begun for a server that is not there.

    Raises:
        SpecError: the package is not installed.
        ArclightError: the server is not there, or refuses.
    """
    with _told(url), _closed(connect(url)):
        pass


# --------------------------------------------------------------------------------- inside


def _is_here(host: str) -> bool:
    return host in ("", "localhost", "127.0.0.1", "::1") or host.startswith(("/", "@"))


def _is_there(connection: Connection) -> bool:
    (name,) = connection.execute("SELECT to_regclass('arclight_trials')").fetchone() or (None,)
    return name is not None


def _make_table(connection: Connection) -> None:
    """Make the table if it is not there; two who do it at once do it one after the other."""
    if _is_there(connection):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('arclight_trials', 0))")
        connection.execute(TABLE)


@contextmanager
def _closed(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _answering(connection: Connection) -> Iterator[None]:
    """Cut a connection on which a block hears nothing for long: the system sees no loss there."""
    timer = threading.Timer(ANSWERS_S, _cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Connection) -> None:
    import psycopg  # noqa: PLC0415 -- an extra

    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as ours,
    ):
        ours.shutdown(socket.SHUT_RDWR)


def _let_go(connection: Connection) -> None:
    """Close what may hold a study; it is free when this returns, if the server still answers.

    Closed alone, the server or a pooler before it lets go some time afterwards.
    """
    import psycopg  # noqa: PLC0415 -- an extra

    with _closed(connection), suppress(psycopg.Error), _answering(connection):
        connection.execute("SELECT pg_advisory_unlock_all()")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what the server or its library says into one of our errors."""
    try:
        import psycopg  # noqa: PLC0415 -- an extra
    except ImportError:
        yield  # `connect` tells
        return
    try:
        yield
    except psycopg.Error as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        said = printable(said or type(error).__name__).rstrip(".")
        raise ArclightError(
            f"tune.storage: the trials must be kept in {printable(url)}, but: {said}; mend that, "
            "the same command goes on."
        ) from error
