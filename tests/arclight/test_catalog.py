from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from arclight.alias_moves import AliasRecord
from arclight.catalog import Catalog
from arclight.errors import (
    ArclightError,
    ConflictError,
    IntegrityError,
    MissingError,
    SpecError,
)
from arclight.report import evaluate_predictions
from arclight.store import open_store
from tests.arclight.made_records import make_bundle, make_evaluation, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import Evaluation
    from arclight.report import EvalReport

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(open_store(tmp_path / "store"))


@pytest.fixture
def three(catalog: Catalog) -> Catalog:
    """A catalog with three models of one name."""
    for key in ("k1", "k2", "k3"):
        catalog.publish_model(make_bundle(key=key))
    return catalog


def promote(catalog: Catalog, number: int, alias: str = "champion") -> AliasRecord:
    bundle = catalog.model(f"flights@{number}")
    return catalog.move_alias(
        bundle, alias, reason="why", seen=catalog.last_move("flights", alias)
    )


def test_publishing_gives_the_next_number(catalog: Catalog):
    assert catalog.publish_dataset(make_manifest(key="k1")).ref == "flights@1"
    assert catalog.publish_dataset(make_manifest(key="k2")).ref == "flights@2"
    assert catalog.publish_dataset(make_manifest(name="other")).ref == "other@1"
    assert catalog.names("datasets") == ("flights", "other")
    assert [m.number for m in catalog.datasets("flights")] == [2, 1]


def test_e18_the_same_key_gives_the_first_version(three: Catalog):
    assert three.publish_model(make_bundle(key="k2")).number == 2
    assert [b.number for b in three.models("flights")] == [3, 2, 1]
    found = three.find_model("flights", "k2")
    assert found == three.model("flights@2")
    assert three.find_model("flights", "k9") is None
    assert three.find_model("nobody", "k1") is None
    assert three.find_dataset("flights", "k1") is None


def test_a_version_is_got_by_name_number_and_alias(three: Catalog):
    promote(three, 2)
    for ref, number in (("flights", 3), ("flights@1", 1), ("flights@champion", 2)):
        assert three.model(ref).number == number
    assert three.folder(three.model("flights")) == three.store.root / "models/flights/data/0123"


MISSING = {
    "fligths": "model 'fligths' does not exist. Did you mean 'flights'? There is: flights.",
    "zzz@1": "model 'zzz' does not exist. There is: flights.",
    "flights@4": "model 'flights' has no version 4; it has 1 to 3.",
    "flights@champoin": "model 'flights' has no alias 'champoin'. Did you mean 'champion'? "
    "It has: champion.",
}


@pytest.mark.parametrize("ref", MISSING)
def test_what_is_missing_is_named_with_the_nearest(three: Catalog, ref: str):
    promote(three, 2)
    with pytest.raises(MissingError) as caught:
        three.model(ref)
    assert caught.value.message == MISSING[ref]


def test_an_empty_store_says_so(catalog: Catalog):
    with pytest.raises(MissingError, match=r"dataset 'a' does not exist\. There are: none\."):
        catalog.dataset("a")
    assert catalog.names("models") == ()
    assert catalog.aliases("a") == {}


def test_a_dataset_has_no_alias(catalog: Catalog):
    catalog.publish_dataset(make_manifest())
    with pytest.raises(
        MissingError, match=r"dataset 'flights' has no alias 'best'\. It has: none"
    ):
        catalog.dataset("flights@best")


@pytest.mark.parametrize(
    "ref",
    [
        "", "@", "@1", "flights@", "flights@0", "flights@01", "flights@1@2", "flights@-1", "..",
        "../flights", "flights@../x", "flights\n", "flights@1\n", "Flights", "flights@champion\n",
        "flights@٣", "flights@" + "9" * 5000, "flights\0", "a/b@1", "flights@\x1b[31m",
    ],
)  # fmt: skip
def test_x2_a_ref_of_another_form_is_refused(three: Catalog, ref: str):
    with pytest.raises(SpecError, match="must be NAME, NAME@NUMBER or NAME@ALIAS") as caught:
        three.model(ref)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 300


