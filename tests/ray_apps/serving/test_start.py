"""The start of a server: what is refused before it, and what ends it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from ray.serve._private.http_util import set_socket_reuse_port

from arclight.catalog import Catalog
from arclight.errors import EngineError, SpecError
from arclight.store import find_store, open_store
from ray_apps.serving import deploy
from ray_apps.serving.access import LOOPBACK_HOSTS, Access, Limits
from ray_apps.serving.deploy import Binding, find_port, held_port, served
from tests.full_disk import small_disk
from tests.ray_apps.serving.small_model import ROW, publish_small_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.profiles import Profile


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(SpecError, match=f"port must be 0 .* to 65535, got {port}"):
        find_port("127.0.0.1", port)


def test_a_port_that_another_server_starts_on_is_taken() -> None:
    """Its proxy will share it, and two that share one would each get some of the callers."""
    port = find_port("127.0.0.1", 0)
    with held_port("127.0.0.1", port):
        with pytest.raises(SpecError, match=f"port {port} .* must be free, but Address already"):
            find_port("127.0.0.1", port)
        with socket.socket() as proxy:
            assert set_socket_reuse_port(proxy)  # as Ray Serve does
            proxy.bind(("127.0.0.1", port))
            proxy.listen()
            for _ in range(20):  # what only holds the port gets no caller
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                proxy.accept()[0].close()
    assert find_port("127.0.0.1", port) == port


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8"), ("::", "http://[::1]:8"), ("::1", "http://[::1]:8"),
     ("127.0.0.1", "http://127.0.0.1:8"), ("10.0.0.5", "http://10.0.0.5:8")],
)  # fmt: skip
def test_the_address_is_one_that_can_be_asked(host: str, url: str) -> None:
    assert Binding(host=host).url(8) == url


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Catalog]:
    """A store with one model, on a disk that may only be read."""
    with small_disk(tmp_path / "disk", size="20m") as disk:
        publish_small_model(Catalog(open_store(disk.folder / "store")))
        disk.freeze()
        yield Catalog(find_store(disk.folder / "store"))


def test_models_are_loaded_from_a_store_that_may_only_be_read(read_only: Catalog) -> None:
    service = deploy.Service(
        store=str(read_only.store.root),
        refs=("delay@1",),
        access=Access(hosts=LOOPBACK_HOSTS, keys=None),
        limits=Limits(),
    )
    assert list(deploy.load_endpoints(service)) == ["delay"]


@pytest.mark.ray
@pytest.mark.fault
def test_a_store_that_may_only_be_read_is_served(
    read_only: Catalog, small_profile: Profile
) -> None:
    with served(read_only, ["delay"], profile=small_profile, port=0) as url:
        answer = httpx.post(f"{url}/v1/models/delay:predict", json={"rows": [ROW]}, timeout=30)
    assert answer.status_code == 200
    assert not list(read_only.store.root.glob("serving*"))


@pytest.mark.ray
@pytest.mark.fault
def test_a_proxy_that_dies_at_its_start_ends_the_start_and_leaves_nothing(
    small_profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The certificate was there when the command looked, and is gone when the proxy does."""
    catalog = Catalog(open_store(tmp_path / "store"))
    publish_small_model(catalog)
    monkeypatch.setattr(deploy, "check_tls", lambda *_: None)
    monkeypatch.setattr(deploy, "LISTEN_S", 5.0)
    binding = Binding(tls_cert=tmp_path / "nope", tls_key=tmp_path / "nope")
    before = set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(EngineError, match=r"did not start|must listen at https://127"),
        served(catalog, ["delay"], profile=small_profile, port=0, binding=binding),
    ):
        pytest.fail("started")
    assert not set(psutil.Process().children(recursive=True)) - before


@pytest.mark.ray
@pytest.mark.fault
def test_a_replica_that_cannot_load_ends_the_start_and_leaves_nothing(
    tmp_path: Path, small_profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was sound when the command looked, and is not when the replica does."""
    catalog = Catalog(open_store(tmp_path / "store"))
    file = catalog.folder(publish_small_model(catalog)) / "model.ubj"
    check = deploy.load_endpoints

    def check_then_cut(service: deploy.Service) -> object:
        checked = check(service)
        file.write_bytes(b"")
        return checked

    monkeypatch.setattr(deploy, "load_endpoints", check_then_cut)
    port = find_port("127.0.0.1", 0)
    before = set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(EngineError, match="Ray Serve did not start delay@1"),
        served(catalog, ["delay"], profile=small_profile, port=port),
    ):
        pytest.fail("started")
    assert file.stat().st_size == 0
    assert find_port("127.0.0.1", port) == port
    assert not set(psutil.Process().children(recursive=True)) - before
