"""A job of a cluster whose command is chosen by the spec's name; everything else is real."""

from __future__ import annotations

import os
import sys

from jobs.entry import cluster_watch, find_job, supervise
from jobs.submissions import SHELF

PROGRAMS = {
    "ends-well": "print('hello from the cluster'); print('\\x1b[31mred')",
    "ends-badly": "import sys; print('no'); sys.exit(3)",
    "is-killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "tells-keys": "import os; print([os.environ.get(f'ARCLIGHT_{n}_KEYS', '') + "
    "os.environ.get(f'ARCLIGHT_{n}_KEY', '') for n in ('SIGNING', 'TRUSTED')])",
    "sleeps": "import time; print('begun', flush=True); time.sleep(600)",
}
ENTRYPOINT = "python -m tests.jobs.small_job"

if __name__ == "__main__":
    store, sent = find_job(os.environ)
    is_gone = cluster_watch(store.path(SHELF, sent.id))
    program = [sys.executable, "-c", PROGRAMS[sent.name]]
    sys.exit(supervise(store, sent.id, program, is_gone=is_gone))
