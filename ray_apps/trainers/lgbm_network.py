"""LightGBM's collective over a gang's own connections instead of the library's sockets.

The library takes two functions for its network (`LGBM_NetworkInitWithFunctions`): everything
that its workers say to each other then goes through connections that both ends have proven.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightgbm.basic import _LIB, LightGBMError, _safe_call

from arclight.errors import EngineError
from ray_apps.gang.wire import StepError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from ray_apps.gang import Gang

_Sizes = ctypes.POINTER(ctypes.c_int32)
_REDUCE = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int32)
_REDUCE_SCATTER = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, _Sizes, _Sizes, ctypes.c_int,
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p,
)  # fmt: skip
_ALLGATHER = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int32, _Sizes, _Sizes, ctypes.c_int, ctypes.c_void_p,
    ctypes.c_int32,
)  # fmt: skip


class Network:
    """The two functions, and what went wrong in them.

    An exception cannot pass through the library's C++ frames. After one, every call leaves this
    worker's own numbers in place, so that the library comes back, and `check` raises it.
    """

    def __init__(self, gang: Gang) -> None:
        self._gang = gang
        self._error: BaseException | None = None
        self.reduce_scatter = _REDUCE_SCATTER(self._reduce_scatter)
        self.allgather = _ALLGATHER(self._allgather)

    def check(self) -> None:
        """Raise what a call of the library could not.

        Raises:
            LostError: another worker is gone or silent.
        """
        if self._error is not None:
            raise self._error

    def _exchange(self, parts: Sequence[Buffer], sizes: Sequence[int]) -> list[bytes] | None:
        """Return what each worker gave, of the sizes the library expects; None after an error."""
        if self._error is not None:
            return None
        try:
            return self._gang.exchange(parts, sizes)
        except StepError as error:
            self._error = EngineError(f"LightGBM's workers came apart: {error.message}")
            return None
        except BaseException as error:  # noqa: BLE001 -- ctypes would print and forget it
            self._error = error
            return None

    def _reduce_scatter(  # noqa: PLR0913, PLR0917 -- the library's signature
        self,
        source: int,
        source_size: int,
        type_size: int,
        starts: Sequence[int],
        sizes: Sequence[int],
        count: int,
        target: int,
        _target_size: int,
        reducer: int,
    ) -> None:
        """Leave the sum of everybody's block of this worker in `target`."""
        rank, size = self._gang.rank, sizes[self._gang.rank]
        whole = _memory(source, source_size)
        places = zip(starts[:count], sizes[:count], strict=True)
        found = self._exchange([whole[at : at + long] for at, long in places], [size] * count)
        ctypes.memmove(target, source + starts[rank], size)
        if found is None:
            return
        add = _REDUCE(ctypes.c_void_p.from_address(reducer).value or 0)
        for other in range(count):
            if other != rank:
                add(found[other], target, type_size, size)

    def _allgather(
        self,
        source: int,
        size: int,
        starts: Sequence[int],
        sizes: Sequence[int],
        count: int,
        target: int,
        _target_size: int,
    ) -> None:
        """Leave everybody's block in `target`; the library may pass the same memory twice."""
        mine = ctypes.string_at(source, size)
        found = self._exchange([mine] * count, sizes[:count]) or [
            mine.ljust(sizes[i], b"\0") for i in range(count)
        ]
        for other in range(count):
            ctypes.memmove(target + starts[other], found[other], sizes[other])


@contextmanager
def network(gang: Gang) -> Iterator[Network]:
    """Connect the library in this thread with a gang for the length of a block."""
    made = Network(gang)
    if gang.world == 1:
        yield made
        return
    _safe_call(
        _LIB.LGBM_NetworkInitWithFunctions(
            ctypes.c_int(gang.world), ctypes.c_int(gang.rank), made.reduce_scatter, made.allgather
        )
    )
    try:
        yield made
        made.check()
    except LightGBMError:
        made.check()  # it stumbled over numbers that were not exchanged any more
        raise
    finally:
        _safe_call(_LIB.LGBM_NetworkFree())


def _memory(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_char * size).from_address(address))
