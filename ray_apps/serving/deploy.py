"""Models on Ray Serve: one application, whole models in each replica, one hop from the proxy."""

from __future__ import annotations

import ipaddress
import logging
import random
import socket
import time
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, NoReturn

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, BackpressureConfig, HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from arclight.catalog import Catalog, now
from arclight.errors import ArclightError, EngineError, SpecError, printable
from arclight.spec import Replicas
from arclight.store import find_store
from cluster.environment import environment
from cluster.machine import usable_cores
from cluster.ray_session import lost_parts, ray_session
from ray_apps.predictor import load_predictor
from ray_apps.serving.access import LOOPBACK_HOSTS, Access, Limits, check_binding
from ray_apps.serving.app import App
from ray_apps.serving.door import MIDDLEWARES
from ray_apps.serving.endpoint import Endpoint
from ray_apps.serving.loopback import LOOPBACK, stay_on_loopback
from ray_apps.serving.tls import check_tls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from arclight.signing import TrustedKeys
    from cluster.profiles import Profile
    from ray_apps.serving.api_keys import ApiKeys

APPLICATION = "arclight"
DEFAULT_PORT = 8000
REQUEST_TIMEOUT_S = 60.0
HEALTH_CHECK_PERIOD_S = 5.0
GRACE_S = 5.0
LISTEN_S = 30.0
LOOKS_EVERY_S = 1.0
MAX_PORT = 65_535
QUIET_PORTS = range(20_000, 32_768)
"""Above those that Ray gives its workers, below those that systems give connections: a port that
was found free stays so while Ray starts."""
TRIES = 20
# The replica answers small requests in its one loop and large ones in a thread of ours.
VARIABLES: dict[str, str | None] = {
    "RAY_SERVE_ENABLE_HA_PROXY": None,  # it binds all interfaces, whatever the host
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": None,  # it makes replicas listen too
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": None,
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
    # a lost proxy is started again after three looks, which are 10 s apart by default
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}


@dataclass(frozen=True)
class Binding:
    """Which address the server listens on and whom it lets in.

    Attributes:
        host: an address of this machine.
        keys: needed beyond loopback; None lets every local caller in.
        hosts: names a request may be for besides loopback's, such as a TLS proxy's.
        tls_cert: a certificate file in PEM; needed beyond loopback.
        tls_key: its key file.
    """

    host: str = LOOPBACK
    keys: ApiKeys | None = None
    hosts: frozenset[str] = frozenset()
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def has_tls(self) -> bool:
        """Whether answers are encrypted."""
        return self.tls_cert is not None and self.tls_key is not None

    def url(self, port: int) -> str:
        """Return where a caller on this machine asks."""
        host = f"[{self.near}]" if ":" in self.near else self.near
        return f"{'https' if self.has_tls else 'http'}://{host}:{port}"

    @property
    def near(self) -> str:
        """The address at which a caller on this machine asks."""
        everywhere = {str(ipaddress.ip_address(0)): LOOPBACK, str(ipaddress.IPv6Address(0)): "::1"}
        return everywhere.get(self.host, self.host)


@dataclass(frozen=True)
class Service:
    """Everything a replica is made from; it crosses a process, so it holds values only."""

    store: str
    refs: tuple[str, ...]
    access: Access
    limits: Limits
    threads: int = 1
    trust: TrustedKeys | None = None


