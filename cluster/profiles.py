"""Where a run happens: this machine, or an attached Spark and Ray; a frozen value from YAML."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from arclight.contract import NAME, Contract
from arclight.errors import MissingError, SpecError, nearest, printable
from cluster.head_record import PROFILE

MAX_PROFILE_BYTES = 64 * 1024
MAX_PORT = 65_535
SPARK_MASTER = re.compile(r"^(local\[\d{1,4}\]|spark://[A-Za-z0-9.-]+:\d{1,5})$")
HOST_PORT = re.compile(r"^[A-Za-z0-9.-]+:\d{1,5}$")
JOBS_URL = re.compile(r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?/?$")
# What a profile may add to Spark: sizes, jars and object-store endpoints; never security,
# class names of ours, error handling or anything that changes a number.
SPARK_CONF_ALLOWED = (
    "spark.jars",
    "spark.jars.packages",
    "spark.jars.repositories",
    "spark.plugins",
    "spark.memory.",
    "spark.shuffle.manager",
    "spark.executor.memoryOverhead",
    "spark.executor.instances",
    "spark.cores.max",
    "spark.network.timeout",
    "spark.hadoop.fs.s3a.",
    "spark.hadoop.fs.gs.",
    "spark.hadoop.fs.azure.",
    "spark.sql.catalog.",
    "spark.sql.extensions",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.shuffle.partitions",
)
SECRET_WORD = re.compile(
    r"secret|password|token|credential|azure\.sas\.|client-provided-key"
    r"|access\.key|(account|private|encryption)\.key(\.|$)",
    re.IGNORECASE,
)


class SparkPlace(Contract):
    """Where Spark runs and what is added to its settings."""

    master: str | None = None
    """`local[N]` or `spark://host:port`; left out: local with the profile's cores."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Extra settings from an allow-list; secrets belong into `conf_folder`."""
    conf_folder: str | None = None
    """Folder whose 0600 `spark-defaults.conf` holds the secret of an attached cluster."""
    driver_host: str | None = None
    """Address at which an attached cluster reaches this driver."""
    executor_cores: int | None = Field(default=None, ge=1, le=1024)
    """Cores of one executor of an attached cluster."""
    executor_memory_gib: float | None = Field(default=None, ge=0.5, le=4096)
    """Memory of one of its executors; left out: as much as the driver has."""

    @field_validator("master")
    @classmethod
    def _known_master(cls, value: str | None) -> str | None:
        if value is not None and not (SPARK_MASTER.match(value) and _has_real_port(value)):
            raise ValueError(f"must be 'local[N]' or 'spark://host:port', got {value!r}.")
        return value

    @field_validator("conf")
    @classmethod
    def _allowed_conf(cls, conf: dict[str, str]) -> dict[str, str]:
        for key in conf:
            if not key.startswith(SPARK_CONF_ALLOWED):
                raise ValueError(
                    f"setting {printable(key)!r} is not one a profile may make; allowed are "
                    f"{', '.join(SPARK_CONF_ALLOWED)}."
                )
            if SECRET_WORD.search(key):
                raise ValueError(
                    f"setting {printable(key)!r} is a secret; put it into the 0600 file "
                    "'spark-defaults.conf' in conf_folder."
                )
        return conf

    @model_validator(mode="after")
    def _attached_is_complete(self) -> Self:
        if self.is_attached and self.conf_folder is None:
            raise ValueError(
                "an attached master needs conf_folder with a 0600 'spark-defaults.conf' that "
                "sets spark.authenticate.secret."
            )
        return self

    @property
    def is_attached(self) -> bool:
        """Whether the executors are processes that somebody else started."""
        return self.master is not None and self.master.startswith("spark://")


class RayPlace(Contract):
    """Where Ray runs and how a job divides it."""

    address: str | None = None
    """`host:port` of a running cluster; left out: an own one on loopback."""
    token_path: str | None = None
    """0600 file with the token of an attached cluster."""
    jobs_url: str | None = None
    """Address of the attached cluster's job server, for `arclight submit`."""
    cores_per_worker: int | None = Field(default=None, ge=1, le=1024)
    """Of a training worker; left out: all of its node."""

    @field_validator("address")
    @classmethod
    def _host_port(cls, value: str | None) -> str | None:
        if value is not None and not (HOST_PORT.match(value) and _has_real_port(value)):
            raise ValueError(f"must be 'host:port', got {value!r}.")
        return value

    @model_validator(mode="after")
    def _closed_by_default(self) -> Self:
        if self.address is not None and self.token_path is None:
            raise ValueError("an attached address needs token_path, the 0600 file with its token.")
        if self.jobs_url is not None:
            _check_jobs_url(self.jobs_url)
        return self


