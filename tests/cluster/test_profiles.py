from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from arclight.errors import MissingError, SpecError
from cluster.profiles import Profile, is_loopback, load_profile

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
name: lab
cores: 8
memory_gib: 16
spark:
  master: spark://10.0.0.1:7077
  conf_folder: secrets
  driver_host: 10.0.0.2
  executor_cores: 4
  conf: {spark.network.timeout: 300s}
ray:
  address: 10.0.0.1:6379
  token_path: /etc/ray/token
  jobs_url: https://10.0.0.1:8265
  cores_per_worker: 3
"""


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    return str(file)


def test_local_is_the_default() -> None:
    profile = load_profile()
    assert profile == Profile(name="local")
    assert not profile.spark.is_attached


def test_a_whole_file_is_read_with_paths_beside_it(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, WHOLE))
    assert profile.spark.is_attached
    assert profile.spark.conf_folder == str(tmp_path.resolve() / "secrets")
    assert profile.ray.token_path == "/etc/ray/token"
    assert (profile.cores, profile.memory_gib, profile.ray.cores_per_worker) == (8, 16.0, 3)


def test_a_file_s_name_is_the_profile_s_name_when_it_has_none(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path, "cores: 2")).name == "lab"


def test_a_profile_cannot_change() -> None:
    with pytest.raises(ValidationError):
        load_profile().cores = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coers: 2", r"'coers' is not a field of a profile\. Did you mean 'cores'\?"),
        ("spark: {mastr: x}", r"'spark\.mastr' is not a field.* Did you mean 'master'\?"),
        ("cores: two", "'cores' is wrong"),
        ("cores: 0", "'cores' is wrong"),
        ("memory_gib: .nan", "'memory_gib' is wrong"),
        ("name: ../x", "'name' is wrong: must match"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: &a 1\nb: *a", "not plain YAML"),
        ("cores: 1\ncores: 2", "not plain YAML"),
        ("name: !!python/object:os.system x", "not plain YAML"),
        ("{" * 3000, "not plain YAML"),
        ("#" + "x" * 70_000, "at most 65,536 bytes"),
        ("spark: {master: yarn}", r"must be 'local\[N\]' or 'spark://host:port'"),
        ("spark: {master: 'spark://h:1'}", "needs conf_folder"),
        ("spark: {conf: {spark.sql.ansi.enabled: 'false'}}", "is not one a profile may make"),
        ("spark: {conf: {spark.hadoop.fs.s3a.secret.key: x}}", "is a secret"),
        ("ray: {address: 'h:1'}", "needs token_path"),
        ("ray: {address: h}", "must be 'host:port'"),
        ("ray: {jobs_url: 'http://10.0.0.1:8265'}", "must use https beyond loopback"),
        ("ray: {jobs_url: 'file:///x'}", "must be 'https://host:port'"),
        ("ray: {jobs_url: 'https://h:99999'}", "must be 'https://host:port'"),
        ("ray: {jobs_url: 'https://h:0/'}", "must be 'https://host:port'"),
        ("ray: {address: 'h:65536', token_path: t}", "must be 'host:port'"),
        ("spark: {master: 'spark://h:70000', conf_folder: c}", r"'spark://host:port'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_profile(written(tmp_path, text))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("setting", "is_secret"),
    [
        ("azure.account.key", True),
        ("azure.account.key.one.dfs.core.windows.net", True),
        ("azure.sas.box.one.blob.core.windows.net", True),
        ("azure.encryption.encoded.client-provided-key", True),
        ("gs.auth.service.account.private.key", True),
        ("gs.encryption.key", True),
        ("s3a.encryption.key", True),
        ("s3a.bucket.one.encryption.key", True),
        ("s3a.server-side-encryption.key", True),
        ("s3a.access.key", True),
        ("s3a.encryption.algorithm", False),
        ("s3a.path.style.access", False),
        ("azure.account.auth.type.one.dfs.core.windows.net", False),
        ("azure.account.keyprovider.one.dfs.core.windows.net", False),
        ("azure.account.oauth2.client.id", False),
        ("gs.auth.service.account.json.keyfile", False),
        ("gs.encryption.algorithm", False),
    ],
)
def test_keys_of_object_stores_are_secrets(tmp_path: Path, setting: str, is_secret: bool) -> None:
    file = written(tmp_path, f"spark: {{conf: {{spark.hadoop.fs.{setting}: x}}}}")
    if not is_secret:
        assert load_profile(file).spark.conf == {f"spark.hadoop.fs.{setting}": "x"}
        return
    with pytest.raises(SpecError, match="is a secret; put it into the 0600 file"):
        load_profile(file)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"must be one of local or .* Did you mean 'local'\?"):
        load_profile("locl")


def test_a_profile_that_went_with_its_cluster_says_so(tmp_path: Path) -> None:
    """`down` takes it away, and who submits then has given the path of a file."""
    with pytest.raises(MissingError, match="does not exist; `arclight up` writes it, and"):
        load_profile(str(tmp_path / "clusters" / "lab" / "attached.yaml"))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(MissingError, match=r"'nowhere\.yaml' does not exist"):
        load_profile("nowhere.yaml")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
