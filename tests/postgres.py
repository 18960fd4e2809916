"""A Postgres server of its own for a test, as a system has it installed; it is really killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

DEADLINE_S = 30.0
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
PASSWORD = "not for long"


def programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`, the newest one; None where there is none."""
    found = shutil.which("initdb")
    known = [p for place in PLACES for p in Path("/").glob(f"{place[1:]}/initdb")]
    newest = max(known, key=lambda p: str(p.parent), default=None)
    return newest.parent if newest else Path(found).parent if found else None


class Postgres:
    """A server on a port of this machine; a role `arclight` owns the database `trials`."""

    def __init__(self) -> None:
        where = programs()
        if where is None:
            pytest.skip("no Postgres server; on Debian and Ubuntu: apt-get install -y postgresql")
        self._programs = where
        # not below pytest's folder, which the server's own user must not enter
        self.folder = Path(tempfile.mkdtemp(prefix="arclight-postgres-"))
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://arclight@127.0.0.1:{self.port}/trials"
        self._data = self.folder / "data"
        self._call("initdb", "-D", self._data, "-U", "admin", "--no-sync", "--auth=trust")
        self.start()
        self.admin("CREATE ROLE arclight LOGIN PASSWORD %s", PASSWORD)
        self.admin("CREATE DATABASE trials OWNER arclight")
        rules = "host all admin 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self._data / "pg_hba.conf").write_text(rules)
        self.admin("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        words = [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]
        words += [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self.folder}",
        ]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen([*self._user, *words], stdout=log, stderr=log)
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.admin("SELECT 1")
            except Exception:
                if time.monotonic() > until or self._server.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End the server, by default at once and without a word to those who are connected."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, how)
        self._server.wait(DEADLINE_S)

    def close(self) -> None:
        """End the server and take away what it kept."""
        if self._server.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def admin(self, statement: str, *values: object, database: str = "postgres") -> list[tuple]:
        """Do something as the server's superuser."""
        import psycopg
        from psycopg import ClientCursor

        where = f"postgresql://admin@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(where, autocommit=True, cursor_factory=ClientCursor) as connection:
            found = connection.execute(statement, values or None)
            return found.fetchall() if found.description else []

    def _call(self, program: str, *words: object) -> None:
        subprocess.run(
            [*self._user, self._programs / program, *map(str, words)],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