@contextmanager
def served(
    catalog: Catalog,
    refs: Sequence[str],
    *,
    profile: Profile,
    port: int = DEFAULT_PORT,
    binding: Binding = Binding(),
    replicas: Replicas | None = None,
) -> Iterator[str]:
    """Serve models for the length of a block and yield the address.

    Every model is checked and asked for its golden rows before anything listens. When the block
    ends, no process of the server is left.

    Args:
        catalog: where the models are.
        refs: NAME, NAME@N or NAME@ALIAS, each name once; pinned to a version here.
        profile: where to run and how big; must be this machine's own Ray.
        port: where to listen; 0 takes a free one.
        binding: on which address, and whom to let in.
        replicas: how many copies, one a core at most; None is one.

    Raises:
        RefusedError: the address is open to others without TLS and keys, or a model does not
            repeat its golden rows.
        SpecError: the port is taken, a name stands twice, there are too few cores, the
            certificate or its key cannot be used.
        EngineError: Ray Serve did not start; its logs are in the store under `serving/`.
    """
    replicas = replicas or Replicas()
    check_tls(binding.tls_cert, binding.tls_key)
    check_binding(binding.host, has_tls=binding.has_tls, has_keys=binding.keys is not None)
    _check_place(profile, replicas)
    port = find_port(binding.host, port)
    bundles = pin(catalog, refs)
    service = Service(
        store=str(catalog.store.root),
        refs=tuple(bundle.ref for bundle in bundles),
        access=Access(hosts=LOOPBACK_HOSTS | binding.hosts, keys=binding.keys),
        limits=replace(Limits(), concurrent=replicas.ongoing_per_replica),
        trust=catalog.trust,
    )
    load_endpoints(service)
    logs = catalog.store.path("serving", f"{now().replace(':', '')}-{port}")
    with held_port(binding.host, port), environment(VARIABLES), ExitStack() as ray:
        ray.enter_context(ray_session(profile, log_folder=logs))
        _start(service, replicas, _http_options(binding, port))
        try:
            _await_port(binding, port)
            yield binding.url(port)
        finally:
            # Ray prints of its controller's end as if it had failed; standard output is ours
            with redirect_stdout(StringIO()), ray:
                if not lost_parts():  # else there is nobody to stop it
                    _stop()


def hold(url: str) -> NoReturn:
    """Wait, in the block of a server, until its Ray has ended.

    Raises:
        EngineError: it has; the proxy would take requests for minutes, and answer none.
    """
    while not (lost := lost_parts()):
        time.sleep(LOOKS_EVERY_S)
    raise EngineError(
        f"Ray's {' and '.join(lost)} must run while {url} is served, but ended by itself; see its "
        "logs in the store under 'serving/', and run the same command again."
    )


def pin(catalog: Catalog, refs: Sequence[str]) -> tuple[ModelBundle, ...]:
    """Return the versions that references mean now.

    Raises:
        MissingError: there is no such model.
        SpecError: one name stands twice: a caller could not tell which version answers.
    """
    bundles = tuple(catalog.model(ref) for ref in refs)
    names = [bundle.name for bundle in bundles]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"model '{name}' must be given once; serve each version on its port.")
    if not bundles:
        raise SpecError("at least one model must be given, as NAME, NAME@N or NAME@ALIAS.")
    return bundles


def find_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0, after proving that nothing listens there.

    Raises:
        SpecError: it is no port, it is taken, or the address is not this machine's.
    """
    if not 0 <= port <= MAX_PORT:
        raise SpecError(f"port must be 0 (a free one) to {MAX_PORT}, got {port}; use --port.")
    if port == 0:
        for quiet in random.sample(QUIET_PORTS, TRIES):
            with suppress(OSError):
                return _bound(host, quiet)
    try:
        return _bound(host, port)
    except OSError as error:
        raise SpecError(
            f"port {port} of '{printable(host)}' must be free, but {error.strerror}; "
            "stop what listens there or give another with --port."
        ) from error


@contextmanager
def held_port(host: str, port: int) -> Iterator[None]:
    """Keep a free port from whoever else wants to serve on it, for the length of a block.

    Ray's proxy comes seconds later, and shares its port with any other process of this user that
    shares it, too: of two servers that start at once both would listen, and the system would give
    each caller to one of them.

    Raises:
        SpecError: it is taken by now.
    """
    find_port(host, port)
    with socket.socket(_family(host)) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with suppress(OSError):  # connections of another server, which has ended, are in the way
            holder.bind((host, port))
        yield


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bound(host: str, port: int) -> int:
    """Return a port that can be bound now."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def _check_place(profile: Profile, replicas: Replicas) -> None:
    if profile.ray.address is not None:
        raise SpecError(
            f"profile '{profile.name}' must not be an attached cluster for serving; run "
            "`arclight serve` where the server shall listen, with a local profile."
        )
    cores = profile.cores or usable_cores()
    if replicas.max > cores:
        raise SpecError(
            f"replicas must be at most {cores}, one a core of profile '{profile.name}', got "
            f"{replicas.max}; give fewer with --replicas, or in the spec's serve.replicas.max."
        )