def test_stray_files_are_no_names(three: Catalog):
    three.store.path("models", ".DS_Store").write_text("x")
    three.store.path("models", "empty").mkdir()
    assert three.names("models") == ("flights",)


@pytest.mark.parametrize("shelf", ["datasets", "models"])
def test_a_staged_folder_that_no_record_names_in_the_end_is_removed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, shelf: str
):
    def staged() -> Path:
        folder = catalog.store.stage(shelf, "flights")
        (folder / "file").write_text("bytes")
        return folder

    def publish(folder: Path) -> None:
        place = {"folder": folder.relative_to(catalog.store.root).as_posix()}
        if shelf == "datasets":
            catalog.publish_dataset(make_manifest().model_copy(update=place))
        else:
            catalog.publish_model(make_bundle().model_copy(update=place))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lost, first, second = staged(), staged(), staged()
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(ArclightError, match="No space left"):
        publish(lost)
    monkeypatch.undo()
    publish(first)
    publish(second)
    assert [folder.exists() for folder in (lost, first, second)] == [False, True, False]


# bad records


def test_a_bad_newest_version_is_named_and_the_highest_valid_one_holds(three: Catalog):
    three.store.path("models", "flights", "versions", "4.json").write_text("")
    three.store.path("models", "flights", "versions", "5.json").write_text('{"kind": "mod')
    assert three.model("flights").number == 3
    with pytest.raises(IntegrityError, match=r"versions/4\.json' must not be empty"):
        three.model("flights@4")
    with pytest.raises(IntegrityError, match=r"versions/5\.json' must be a model-bundle in JSON"):
        three.model("flights@5")
    assert [b.number for b in three.models("flights")] == [3, 2, 1]
    assert three.publish_model(make_bundle(key="k6")).number == 6
    assert three.publish_model(make_bundle(key="k1")).number == 1


def test_when_every_version_is_bad_the_newest_is_named(catalog: Catalog):
    catalog.publish_model(make_bundle())
    catalog.store.path("models", "flights", "versions", "1.json").write_text("")
    with pytest.raises(IntegrityError, match=r"1\.json' must not be empty"):
        catalog.model("flights")


def test_a_record_under_another_number_is_refused(three: Catalog):
    folder = three.store.path("models", "flights", "versions")
    (folder / "7.json").write_bytes((folder / "2.json").read_bytes())
    with pytest.raises(IntegrityError, match=r"7\.json' must hold flights@7, but holds flights@2"):
        three.model("flights@7")
    assert three.model("flights").number == 3


def test_x2_a_record_that_leads_out_of_the_store_is_refused(three: Catalog):
    file = three.store.path("models", "flights", "versions", "3.json")
    text = file.read_text().replace("models/flights/data/0123", "models/../../../etc")
    file.write_text(text)
    with pytest.raises(IntegrityError, match="it was changed since"):
        three.model("flights@3")
    file.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "own"}))
    with pytest.raises(IntegrityError, match=r"folder: .*plain path below its folder"):
        three.model("flights@3")


def make_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_link, os.mkfifo])
def test_a_record_that_is_no_file_is_named_and_hides_no_other(three: Catalog, make):
    file = three.store.path("models", "flights", "versions", "3.json")
    file.unlink()
    make(file)
    assert [bundle.number for bundle in three.models("flights")] == [2, 1]
    with pytest.raises(IntegrityError, match=r"3\.json' must be a file that can be read"):
        three.model("flights@3")
    assert list(three.damaged("models", "flights")) == ["flights@3"]


# aliases


