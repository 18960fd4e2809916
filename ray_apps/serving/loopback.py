"""Keeps a replica's own port on loopback, where Ray Serve would open it to every network."""

from __future__ import annotations

from typing import Any

from ray.serve._private import replica

LOOPBACK = "127.0.0.1"


def stay_on_loopback() -> None:
    """Make this replica listen for calls between deployments on 127.0.0.1.

    Ray Serve gives each replica such a port at `[::]` and has no setting for it. All processes
    of our Serve run on this machine, so nobody is cut off. To be called from a replica's
    constructor, which runs before the port is opened; a test lists what listens.
    """
    open_port = replica.add_port_to_grpc_server

    def open_here(server: Any, address: str) -> int:
        return int(open_port(server, f"{LOOPBACK}:{address.rpartition(':')[2]}"))

    replica.add_port_to_grpc_server = open_here
