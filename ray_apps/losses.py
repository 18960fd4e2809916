"""What happens when a training loses its workers: it goes on from its newest checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from arclight.errors import LostWorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from arclight.progress import Tell

PATIENCE = 3
"""Losses in a row, with no newer checkpoint or fold in between, that a training takes."""


class Progress(Protocol):
    """What is left in the store of a work that may be lost."""

    def progress(self) -> tuple[int, int]:
        """Return how far it is, the larger part first; more of either is progress."""


def go_on_after_losses(
    run: Callable[[int], None], checkpoints: Progress, tell: Tell, *, unit: str = "round"
) -> None:
    """Run a training, and again from its newest checkpoint whenever it loses a worker.

    Args:
        run: trains to the end, from the newest checkpoint; told how often it lost a worker just
            before.
        checkpoints: of this training.
        tell: told about each loss.
        unit: what progress is counted in.

    Raises:
        LostWorkerError: a worker was lost again and again, with no newer checkpoint in between.
        ArclightError: whatever else `run` raised.
    """
    reached, losses = checkpoints.progress(), 0
    while True:
        try:
            run(losses)
        except LostWorkerError as error:
            now = checkpoints.progress()
            losses = 1 if now > reached else losses + 1
            reached, (rounds, _) = now, now
            if losses > PATIENCE:
                raise LostWorkerError(
                    f"{error.message} It was lost {losses} times in a row after {unit} {rounds}: "
                    "give the workers more memory; the same command goes on from there."
                ) from error
            tell(f"{error.message} Going on after {unit} {rounds}.")
        else:
            return
