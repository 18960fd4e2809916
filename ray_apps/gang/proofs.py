"""What all workers of a training must share, proven before and after it, not assumed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from arclight.errors import IntegrityError, RefusedError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.manifest import DatasetManifest
    from ray_apps.gang import Gang
    from ray_apps.shards import Shard


def prove_same_versions(gang: Gang, mine: Mapping[str, str]) -> None:
    """Refuse to train with workers that do not run the same versions.

    Raises:
        RefusedError: a worker differs; the first difference is named.
    """

    def compare(parts: Sequence[bytes]) -> bytes:
        first, *others = map(json.loads, parts)
        for rank, other in enumerate(others, 2):
            for name in sorted(first.keys() | other.keys()):
                pair = [side.get(name, "none") for side in (first, other)]
                if pair[0] != pair[1]:
                    return json.dumps([rank, name, *pair]).encode()
        return b""

    found = gang.agree(json.dumps(dict(mine)).encode(), compare)
    if found:
        rank, name, wanted, other = json.loads(found)
        raise RefusedError(
            f"training worker {rank} must run {printable(name)} {printable(wanted)} as worker 1 "
            f"does, but has {printable(other)}; install the same constraints.txt on every node."
        )


def check_versions(wanted: Mapping[str, str], mine: Mapping[str, str]) -> None:
    """Refuse to train with other versions than the command says that the model was made with.

    Raises:
        RefusedError: one differs; the first one is named.
    """
    for name, version in sorted(wanted.items()):
        if mine.get(name, "none") != version:
            raise RefusedError(
                f"the training workers must run {printable(name)} {printable(version)} as the "
                f"command does, but have {printable(mine.get(name, 'none'))}; install the same "
                "constraints.txt on every node."
            )


def prove_rows(gang: Gang, manifest: DatasetManifest, shards: Sequence[Shard]) -> None:
    """Refuse to train unless all workers together hold each published row exactly once.

    Args:
        gang: the workers.
        manifest: what was published.
        shards: this worker's train and valid.

    Raises:
        IntegrityError: rows of a row group were read twice or by nobody.
    """
    mine = [
        (piece.file.path, piece.group, piece.start, len(label))
        for shard in shards
        for piece, label in zip(shard.pieces, shard.labels, strict=True)
    ]

    def compare(parts: Sequence[bytes]) -> bytes:
        spans: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for path, group, start, rows in chain.from_iterable(map(json.loads, parts)):
            spans[path, group].append((start, rows))
        return _not_once(manifest, spans).encode()

    wrong = gang.agree(json.dumps(mine).encode(), compare).decode()
    if wrong:
        raise IntegrityError(
            f"{gang.world} workers must read each row of '{manifest.ref}' once, but did not in "
            f"{wrong}; nothing was trained: run again."
        )


def prove_same_model(gang: Gang, model: bytes) -> None:
    """Refuse a model that is not the same on every worker.

    Raises:
        IntegrityError: a worker ended with other bytes than the first one.
    """

    def compare(digests: Sequence[bytes]) -> bytes:
        return b",".join(str(i + 1).encode() for i, d in enumerate(digests) if d != digests[0])

    others = gang.agree(hashlib.sha256(model).digest(), compare)
    if others:
        raise IntegrityError(
            f"all {gang.world} workers must end with the same model, but worker "
            f"{others.decode()} has another one than worker 1; nothing was published: run again."
        )


# --------------------------------------------------------------------------------- inside


def _not_once(
    manifest: DatasetManifest, spans: Mapping[tuple[str, int], Sequence[tuple[int, int]]]
) -> str:
    """Name the first row group whose rows were not each read once; empty when there is none."""
    for file in chain(manifest.files_of("train"), manifest.files_of("valid")):
        for group, rows in enumerate(file.row_groups):
            read = 0
            for start, count in sorted(spans.get((file.path, group), ())):
                if start != read:
                    return f"row group {group} of '{file.path}'"
                read += count
            if read != rows:
                return f"row group {group} of '{file.path}'"
    return ""
