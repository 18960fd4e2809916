"""Bins that trials share: how many ways are kept at the same time."""

from __future__ import annotations

import threading

import pytest

from ray_apps.tuning.shared_bins import SharedBins


@pytest.mark.parametrize(("room", "held"), [(2.0, 2), (3.0, 3), (9.0, 3), (0.5, 1)])
def test_as_many_ways_are_kept_as_there_is_room_for(room, held):
    bins, kept, made = SharedBins(3, room), set(), []

    class Way:
        def __init__(self, name):
            kept.add(name)
            made.append(name)
            self.name = name

        def __del__(self):
            kept.discard(self.name)

    for name in "abcd":
        bins.take((name,), lambda name=name: Way(name), 1.0)
        assert len(kept) <= held
        bins.let_go((name,))
    assert kept == set("abcd"[-held:])
    bins.take(("d",), lambda: Way("d"), 1.0)
    assert made == list("abcd")  # what is kept is not made again


def test_what_has_no_room_beside_others_waits_for_them():
    bins, taken = SharedBins(3, 2.0), threading.Event()
    bins.take(("a",), object, 1.0)

    def take() -> None:
        bins.take(("large",), object, 1.5)
        taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    bins.take(("b",), object, 1.0)
    bins.let_go(("b",))
    assert not taken.is_set()
    bins.let_go(("a",))
    waiting.join(10)
    assert taken.is_set()
