"""Workers that stay: processes of a part of a core each, libraries loaded, asked by pipes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.throttle import enter, parts_of_a_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

SHARE = 0.4
_SPAWN = multiprocessing.get_context("spawn")


class Crew:
    """Some workers; every call goes to all of them."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def ask(self, name: str, **params: Any) -> list[Any]:
        """Call a function of the workers' module in each, with its rank; return the answers.

        Raises:
            RuntimeError: one failed, with its sentence.
        """
        for rank, pipe in enumerate(self._pipes):
            pipe.send((name, {**params, "rank": rank, "world": len(self._pipes)}))
        answers = [pipe.recv() for pipe in self._pipes]
        failed = [text for is_fine, text in answers if not is_fine]
        if failed:
            raise RuntimeError("; ".join(failed))
        return [answer for _, answer in answers]


@contextmanager
def crew_of(workers: int, module: str) -> Iterator[Crew]:
    """Start workers that serve a module's functions; they end with the block."""
    with parts_of_a_core(workers, SHARE) as groups:
        pairs = [_SPAWN.Pipe() for _ in range(workers)]
        made = [
            _SPAWN.Process(target=_serve, args=(theirs, module, group), daemon=True)
            for (_, theirs), group in zip(pairs, groups, strict=True)
        ]
        for one in made:
            one.start()
        try:
            crew = Crew([mine for mine, _ in pairs])
            crew.ask("ready")
            yield crew
        finally:
            for one in made:
                one.kill()
                one.join()


def _serve(pipe: Connection, module: str, group: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    functions = importlib.import_module(module)
    enter(group)
    while True:
        name, params = pipe.recv()
        try:
            pipe.send((True, getattr(functions, name)(**params)))
        except Exception as error:  # noqa: BLE001 -- the boundary of a process
            pipe.send((False, f"worker {params['rank']}: {error!r}"))