def test_an_alias_moves_and_every_move_is_kept(three: Catalog):
    assert three.alias("flights", "champion") is None
    first, second = promote(three, 1), promote(three, 3)
    assert (first.number, first.version_number, first.before) == (1, 1, None)
    assert (second.number, second.version_number, second.before) == (2, 3, 1)
    promote(three, 2, "shadow")
    assert {n: r.version_number for n, r in three.aliases("flights").items()} == {
        "champion": 3,
        "shadow": 2,
    }


def test_of_two_promotes_one_wins_and_the_other_is_told_by_whom(three: Catalog):
    seen = promote(three, 1)
    winner, loser = three.model("flights@2"), three.model("flights@3")
    three.move_alias(winner, "champion", reason="the gate passed", seen=seen)
    with pytest.raises(ConflictError, match=r"moved to version 2 \(the gate passed\)"):
        three.move_alias(loser, "champion", reason="me too", seen=seen)
    assert three.model("flights@champion").number == 2


def test_of_twelve_promotes_at_once_one_wins(three: Catalog):
    barrier, wins = FORK.Barrier(12), FORK.Value("i", 0)

    def work(key: str) -> None:
        bundle = three.publish_model(make_bundle(key=key))
        barrier.wait(30)
        try:
            three.move_alias(bundle, "champion", reason="race", seen=None)
        except ConflictError:
            return
        with wins.get_lock():
            wins.value += 1

    children = [FORK.Process(target=work, args=(f"k{n}",)) for n in range(12)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert wins.value == 1
    assert three.store.numbers("models", "flights", "aliases", "champion") == (1,)


def test_a_promotion_to_where_somebody_else_has_just_moved_it_is_done(three: Catalog):
    """As when one spec is run twice at the same time."""
    seen, better = promote(three, 1), three.model("flights@2")
    moved = three.move_alias(better, "champion", reason="the gate passed", seen=seen)
    assert three.move_alias(better, "champion", reason="me too", seen=seen) == moved
    assert three.store.numbers("models", "flights", "aliases", "champion") == (1, 2)


@pytest.mark.parametrize("again", [1, 2])
def test_where_the_newest_move_is_damaged_the_alias_stands_nowhere(three: Catalog, again: int):
    """The move before may be what a rollback, whose record it is, had moved it away from."""
    promote(three, 1)
    promote(three, 1, "shadow")
    place = ("models", "flights", "aliases", "champion", "2.json")
    three.store.path(*place).write_text("")
    for ask in (
        lambda: three.model("flights@champion"),
        lambda: three.alias("flights", "champion"),
        lambda: three.rollback("flights", "champion"),
    ):
        with pytest.raises(
            IntegrityError, match=r"2\.json' is damaged; .* arclight promote flights@N champion"
        ):
            ask()
    assert list(three.aliases("flights")) == ["shadow"]
    assert three.model("flights@shadow").number == 1
    moved = promote(three, again)  # also to where the move before was
    assert (moved.number, moved.before) == (3, 1)
    assert three.model("flights@champion").number == again


@pytest.mark.parametrize("alias", ["", "Champion", "a b", "7", "1a", "../x", "a\n", "a" * 64, "-"])
def test_an_alias_is_a_name(three: Catalog, alias: str):
    with pytest.raises(SpecError, match="must be lower-case letters, digits and '-'"):
        three.move_alias(three.model("flights"), alias, reason="", seen=None)


def test_every_alias_that_can_be_set_can_be_read(three: Catalog):
    for alias in ("a", "a1", "champion-2", "a" * 63):
        three.move_alias(three.model("flights@2"), alias, reason="", seen=None)
        assert three.model(f"flights@{alias}").number == 2


def test_rollback_goes_back_step_by_step(three: Catalog):
    for number in (1, 2, 3):
        promote(three, number)
    stands = [three.rollback("flights", "champion").version_number for _ in range(2)]
    assert stands == [2, 1]
    with pytest.raises(MissingError, match="stood on version 1 from the start"):
        three.rollback("flights", "champion")
    promote(three, 3)
    assert three.rollback("flights", "champion").version_number == 1


@pytest.mark.parametrize(
    ("promoted", "stands"),
    [
        ((1, 2, 3, 2), [3, 2, 1]),
        ((2, 1, 2), [1, 2]),
        ((1, 2, 1, 3), [1, 2, 1]),
        ((1, 2, 3, 1, 2), [1, 3, 2, 1]),
    ],
)
def test_rollbacks_reach_every_version_that_stood(
    three: Catalog, promoted: tuple[int, ...], stands: list[int]
):
    for number in promoted:
        promote(three, number)
    went = [three.rollback("flights", "champion").version_number for _ in stands]
    assert went == stands
    with pytest.raises(MissingError, match="from the start"):
        three.rollback("flights", "champion")


def test_a_promotion_to_where_the_alias_stands_writes_nothing(three: Catalog):
    promote(three, 1)
    first = promote(three, 2)
    assert [promote(three, 2) for _ in range(2)] == [first, first]
    assert three.store.numbers("models", "flights", "aliases", "champion") == (1, 2)
    assert three.rollback("flights", "champion").version_number == 1
    stale, winner = three.alias("flights", "champion"), three.model("flights@3")
    three.move_alias(winner, "champion", reason="the gate passed", seen=stale)
    with pytest.raises(ConflictError, match="moved to version 3"):
        three.move_alias(three.model("flights@1"), "champion", reason="me too", seen=stale)


def write_moves(catalog: Catalog, *moves: tuple[int, int | None]) -> None:
    """Write moves as releases did that counted a move to where an alias stood."""
    for number, (version, before) in enumerate(moves, 1):
        record = AliasRecord(
            model="flights", alias="champion", number=number, version_number=version,
            before=before, reason="by hand", at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        catalog.store.publish(number, record.to_json(), "models", "flights", "aliases", "champion")


@pytest.mark.parametrize(
    ("moves", "stands"),
    [
        ([(1, None), (2, 1), (2, 2), (2, 2)], [1]),
        ([(1, None), (2, 1), (2, 2), (2, 2), (2, 2)], [1]),  # the last was a rollback
        ([(1, None), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)], [2, 1]),
        ([(1, None), (2, 1), (3, 2), (2, 1), (2, 2)], [1]),
        ([(2, None), (2, 2)], []),
    ],
)
def test_rollback_passes_over_repeats_of_older_releases(
    three: Catalog, moves: list[tuple[int, int | None]], stands: list[int]
):
    write_moves(three, *moves)
    went = [three.rollback("flights", "champion").version_number for _ in stands]
    assert went == stands
    with pytest.raises(MissingError, match="from the start"):
        three.rollback("flights", "champion")


def test_rollback_goes_to_a_version_whose_own_move_is_damaged(three: Catalog):
    promote(three, 1)
    promote(three, 2)
    three.store.path("models", "flights", "aliases", "champion", "1.json").write_text("")
    assert three.rollback("flights", "champion").version_number == 1


def test_rollback_of_what_never_stood(three: Catalog):
    with pytest.raises(
        MissingError, match="model 'flights' has no alias 'champion'; it has: none"
    ):
        three.rollback("flights", "champion")


# evidence


@pytest.fixture(scope="module")
def report() -> EvalReport:
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    scores = np.array([0.1, 0.8, 0.4, 0.6])
    return evaluate_predictions("binary", labels, scores, seed=1, dataset="d@1", resamples=20)


def test_evaluations_are_published_once_per_key(catalog: Catalog, report: EvalReport):
    first = catalog.publish_evaluation("flights", 1, make_evaluation(report, "e1"))
    catalog.publish_evaluation("flights", 1, make_evaluation(report, "e2"))
    again = make_evaluation(report, "e1").model_copy(update={"made_at": "later"})
    assert catalog.publish_evaluation("flights", 1, again) == first
    assert [e.key for e in catalog.evaluations("flights", 1)] == ["e2", "e1"]
    assert list(catalog.evaluations("flights", 2)) == []


def test_an_evaluation_that_was_copied_from_another_version_is_none(
    catalog: Catalog, report: EvalReport
):
    catalog.publish_evaluation("flights", 1, make_evaluation(report))
    folder = catalog.store.path("models", "flights", "evaluations")
    shutil.copytree(folder / "1", folder / "2")
    assert list(catalog.evaluations("flights", 2)) == []
    assert len(list(catalog.evaluations("flights", 1))) == 1


def test_a_move_of_another_alias_or_model_moves_nothing(three: Catalog):
    moved = three.move_alias(three.model("flights@1"), "champion", reason="a", seen=None)
    for model, alias in (("flights", "shadow"), ("other", "champion")):
        folder = three.store.path("models", model, "aliases", alias)
        folder.mkdir(parents=True)
        (folder / "1.json").write_text(moved.to_json())
        assert three.last_move(model, alias) is None
        with pytest.raises(IntegrityError, match=f"alias '{model}@{alias}' must stand where"):
            three.alias(model, alias)
    again = three.move_alias(three.model("flights@2"), "shadow", reason="b", seen=None)
    assert (again.number, three.alias("flights", "shadow")) == (2, again)


def test_every_opening_of_the_test_split_is_recorded(three: Catalog):
    manifest = three.publish_dataset(make_manifest())
    bundle = three.model("flights@2")
    first = three.open_test(manifest, bundle, run="r1")
    second = three.open_test(manifest, bundle, run="r1")
    assert (first.number, second.number) == (1, 2)
    assert (first.dataset, first.model, first.run) == ("flights@1", "flights@2", "r1")
    assert first.model_digest == bundle.model_digest
    assert [o.number for o in three.openings(manifest)] == [2, 1]
    other = three.publish_dataset(make_manifest(key="k2"))
    assert list(three.openings(other)) == []


def test_a_bad_opening_is_never_passed_over_in_silence(three: Catalog):
    manifest = three.publish_dataset(make_manifest())
    three.open_test(manifest, three.model("flights"), run="r1")
    three.store.path("datasets", "flights", "openings", "1", "2.json").write_text("")
    with pytest.raises(IntegrityError, match=r"2\.json' must not be empty"):
        list(three.openings(manifest))
    assert three.open_test(manifest, three.model("flights"), run="r2").number == 3


@pytest.mark.parametrize("told", ["alias", "evaluation"])
def test_a_number_that_was_taken_away_by_hand_is_not_given_to_another_model(
    three: Catalog, told: str
):
    if told == "alias":
        promote(three, 3)
        promote(three, 1)  # a rollback leads to it still
    else:
        three.publish_evaluation("flights", 3, evaluation_of(three, 3))
    three.store.path("models", "flights", "versions", "3.json").unlink()
    assert three.publish_model(make_bundle(key="other")).number == 4
    assert three.publish_model(make_bundle(key="other")).number == 4


def evaluation_of(catalog: Catalog, number: int) -> Evaluation:
    report = evaluate_predictions(
        "binary", np.array([0, 1]), np.array([0.1, 0.8]), seed=0, dataset="d@1", resamples=0
    )
    return make_evaluation(report).model_copy(update={"model": f"flights@{number}"})


def test_a_number_that_was_taken_away_by_hand_is_not_given_to_another_dataset(catalog: Catalog):
    manifest = catalog.publish_dataset(make_manifest())
    catalog.open_test(manifest, make_bundle(), run="r")
    catalog.store.path("datasets", "flights", "versions", "1.json").unlink()
    assert catalog.publish_dataset(make_manifest(key="other")).number == 2


def test_an_evaluation_of_other_bytes_speaks_for_no_model(three: Catalog):
    bundle = three.model("flights@3")
    found = evaluation_of(three, 3).model_copy(update={"model_digest": bundle.model_digest})
    three.publish_evaluation("flights", 3, found)
    assert three.own_evaluation(bundle) == found
    assert three.own_evaluation(bundle.model_copy(update={"threshold": 0.7})) is None