class Profile(Contract):
    """Where to run; every field has a default that fits this machine."""

    kind: ClassVar[str] = "profile"

    name: str
    cores: int | None = Field(default=None, ge=1, le=1024)
    """Cores to use; left out: what this process may use."""
    memory_gib: float | None = Field(default=None, gt=0, le=65_536)
    """Memory to plan with; left out: what this process may use."""
    spark: SparkPlace = SparkPlace()
    ray: RayPlace = RayPlace()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"must match {NAME.pattern}, got {value!r}.")
        return value


BUILT_IN = {"local": Profile(name="local")}


def load_profile(name_or_file: str = "local") -> Profile:
    """Return a built-in profile by its name, or the one in a YAML file.

    Args:
        name_or_file: a name without a dot or slash, or the path of a `.yaml` file.

    Raises:
        SpecError: no such name, or the file breaks a rule.
        MissingError: no such file.
    """
    if name_or_file in BUILT_IN:
        return BUILT_IN[name_or_file]
    if not name_or_file.endswith((".yaml", ".yml")):
        raise SpecError(
            f"profile '{printable(name_or_file)}' must be one of {', '.join(sorted(BUILT_IN))} or "
            f"the path of a .yaml file.{nearest(name_or_file, BUILT_IN)}"
        )
    return _read_profile(Path(name_or_file))


def _read_profile(file: Path) -> Profile:
    if not file.is_file():
        way_out = "give the path of a file."
        if file.name == PROFILE and file.parent.parent.name == "clusters":
            way_out = "`arclight up` writes it, and it goes when its cluster does."
        raise MissingError(f"profile '{printable(file)}' does not exist; {way_out}")
    body = _plain_yaml(file)
    try:
        profile = Profile.model_validate({"name": file.stem.lower(), **body})
    except ValidationError as error:
        raise SpecError(_explain(error, file)) from error
    return _beside(profile, file.resolve().parent)


def _plain_yaml(file: Path) -> dict[str, Any]:
    """Parse a small YAML mapping without aliases, tags or duplicate keys."""
    if file.stat().st_size > MAX_PROFILE_BYTES:
        raise SpecError(
            f"profile '{printable(file)}' must be at most {MAX_PROFILE_BYTES:,} bytes."
        )
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_NoAliases)
        body = yaml.load(text, Loader=_NoAliases)  # noqa: S506 -- a SafeLoader that refuses more
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "problem", None) or type(error).__name__
        raise SpecError(
            f"profile '{printable(file)}' is not plain YAML: {printable(reason)}."
        ) from error
    if not isinstance(body, dict) or not isinstance(root, yaml.MappingNode):
        raise SpecError(f"profile '{printable(file)}' must be a mapping of fields.")
    return body


class _NoAliases(yaml.SafeLoader):
    """A safe loader that knows no aliases and no repeated key."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            names = [str(key.value) for key, _ in node.value]
            if len(names) != len(set(names)):
                raise yaml.YAMLError("a field stands twice")
        return node


def _beside(profile: Profile, folder: Path) -> Profile:
    """Return the profile with its relative paths made absolute, from the file's own folder."""
    spark, ray = profile.spark, profile.ray
    if spark.conf_folder is not None:
        spark = spark.model_copy(update={"conf_folder": str(folder / spark.conf_folder)})
    if ray.token_path is not None:
        ray = ray.model_copy(update={"token_path": str(folder / ray.token_path)})
    return profile.model_copy(update={"spark": spark, "ray": ray})


def _check_jobs_url(url: str) -> None:
    if not (JOBS_URL.match(url) and _has_real_port(url)):
        raise ValueError(f"jobs_url must be 'https://host:port', got {printable(url)!r}.")
    host = url.split("://", 1)[1].split(":", maxsplit=1)[0].strip("/")
    if url.startswith("http://") and not is_loopback(host):
        raise ValueError(
            f"jobs_url must use https beyond loopback, got {printable(url)!r}: "
            "the token would travel in the clear."
        )


def _has_real_port(address: str) -> bool:
    """Return whether the port that an address names, if it names one, can be one."""
    port = address.rpartition(":")[2].rstrip("/")
    return not port.isdigit() or 0 < int(port) <= MAX_PORT


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explain(error: ValidationError, file: Path) -> str:
    """Return the first problem as one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "profile"
    if first["type"] == "extra_forbidden":
        scopes: dict[str, type[Contract]] = {"spark": SparkPlace, "ray": RayPlace}
        scope = scopes.get(str(first["loc"][0]), Profile)
        hint = nearest(str(first["loc"][-1]), scope.model_fields)
        return f"{printable(file)}: '{printable(where)}' is not a field of a profile.{hint}"
    text = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"] + "."
    return f"{printable(file)}: '{printable(where)}' is wrong: {text}"