def load_endpoints(service: Service) -> dict[str, Endpoint]:
    """Load every model of a service, prove it, and ask it once.

    Raises:
        IntegrityError: stored bytes are not those published.
        RefusedError: no trusted key signed a model, or it does not repeat its golden rows.
    """
    catalog = Catalog(find_store(service.store), trust=service.trust)
    endpoints = {}
    for ref in service.refs:
        bundle = catalog.model(ref)
        predictor = load_predictor(catalog, bundle, threads=service.threads)
        endpoint = Endpoint(predictor, max_rows=service.limits.rows)
        endpoint.warm_up()
        endpoints[bundle.name] = endpoint
    return endpoints


class Replica:
    """One copy of every model, behind the application; Ray Serve makes and ends it."""

    def __init__(self, service: Service) -> None:
        stay_on_loopback()
        self._application = App(
            load_endpoints(service), access=service.access, limits=service.limits
        )

    def __serve_build_asgi_app__(self) -> App:
        """Give Ray Serve the application, once the models are loaded and warm."""
        return self._application


def _start(service: Service, replicas: Replicas, options: HTTPOptions) -> None:
    ongoing = replicas.ongoing_per_replica
    scale: dict[str, object] = {"num_replicas": replicas.max}
    if replicas.min < replicas.max:
        scale = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=replicas.min,
                max_replicas=replicas.max,
                target_ongoing_requests=max(1, ongoing // 2),
            )
        }
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="models",
        # twice what a replica works on, so that it is the one to say 503 with its reason
        max_ongoing_requests=2 * ongoing,
        max_queued_requests=2 * ongoing,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=GRACE_S,
        ray_actor_options={"num_cpus": service.threads},
        **scale,
    )
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=options,
            logging_config=quiet,
        )
        serve.run(
            deployment.bind(service), name=APPLICATION, route_prefix="/", logging_config=quiet
        )
    except ArclightError:
        raise
    except (RayError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        _stop()
        raise EngineError(
            f"Ray Serve did not start {', '.join(service.refs)} ({printable(error)}); see its "
            "logs in the store under 'serving/'."
        ) from error


def _await_port(binding: Binding, port: int) -> None:
    """Wait until the proxy listens: Ray Serve says it is up though its proxy may have died.

    Raises:
        EngineError: nothing listens within the time a proxy may take.
    """
    deadline = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((binding.near, port), timeout=1):
            return
        time.sleep(0.2)
    raise EngineError(
        f"something must listen at {binding.url(port)} within {LISTEN_S:g} s, but nothing does; "
        "see the proxy's log in the store under 'serving/'."
    )


def _http_options(binding: Binding, port: int) -> HTTPOptions:
    return HTTPOptions(
        host=binding.host,
        port=port,
        request_timeout_s=REQUEST_TIMEOUT_S,
        ssl_certfile=None if binding.tls_cert is None else str(binding.tls_cert.absolute()),
        ssl_keyfile=None if binding.tls_key is None else str(binding.tls_key.absolute()),
    )


def _stop() -> None:
    """End Serve, once its replicas have answered; Ray itself ends with its session."""
    with suppress(RayError, OSError, RuntimeError, TimeoutError):
        serve.delete(APPLICATION)  # at its end the proxy would go before them
    try:
        serve.shutdown()
    except (RayError, OSError, RuntimeError, TimeoutError) as error:
        raise EngineError(f"Ray Serve did not stop ({printable(error)}).") from error
