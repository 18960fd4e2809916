"""Starting from a registered model: whether it fits a dataset, whether it has seen its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import ArclightError, RefusedError, SpecError, printable
from arclight.layout import ROW_KEY
from arclight.spec_field import parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.plan import FeaturePlan
    from arclight.spec import Spec
    from arclight.train_section import Init


def check_kind(bundle: ModelBundle, spec: Spec) -> None:
    """Refuse a model of another kind than the spec trains.

    Raises:
        SpecError: another trainer, or another task with the last layer kept.
    """
    init = spec.train.init
    assert init is not None
    if bundle.trainer != spec.train.trainer:
        raise SpecError(
            f"train.init: '{bundle.ref}' must be a model of trainer {spec.train.trainer} to go on "
            f"from, but it is one of {bundle.trainer}; change train.trainer or leave init out."
        )
    if bundle.task != spec.task and init.head == "kept":
        raise SpecError(
            f"train.init: '{bundle.ref}' must be of task {spec.task} to go on from, but it is of "
            f"{bundle.task}; with trainer torch, `head: new` trains a last layer of its own."
        )


def plan_from(bundle: ModelBundle, manifest: DatasetManifest, init: Init) -> FeaturePlan:
    """Return the plan that a training on a dataset must have to go on from a model.

    Levels, and so codes, are the model's; what is said of numbers is of the dataset.

    Raises:
        RefusedError: the features, or the classes, are not those of the model; the first
            difference is named.
    """
    mine, theirs = manifest.plan.layout, bundle.plan.layout
    sides = (f"dataset '{manifest.ref}'", f"'{bundle.ref}'")
    found = (
        _first_difference("feature", [(f.name, f.type) for f in mine.features],
                          [(f.name, f.type) for f in theirs.features], sides)
        or _first_difference("derived feature", [(d.name, d.expression) for d in mine.derive],
                             [(d.name, d.expression) for d in theirs.derive], sides)
        or _first_difference("input", [(c.name, c.type) for c in mine.inputs],
                             [(c.name, c.type) for c in theirs.inputs], sides)
    )  # fmt: skip
    if found:
        raise RefusedError(
            f"train.init: the features of {sides[0]} must be those of {sides[1]}, but {found}; "
            "select and derive them alike, or train from scratch."
        )
    levels = [feature.levels for feature in bundle.plan.features]
    features = tuple(
        feature.model_copy(update={"levels": known})
        for feature, known in zip(manifest.plan.features, levels, strict=True)
    )
    learned = manifest.plan.model_copy(update={"features": features})
    if init.head == "new":
        return learned
    if manifest.plan.classes != bundle.plan.classes:
        ours, others = (", ".join(map(printable, p.classes)) for p in (manifest.plan, bundle.plan))
        raise RefusedError(
            f"train.init: the classes of {sides[0]} ({ours}) must be those of {sides[1]} "
            f"({others}); a network can have a new last layer (`head: new`)."
        )
    return learned


def new_levels(plan: FeaturePlan, manifest: DatasetManifest) -> dict[str, int]:
    """Return feature -> levels that a dataset's own plan has and another plan has not."""
    own = {feature.name: set(feature.levels) for feature in manifest.plan.features}
    found = {f.name: len(own[f.name] - set(f.levels)) for f in plan.features}
    return {name: count for name, count in found.items() if count}


def shown_new(
    manifest: DatasetManifest, used: Iterable[DatasetManifest | None]
) -> tuple[bool, bool]:
    """Say whether splits show that the valid rows, and the test rows, of a dataset are new.

    New are rows that no model before learned from (its train) or was chosen by (its valid). What
    shows it: the same data in the same splits, a split by the same time column whose rows end
    before, and one by the same hash of the same columns.

    Args:
        manifest: whose rows are asked about.
        used: the datasets that a model and those it came from were trained on; None for one that
            is not there any more.
    """
    found = [(False, False) if other is None else _shown(manifest, other) for other in used]
    return all(valid for valid, _ in found), all(test for _, test in found)


def used_datasets(catalog: Catalog, bundle: ModelBundle) -> list[DatasetManifest | None]:
    """Return the datasets that a model, and the models it came from, were trained on.

    None stands for one that is not there any more, or is not the one that was trained on.
    """
    found: list[DatasetManifest | None] = []
    at = bundle
    try:
        while True:
            found.append(learned_from(catalog, at))
            origin = at.transfer
            if origin is None:
                return found
            at = catalog.model(origin.model)
            if at.model_digest != origin.model_digest:
                return [*found, None]
    except (ArclightError, OSError):
        return [*found, None]


def learned_from(catalog: Catalog, bundle: ModelBundle) -> DatasetManifest | None:
    """Return the dataset that a model was trained on; None where another has its number now.

    Raises:
        ArclightError: it is not there, or its record is damaged.
    """
    manifest = catalog.dataset(bundle.dataset)
    return manifest if manifest.has_content(bundle.dataset_digest) else None


def label_of(catalog: Catalog, bundle: ModelBundle) -> str | None:
    """Return the name of the column that a model predicts; None where its dataset is gone."""
    try:
        manifest = learned_from(catalog, bundle)
    except (ArclightError, OSError):
        return None
    return None if manifest is None else manifest.label


# --------------------------------------------------------------------------------- inside


def _first_difference(
    what: str, mine: list[tuple[str, str]], theirs: list[tuple[str, str]], sides: tuple[str, str]
) -> str:
    """Say what differs first between two lists of names and kinds; nothing when nothing does."""
    (own, other), (here, there) = (dict(mine), dict(theirs)), sides
    for name in (n for n in own if n not in other):
        return f"{what} '{printable(name)}' is only in {here}"
    for name in (n for n in other if n not in own):
        return f"{what} '{printable(name)}' is only in {there}"
    for name, kind in own.items():
        if kind != other[name]:
            kinds = f"{printable(kind)} in {here} and {printable(other[name])} in {there}"
            return f"{what} '{printable(name)}' is {kinds}"
    for place, ((name, _), (old, _)) in enumerate(zip(mine, theirs, strict=True), 1):
        if name != old:
            names = f"'{printable(name)}' in {here} and '{printable(old)}' in {there}"
            return f"{what} {place} is {names}"
    return ""


def _shown(manifest: DatasetManifest, other: DatasetManifest) -> tuple[bool, bool]:
    """Say it of valid and of test, and of one dataset that was used before."""
    if manifest.content_digest == other.content_digest:
        return False, True
    types, others = ({c.name: c.type for c in m.columns} for m in (manifest, other))

    def alike(names: Iterable[str]) -> bool:
        return all(name in types and types[name] == others.get(name) for name in names)

    ours, theirs = manifest.proof, other.proof
    if ours.bounds and theirs.bounds:
        time = manifest.time_column
        if time is None or time != other.time_column or not alike([time]):
            return False, False
        try:
            last = max(parse_instant(theirs.bounds[split][1]) for split in ("train", "valid"))
            valid, test = (parse_instant(ours.bounds[split][0]) for split in ("valid", "test"))
        except ValueError:  # a year that Python has not
            return False, False
        return last < valid, last < test
    columns = (*ours.group_columns, *manifest.key_columns)
    # the digest that stands for a key is of all columns, whatever they are
    is_same = (
        bool(ours.hashed)
        and ours.hashed == theirs.hashed
        and columns == (*theirs.group_columns, *other.key_columns)
        and ROW_KEY not in columns
        and alike(columns)
    )
    return False, is_same
