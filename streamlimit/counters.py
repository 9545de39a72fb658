"""Counters that all workers of a service share: one may be asked for the counts of all.

Each worker has a row of its own in shared memory and adds to plain numbers there, so that counting takes no lock, no
file and no look-up. prometheus-client has a mode for several processes, too: it takes a lock and writes to a file at
each step, and wants a directory.
"""

import multiprocessing
import os
from collections.abc import Sequence
from ctypes import c_uint64
from typing import Final

_ROWS: Final = 64
"""A worker that is started again takes a new one; what the one before has counted stays."""


class Counters:
    """Rows of counters, all 0. Made by the parent process and handed to workers as they are spawned.

    Args:
        width: How many counters a row has.
    """

    def __init__(self, width: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._width = width
        self._cells = context.RawArray(c_uint64, _ROWS * (width + 1))
        self._free, filling = context.Pipe(duplex=False)
        os.write(filling.fileno(), bytes(range(_ROWS)))
        filling.close()

    def take_row(self) -> memoryview:
        """Return a row for this process alone."""
        # The kernel gives each byte to one reader. When none is left, the last row is shared: where two meet, an
        # addition may be lost then, and nothing is invented.
        found = os.read(self._free.fileno(), 1)
        row = self._row(found[0] if found else _ROWS - 1)
        row[0] = 1
        return row[1:]

    def totals(self) -> Sequence[int]:
        """Return the sums over all rows."""
        rows = [row for row in map(self._row, range(_ROWS)) if row[0]]
        return [sum(column) for column in zip(*rows, strict=True)][1:] or [0] * self._width

    def _row(self, number: int) -> memoryview:
        size = self._width + 1
        return memoryview(self._cells).cast("B").cast("Q")[number * size : (number + 1) * size]
