"""Versions and aliases of datasets, models and scores; every move is a compare-and-swap."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from arclight.alias_moves import ALIAS, AliasRecord, versions_behind
from arclight.beside import Opening, evaluations_of, folders_in, moves_of, openings_of, told_of
from arclight.bundle import Evaluation, ModelBundle, ModelSignature
from arclight.contract import NAME
from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    SpecError,
    nearest,
    printable,
)
from arclight.manifest import DatasetManifest
from arclight.store import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arclight.signing import Signer, TrustedKeys
    from arclight.store import Record, Store

Shelf = Literal["datasets", "models", "scores", "studies"]
Version = TypeVar("Version", DatasetManifest, ModelBundle)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")


def now() -> str:
    """Return the time as ISO text in UTC, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0).isoformat()


@dataclass(frozen=True)
class Catalog:
    """The versions and aliases that a store holds.

    Attributes:
        trust: the keys whose models may be loaded; None loads any.
        signer: signs every model that is published here; None signs none.
    """

    store: Store
    trust: TrustedKeys | None = None
    signer: Signer | None = None

    def names(self, shelf: Shelf) -> tuple[str, ...]:
        """Return the names on a shelf that have at least one version, sorted."""
        found = folders_in(self.store, shelf)
        return tuple(name for name in found if self.store.numbers(shelf, name, "versions"))

    def damaged(self, shelf: Literal["datasets", "models"], name: str) -> dict[str, str]:
        """Return NAME@N -> what is wrong, of the versions whose record cannot be read."""
        if shelf == "datasets":
            return self._damaged(DatasetManifest, shelf, name)
        return self._damaged(ModelBundle, shelf, name)

    def folder(self, version: DatasetManifest | ModelBundle) -> Path:
        """Return the folder of a version's files."""
        return self.store.path(*version.folder.split("/"))

    # datasets and models

    def publish_dataset(self, manifest: DatasetManifest) -> DatasetManifest:
        """Publish under the next number; the same key gives the version that has it already.

        A staged folder that no record names in the end is removed.
        """
        return self._publish(DatasetManifest, "datasets", manifest)

    def publish_model(self, bundle: ModelBundle) -> ModelBundle:
        """Publish under the next number; the same key gives the version that has it already.

        A staged folder that no record names in the end is removed.

        With a signer the signature is published before the record, so that a version that can be
        seen is signed whatever is killed when; nothing that lay in the store is ever signed.
        """
        return self._publish(ModelBundle, "models", bundle, before=self._sign_text)

    def _sign_text(self, record: str) -> None:
        if self.signer is not None:
            self.sign_model(ModelBundle.from_json(record), self.signer)

    def datasets(self, name: str) -> Iterator[DatasetManifest]:
        """Yield a dataset's versions, newest first."""
        return self._versions(DatasetManifest, "datasets", name)

    def models(self, name: str) -> Iterator[ModelBundle]:
        """Yield a model's versions, newest first."""
        return self._versions(ModelBundle, "models", name)

    def dataset(self, ref: str) -> DatasetManifest:
        """Return a dataset by NAME (the newest) or NAME@N.

        Raises:
            MissingError: there is no such dataset or version; the message names what there is.
        """
        return self._get(DatasetManifest, "datasets", ref)

    def model(self, ref: str) -> ModelBundle:
        """Return a model by NAME (the newest), NAME@N or NAME@ALIAS.

        Raises:
            MissingError: there is no such model, version or alias; the message names what is.
        """
        return self._get(ModelBundle, "models", ref)

    def find_dataset(self, name: str, key: str) -> DatasetManifest | None:
        """Return the version with this key, if it is published."""
        return next((m for m in self.datasets(name) if m.key == key), None)

    def find_model(self, name: str, key: str) -> ModelBundle | None:
        """Return the version with this key, if it is published."""
        return next((m for m in self.models(name) if m.key == key), None)

    # signatures

    def sign_model(self, bundle: ModelBundle, signer: Signer) -> ModelSignature:
        """Publish a signature of a model's version; the same key signs a record once."""
        signature = signer.sign(bundle)
        record = self.store.append(
            lambda _: signature.to_json(),
            lambda r: ModelSignature.from_json(r.text, source=r.path) == signature,
            *self._signatures_of(bundle),
        )
        return ModelSignature.from_json(record.text, source=record.path)

    def signatures(self, bundle: ModelBundle) -> tuple[ModelSignature, ...]:
        """Return the signatures stored for a version; one that cannot be read is none."""
        parts = self._signatures_of(bundle)
        found = []
        for number in self.store.numbers(*parts):
            with contextlib.suppress(IntegrityError):
                record = self.store.record(number, *parts)
                found.append(ModelSignature.from_json(record.text, source=record.path))
        return tuple(found)

    @staticmethod
    def _signatures_of(bundle: ModelBundle) -> tuple[str, ...]:
        return ("models", bundle.name, "signatures", str(bundle.number))

    # evaluations and openings of the test split

    def publish_evaluation(self, name: str, number: int, evaluation: Evaluation) -> Evaluation:
        """Publish an evaluation of a model's version; the same key gives the first one."""
        parts = ("models", name, "evaluations", str(number))
        record = self.store.append(
            lambda _: evaluation.to_json(),
            lambda r: Evaluation.from_json(r.text, source=r.path).key == evaluation.key,
            *parts,
        )
        return Evaluation.from_json(record.text, source=record.path)

    def evaluations(self, name: str, number: int) -> Iterator[Evaluation]:
        """Yield the evaluations of a model's version that can be read, newest first.

        One that says it is of another version, or model, was copied here, and is none.
        """
        for _, found in evaluations_of(self.store, name, number):
            if isinstance(found, Evaluation):
                yield found

    def find_evaluation(self, bundle: ModelBundle, key: str) -> Evaluation | None:
        """Return the evaluation of a model's version with this key, if it is published."""
        known = self.evaluations(bundle.name, bundle.number)
        return next((e for e in known if e.key == key), None)

    def own_evaluation(self, bundle: ModelBundle) -> Evaluation | None:
        """Return the newest evaluation on the dataset that a model was trained on, else on any.

        Not one of other bytes: the number may have been another model's.
        """
        known = list(self.evaluations(bundle.name, bundle.number))
        known = [e for e in known if e.model_digest == bundle.model_digest]
        own = (e for e in known if e.dataset == bundle.dataset)
        return next(own, known[0] if known else None)

    def open_test(self, manifest: DatasetManifest, bundle: ModelBundle, *, run: str) -> Opening:
        """Record that a dataset's test split is opened for a model, and return the record."""

        def make(number: int) -> str:
            return Opening(
                dataset=manifest.ref,
                number=number,
                model=bundle.ref,
                model_digest=bundle.model_digest,
                run=run,
                at=now(),
            ).to_json()

        parts = ("datasets", manifest.name, "openings", str(manifest.number))
        record = self.store.append(make, lambda _: False, *parts)
        return Opening.from_json(record.text, source=record.path)

    def openings(self, manifest: DatasetManifest) -> Iterator[Opening]:
        """Yield the openings of a dataset version's test split, newest first.

        Raises:
            IntegrityError: one is damaged, or of another dataset: they cannot be counted.
        """
        for _, found in openings_of(self.store, manifest.name, manifest.number):
            if isinstance(found, IntegrityError):
                raise found
            yield found

    # aliases

    def alias(self, model: str, alias: str) -> AliasRecord | None:
        """Return the newest move of an alias, by which it stands; None if it was never set.

        Raises:
            IntegrityError: that move is damaged. The one before says where the alias stood, which
                may be what somebody has moved it away from.
        """
        number, move = next(moves_of(self.store, model, alias), (0, None))
        if isinstance(move, IntegrityError):
            path = self.store.path("models", model, "aliases", alias, f"{number}.json")
            raise IntegrityError(
                f"alias '{model}@{alias}' must stand where its newest move says, but '{path}' is "
                "damaged; restore it from a backup, or say where the alias shall stand: "
                f"arclight promote {model}@N {alias}"
            )
        return move

    def last_move(self, model: str, alias: str) -> AliasRecord | None:
        """Return the newest move of an alias that can be read: what a move by hand follows."""
        return next(self._moves(model, alias), None)

    def _moves(self, model: str, alias: str) -> Iterator[AliasRecord]:
        """Yield the valid moves of an alias, newest first; a copy of another one's is none."""
        for _, move in moves_of(self.store, model, alias):
            if isinstance(move, AliasRecord):
                yield move

    def aliases(self, model: str) -> dict[str, AliasRecord]:
        """Return every alias of a model of which it is known where it stands."""
        found = {}
        for name in folders_in(self.store, "models", model, "aliases"):
            with contextlib.suppress(IntegrityError):
                if (held := self.alias(model, name)) is not None:
                    found[name] = held
        return found

    def move_alias(
        self, bundle: ModelBundle, alias: str, *, reason: str, seen: AliasRecord | None
    ) -> AliasRecord:
        """Point an alias at a version, if it still stands where the caller saw it.

        Args:
            bundle: the version.
            alias: a name.
            reason: for the record.
            seen: its `last_move`; None if there is none.

        Returns:
            The move; where the alias is on that version already, or by now, nothing is written and
            it is the one that led there.

        Raises:
            SpecError: the alias is not a name.
            ConflictError: somebody moved it first; the message says where to.
        """
        if seen is None:
            return self._move(bundle, alias, reason=reason, seen=None, before=None)
        _, newest = next(moves_of(self.store, bundle.name, alias), (0, None))
        if seen.version_number == bundle.number and newest == seen:
            return seen
        return self._move(bundle, alias, reason=reason, seen=seen, before=seen.version_number)

    def _move(
        self,
        bundle: ModelBundle,
        alias: str,
        *,
        reason: str,
        seen: AliasRecord | None,
        before: int | None,
        is_rollback: bool = False,
    ) -> AliasRecord:
        if not ALIAS.match(alias):
            raise SpecError(
                f"alias '{printable(alias)}' must be lower-case letters, digits and '-', at most "
                "63, starting with a letter."
            )
        parts = ("models", bundle.name, "aliases", alias)
        # the number is taken before the alias is read: who moves it in between has this number
        number = max(self.store.numbers(*parts), default=0) + 1
        record = AliasRecord(
            model=bundle.name,
            alias=alias,
            number=number,
            version_number=bundle.number,
            before=before,
            reason=reason,
            at=now(),
            is_rollback=is_rollback,
        )
        is_as_seen = self.last_move(bundle.name, alias) == seen
        if is_as_seen and self.store.publish(number, record.to_json(), *parts):
            return record
        winner = self.last_move(bundle.name, alias)
        if winner is not None and winner.version_number == bundle.number:
            return winner  # somebody else has moved it to where it shall stand
        where = f"version {winner.version_number} ({winner.reason})" if winner else "elsewhere"
        raise ConflictError(
            f"alias '{bundle.name}@{alias}' must still stand where it was read, but it was moved "
            f"to {where}; look again and repeat the move if it still holds."
        )

    def rollback(self, model: str, alias: str) -> AliasRecord:
        """Point an alias back at the version it stood on before; again, at the one before that.

        Raises:
            MissingError: the alias was never set, or has no version before.
            IntegrityError: its newest move is damaged.
        """
        held = self.alias(model, alias)
        if held is None:
            raise MissingError(
                f"model '{model}' has no alias '{alias}'; it has: "
                f"{', '.join(self.aliases(model)) or 'none'}."
            )
        moves = [move for move in self._moves(model, alias) if move.number <= held.number]
        _, *behind = versions_behind(moves[::-1])
        if not behind:
            raise MissingError(
                f"alias '{model}@{alias}' has stood on version {held.version_number} from the "
                "start; there is nothing to roll back to."
            )
        return self._move(
            self.model(f"{model}@{behind[0]}"),
            alias,
            reason=f"rollback from version {held.version_number}",
            seen=held,
            before=behind[1] if len(behind) > 1 else None,
            is_rollback=True,
        )

    # one implementation for every kind of version

    def _publish(
        self,
        kind: type[Version],
        shelf: Literal["datasets", "models"],
        version: Version,
        *,
        before: Callable[[str], object] = lambda _: None,
    ) -> Version:
        def make(number: int) -> str:
            text = version.model_copy(update={"number": number}).to_json()
            before(text)
            return text

        def taken(record: Record) -> bool:
            return _read(kind, record, version.name).key == version.key

        try:
            above = told_of(self.store, shelf, version.name)
            record = self.store.append(make, taken, shelf, version.name, "versions", above=above)
            published = _read(kind, record, version.name)
        except BaseException:
            # an interrupt, or a disk that fails, may come when the record is there already
            if not self._may_be_named(kind, shelf, version):
                discard(self.folder(version))
            raise
        if published.folder != version.folder:
            discard(self.folder(version))  # somebody else published the same first
        return published

    def _may_be_named(self, kind: type[Version], shelf: Shelf, version: Version) -> bool:
        """Return whether a record names a version's folder; one that cannot be read may."""
        parts = (shelf, version.name, "versions")
        try:
            known = [_read(kind, record, version.name) for record in self.store.records(*parts)]
        except IntegrityError:
            return True
        return any(one.folder == version.folder for one in known)

    def _versions(self, kind: type[Version], shelf: Shelf, name: str) -> Iterator[Version]:
        for number in reversed(self.store.numbers(shelf, name, "versions")):
            # a bad record is named when it is asked for; it hides no good one
            with contextlib.suppress(IntegrityError):
                yield _read(kind, self.store.record(number, shelf, name, "versions"), name)

    def _damaged(self, kind: type[Version], shelf: Shelf, name: str) -> dict[str, str]:
        found = {}
        for number in reversed(self.store.numbers(shelf, name, "versions")):
            try:
                _read(kind, self.store.record(number, shelf, name, "versions"), name)
            except IntegrityError as error:
                found[f"{name}@{number}"] = error.message
        return found

    def _get(self, kind: type[Version], shelf: Shelf, ref: str) -> Version:
        name, _, wanted = ref.partition("@")
        is_version = "@" not in ref or _NUMBER.match(wanted) or ALIAS.match(wanted)
        if not NAME.match(name) or not is_version:
            raise SpecError(f"'{printable(ref)}' must be NAME, NAME@NUMBER or NAME@ALIAS.")
        numbers = self.store.numbers(shelf, name, "versions")
        if not numbers:
            known = self.names(shelf)
            raise MissingError(
                f"{shelf[:-1]} '{name}' does not exist.{nearest(name, known)} "
                f"There {'are' if len(known) != 1 else 'is'}: {', '.join(known) or 'none'}."
            )
        newest = next(self._versions(kind, shelf, name), None) if not wanted else None
        if newest is not None:
            return newest
        number = self._number(shelf, name, wanted, numbers)
        return _read(kind, self.store.record(number, shelf, name, "versions"), name)

    def _number(self, shelf: Shelf, name: str, wanted: str, numbers: tuple[int, ...]) -> int:
        if not wanted:
            return numbers[-1]
        if wanted.isdigit():
            if int(wanted) in numbers:
                return int(wanted)
            raise MissingError(
                f"{shelf[:-1]} '{name}' has no version {wanted}; "
                f"it has {numbers[0]} to {numbers[-1]}."
            )
        held = self.alias(name, wanted) if shelf == "models" else None
        if held is None:
            known = tuple(self.aliases(name)) if shelf == "models" else ()
            raise MissingError(
                f"{shelf[:-1]} '{name}' has no alias '{wanted}'.{nearest(wanted, known)} "
                f"It has: {', '.join(known) or 'none'}."
            )
        return held.version_number


def _read(kind: type[Version], record: Record, name: str) -> Version:
    version = kind.from_json(record.text, source=record.path)
    if (version.name, version.number) != (name, record.number):
        raise IntegrityError(
            f"'{record.path}' must hold {name}@{record.number}, but holds {version.ref}; it was "
            "copied by hand: restore it from a backup or publish a new version."
        )
    return version
