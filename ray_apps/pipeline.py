"""Stages that work at once, with little between them: reading ahead, writing behind."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType

T = TypeVar("T")
DEPTH = 2
_END = object()


def read_ahead(items: Iterator[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """Yield the items of an iterator that runs on a thread of its own, a few ahead."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    waiting: deque[Future[object]] = deque()
    try:
        waiting.extend(pool.submit(next, items, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_ahead(items: Iterator[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """Run calls on a few threads and yield their results in order, a few ahead of the taker."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class WriteBehind(Generic[T]):
    """Calls a sink on a thread of its own, in order; at most a few items wait."""

    def __init__(self, sink: Callable[[T], None], depth: int = DEPTH) -> None:
        self._sink, self._depth = sink, depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def put(self, item: T) -> None:
        """Hand over an item; raises what the sink raised for an earlier one."""
        self._waiting.append(self._pool.submit(self._sink, item))
        if len(self._waiting) > self._depth:
            self._waiting.popleft().result()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._waiting:
                future.result()
