"""A study's file is the truth: what it says after any kill, and which study goes on."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from arclight.errors import ArclightError, ConflictError, IntegrityError, RefusedError
from arclight.store import open_store
from arclight.study import alone, find_study, newest_study, open_study, trial_lines
from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from arclight.tune_section import Tune
from ray_apps.train import model_key
from tests.arclight.made_records import make_manifest
from tests.ray_apps.make_dataset import make_spec

SPACE = {"max_depth": {"int": [2, 6]}, "learning_rate": {"float": [0.01, 0.3], "log": True}}


def spec_of(tune=None, **train):
    section = Tune.model_validate_json(json.dumps({"space": SPACE, **(tune or {})}))
    return make_spec(**train).model_copy(update={"tune": section})


def ended(number, value=0.5, **changes):
    return Trial(
        **{"number": number, "params": {}, "state": "complete", "value": value, **changes}
    )


def test_what_was_written_is_read_again(tmp_path):
    trials = Trials.read(TrialFile(tmp_path / "t.jsonl"))
    assert trials.next_number == 0
    trials.begin(0, {"a": 1})
    trials.begin(1, {"a": 0.1, "b": "x"})
    trials.end(ended(0, points=((4, 0.25),)))
    again = Trials.read(TrialFile(tmp_path / "t.jsonl"))
    assert (again.ended, again.begun) == (trials.ended, {1: {"a": 0.1, "b": "x"}})
    assert again.next_number == 2
    assert again.over is None


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_none_and_the_next_one_is_whole(tmp_path, cut):
    path = tmp_path / "t.jsonl"
    trials = Trials.read(TrialFile(path))
    for number in range(3):
        trials.begin(number, {"a": number})
    path.write_bytes(path.read_bytes()[:-cut])
    again = Trials.read(TrialFile(path))
    assert list(again.begun) == [0, 1]
    again.begin(2, {"a": 5})
    assert Trials.read(TrialFile(path)).begun == {0: {"a": 0}, 1: {"a": 1}, 2: {"a": 5}}


def test_what_another_writes_is_read_on_line_by_line(tmp_path):
    path = tmp_path / "t.jsonl"
    watching, writing = Trials.read(TrialFile(path)), Trials.read(TrialFile(path))
    for number in range(3):
        writing.begin(number, {"a": number})
        watching.read_on()
        assert watching == writing
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"begun": 3, "par')  # it is being written
    watching.read_on()
    assert list(watching.begun) == [0, 1, 2]
    Trials.read(TrialFile(path)).begin(4, {"a": 4})  # by one that goes on after a kill
    watching.read_on()
    assert list(watching.begun) == [0, 1, 2, 4]
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(IntegrityError, match="line 5 of"):
        watching.read_on()


def test_a_changed_line_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    trials = Trials.read(TrialFile(path))
    trials.begin(0, {})
    trials.end(ended(0))
    whole = path.read_text()
    path.write_text(whole.replace('"value": 0.5', '"value": 0.9'))
    with pytest.raises(IntegrityError, match="line 2 of"):
        Trials.read(TrialFile(path))
    path.write_text(whole.replace('"begun": 0', '"begun": Infinity').split(', "own"')[0] + "}\n")
    with pytest.raises(IntegrityError, match="line 1 of"):
        Trials.read(TrialFile(path))


def test_trials_of_an_older_release_are_read(tmp_path):
    path = tmp_path / "t.jsonl"
    Trials.read(TrialFile(path)).end(ended(0))
    body = json.loads(path.read_text())
    del body["own"]
    path.write_text(json.dumps(body) + "\n")
    assert Trials.read(TrialFile(path)).ended == {0: ended(0)}


def test_a_study_that_was_copied_from_another_is_none(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    for seed in (1, 2):
        study, trials = open_study(store, manifest, spec_of(seed=seed))
        trials.close(study.tune)
    folder = tmp_path / "studies/demo/versions"
    shutil.copy(folder / "1.json", folder / "2.json")
    assert find_study(store, "demo@1").number == 1
    with pytest.raises(IntegrityError, match="must hold study demo@2, but holds demo@1"):
        find_study(store, "demo@2")


def test_the_best_is_first_and_of_equal_ones_the_older(tmp_path):
    trials = Trials.read(TrialFile(tmp_path / "t"))
    for number, value in enumerate((0.4, 0.7, None, 0.7, 0.1)):
        trials.end(ended(number, value, state="failed" if value is None else "complete"))
    assert [t.number for t in trials.ranked("auc")] == [1, 3, 0, 4]
    assert [t.number for t in trials.ranked("log_loss")] == [4, 0, 1, 3]
    study, _ = open_study(open_store(tmp_path / "store"), make_manifest(), spec_of())
    assert study.best(trials) == study.ranked(trials)[0] == trials.ended[1]


def test_the_same_search_goes_on_and_its_budget_may_change(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    first, trials = open_study(store, manifest, spec_of())
    trials.begin(0, {})
    more = spec_of({"trials": 90, "time_limit_s": 5, "target": 0.9, "at_once": 1})
    again, known = open_study(store, manifest, more)
    assert (again.ref, again.tune.trials, list(known.begun)) == (first.ref, 90, [0])
    workers = spec_of(workers=1, checkpoint_every="5m")
    assert open_study(store, manifest, workers)[0].ref == first.ref


CHANGED = [
    (
        {"space": {**SPACE, "max_depth": {"int": [2, 9]}}},
        {},
        r"space \(max_depth: \[2, 6\], now \[2, 9\]\)",
    ),
    (
        {"space": {"max_depth": SPACE["max_depth"]}},
        {},
        r"space \(learning_rate: \[0.01, 0.3\], log, now not there\)",
    ),
    ({"sampler": "random"}, {}, r"tune.sampler \(tpe, now random\)"),
    ({}, {"rounds": 31}, r"train.rounds \(30, now 31\)"),
    ({}, {"metric": "log_loss"}, r"metric \(auc, now log_loss\)"),
]


@pytest.mark.parametrize(("tune", "train", "told"), CHANGED)
def test_U4_another_search_is_refused_while_one_is_not_over(tmp_path, tune, train, told):
    store, manifest = open_store(tmp_path), make_manifest()
    first, trials = open_study(store, manifest, spec_of())
    trials.begin(0, {"max_depth": 2})
    other = spec_of(tune, **train)
    with pytest.raises(RefusedError, match=told):
        open_study(store, manifest, other)
    second, _ = open_study(store, manifest, other, new=True)
    assert (first.number, second.number) == (1, 2)
    assert newest_study(store, "demo") == second
    assert trial_lines(store, first) != trial_lines(store, second)
    # once it is over, another one begins by itself
    Trials.read(trial_lines(store, second)).close(second.tune)
    assert open_study(store, manifest, spec_of())[0].number in (1, 3)
    assert trials.over is None


def test_a_study_without_trials_keeps_nobody_from_another(tmp_path):
    """What it was begun with was refused, say."""
    store, manifest = open_store(tmp_path), make_manifest()
    open_study(store, manifest, spec_of())
    other = spec_of(rounds=31)
    assert open_study(store, manifest, other)[0].number == 2
    assert open_study(store, manifest, other)[0].number == 2


def test_what_a_submission_began_anew_its_next_attempt_goes_on_with(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    open_study(store, manifest, spec_of())

    def anew(asked_by):
        return open_study(store, manifest, spec_of(), new=True, asked_by=asked_by)[0].number

    assert [anew("demo-abc"), anew("demo-abc"), anew("demo-def"), anew(""), anew("")] == [
        2, 2, 3, 4, 5,
    ]  # fmt: skip
    assert anew("demo-abc") == 2
    assert open_study(store, manifest, spec_of())[0].number == 5


def test_a_damaged_newest_study_is_told_and_another_may_begin(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    open_study(store, manifest, spec_of())
    (tmp_path / "studies/demo/versions/1.json").write_text("")
    with pytest.raises(IntegrityError, match=r"study, demo@1, .* another study with --new-study"):
        open_study(store, manifest, spec_of())
    assert open_study(store, manifest, spec_of(), new=True)[0].number == 2


def test_the_file_says_what_a_search_may_spend_now(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    _, trials = open_study(store, manifest, spec_of({"trials": 12}))
    for count in (12, 12, 30):
        trials.allow(spec_of({"trials": count}).tune)
        assert Trials.read(trials.lines).budget["trials"] == count
    assert len(trials.lines.path.read_text().splitlines()) == 2
    trials.close(spec_of({"trials": 30, "time_limit_s": 9}).tune)
    assert Trials.read(trials.lines).budget["time_limit_s"] == 9


def test_an_older_study_is_gone_on_with_by_the_budget_of_now(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    first, trials = open_study(store, manifest, spec_of())
    trials.close(first.tune)
    second, others = open_study(store, manifest, spec_of({"sampler": "random"}))
    others.close(second.tune)
    again, _ = open_study(store, manifest, spec_of({"trials": 200}))
    assert (again.number, again.tune.trials) == (1, 200)


def test_a_study_that_was_given_more_is_not_over_until_it_is(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    study, trials = open_study(store, manifest, spec_of())
    trials.close(study.tune)
    trials.begin(0, {})
    with pytest.raises(RefusedError, match=r"train.rounds \(30, now 31\)"):
        open_study(store, manifest, spec_of(rounds=31))


def test_attempts_are_counted_and_interrupts_are_not(tmp_path):
    trials = Trials.read(TrialFile(tmp_path / "t"))
    for _ in range(3):
        trials.begin(0, {"a": 1})
    assert Trials.read(TrialFile(tmp_path / "t")).attempts[0] == 3
    trials.leave(0)
    assert Trials.read(TrialFile(tmp_path / "t")).attempts[0] == 0
    assert Trials.read(TrialFile(tmp_path / "t")).begun == {0: {"a": 1}}


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    trials = Trials.read(TrialFile(tmp_path / "t"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArclightError, match="must be written, but No space left"):
        trials.begin(0, {})


def test_of_two_commands_one_makes_the_trials(tmp_path):
    store = open_store(tmp_path)
    study, _ = open_study(store, make_manifest(), spec_of())
    lines = trial_lines(store, study)
    with (
        alone(lines, study),
        pytest.raises(ConflictError, match="searched by another"),
        alone(lines, study),
    ):
        pass
    with alone(lines, study):
        pass


def test_what_a_lost_worker_held_is_waited_for(tmp_path):
    store = open_store(tmp_path)
    study, trials = open_study(store, make_manifest(), spec_of())
    with ExitStack() as other:
        other.enter_context(alone(trials.lines, study))
        ends = threading.Timer(1.0, other.close)
        ends.start()
        with alone(trials.lines, study, patience_s=60):
            trials.begin(0, {})
        ends.join()
    assert list(Trials.read(trials.lines).begun) == [0]


def test_a_search_is_over_for_what_it_was_given(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    study, trials = open_study(store, manifest, spec_of())
    trials.close(study.tune)
    assert trials.is_over_for(study.tune)
    assert not trials.is_over_for(study.tune.model_copy(update={"trials": 51}))
    assert trials.is_over_for(study.tune.model_copy(update={"at_once": 1}))


ANYWHERE = [{"workers": 3}, {"device": "cpu"}, {"bins": "disk"}, {"checkpoint_every": "1h"}]


@pytest.mark.parametrize("where", ANYWHERE)
def test_where_it_is_trained_is_no_part_of_a_study_or_a_model(tmp_path, where):
    store, manifest = open_store(tmp_path), make_manifest()
    study, _ = open_study(store, manifest, spec_of())
    same, _ = open_study(store, manifest, spec_of(**where))
    assert (same.ref, same.key) == (study.ref, study.key)
    assert model_key(manifest, spec_of(**where)) == model_key(manifest, spec_of())


def test_a_damaged_older_study_is_none_to_go_on_with(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    for seed in (1, 2):
        study, trials = open_study(store, manifest, spec_of(seed=seed))
        trials.close(study.tune)
    record = Path(store.record(1, "studies", study.name, "versions").path)
    record.chmod(0o600)
    record.write_text("")
    assert open_study(store, manifest, spec_of(seed=3))[0].number == 3


def test_fields_that_came_later_change_no_key_of_an_older_study(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("arclight.study.digest_of", lambda body: told.append(body) or "0" * 64)
    for number, tune in enumerate(({}, {"folds": 3}, {"fidelity": "rows"})):
        open_study(open_store(tmp_path / str(number)), make_manifest(), spec_of(tune))
    assert [set(body["tune"]) - {"sampler", "scheduler", "space"} for body in told] == [
        set(), {"folds"}, {"fidelity"},
    ]  # fmt: skip
    assert not set(told[0]["train"]) & {"workers", "device", "bins", "checkpoint_every"}


def test_a_study_that_was_taken_away_by_hand_leaves_its_trials_to_no_other(tmp_path):
    store, manifest = open_store(tmp_path), make_manifest()
    _, trials = open_study(store, manifest, spec_of(seed=1))
    trials.end(ended(0))
    (tmp_path / "studies/demo/versions/1.json").unlink()
    study, trials = open_study(store, manifest, spec_of(seed=2))
    assert (study.number, trials.ended) == (2, {})
