"""The process that holds a Ray head: `python -m cluster.head FOLDER`, until SIGTERM.

It is started by `cluster.launch`, which has set every variable Ray reads when it is imported.
`ray start` is not used: it always opens the Ray Client port, a fixed agent port, and `ray stop`
ends other clusters of the host too.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from ray._private.node import Node
from ray._private.parameter import RayParams

from arclight.store import held_file
from cluster.head_record import HEAD, REQUEST, Head, HeadRequest, birth_of
from cluster.tokens import create_secret

LOOPBACK = "127.0.0.1"
LOOKS_EVERY_S = 1.0


def main(folder: Path) -> None:
    """Start the head, record where it is, and hold it until SIGTERM or SIGINT."""
    request = HeadRequest.from_json((folder / REQUEST).read_bytes(), source=str(folder / REQUEST))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = Node(
        RayParams(
            node_ip_address=LOOPBACK,
            num_cpus=request.cores,
            object_store_memory=request.object_store_bytes,
            temp_dir=request.temp_folder,
            include_dashboard=True,
            dashboard_host=LOOPBACK,
            dashboard_port=request.dashboard_port,
            dashboard_agent_listen_port=0,
            include_log_monitor=False,
        ),
        head=True,
        shutdown_at_exit=True,
        spawn_reaper=True,
    )
    head = Head(
        pid=os.getpid(),
        birth=str(birth_of(os.getpid())),
        address=str(node.gcs_address),
        jobs_url=f"http://{node.webui_url}",
        temp_folder=request.temp_folder,
        host=socket.gethostname(),
    )
    # the record appears whole: whoever waits for it may read it at once
    temporary = create_secret(folder / f".{HEAD}", head.to_json())
    with held_file(temporary):
        temporary.rename(folder / HEAD)
        while not stop.wait(LOOKS_EVERY_S):
            if gone := node.dead_processes():  # without one of them it is no cluster any more
                names = ", ".join(sorted({kind for kind, _ in gone}))
                sys.stderr.write(f"the head ends: Ray's {names} ended by itself\n")
                break
        node.kill_all_processes(check_alive=False, allow_graceful=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
