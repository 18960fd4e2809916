"""Which Ray a submitted job joins: the profile's where it answers, else the one Ray tells of."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from cluster.profiles import load_profile
from jobs.entry import place_profile
from jobs.submissions import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

NEWEST = "127.0.0.1:9"


@pytest.mark.parametrize("is_open", [True, False])
def test_another_ray_on_the_machine_is_not_joined(tmp_path: Path, is_open: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        own = f"127.0.0.1:{door.getsockname()[1]}"
        if not is_open:
            door.close()
        url = "http://localhost"
        ray = {"address": own, "token_path": "/submitter/token", "jobs_url": url}
        (tmp_path / PROFILE).write_text(json.dumps({"name": "p", "ray": ray}))
        told = {"RAY_ADDRESS": NEWEST, "RAY_AUTH_TOKEN_PATH": "/h\u00e4re \U0001f680\x85/token"}
        placed = load_profile(str(place_profile(tmp_path, told))).ray
    assert placed.address == (own if is_open else NEWEST)
    assert (placed.token_path, placed.jobs_url) == (told["RAY_AUTH_TOKEN_PATH"], url)
