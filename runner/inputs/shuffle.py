"""
Rows in an order of their own, which a seed picks: the same on every machine and in every version of Python.

Rows are sorted by a digest of the seed and their number in the source, not drawn with `random`: so the order hangs on
nothing but these two, rows that are added to the end of a file change no order among the others, and with a limit only
as many rows as that are kept in mind. It costs about 60 bytes for each of them while the order is made, 8 afterwards;
the rows themselves wait in a temporary file.
"""

import heapq
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from runner import values
from runner.values import JsonObject

NUMBER_BITS = 48
"""Room for a row's number beside its digest in one integer, which takes half of what a tuple would."""
_LOW = (1 << NUMBER_BITS) - 1


def order(numbers: Iterable[int], seed: int, limit: int | None) -> "array[int]":
    """*numbers* in the order of *seed*; the first *limit* of them."""
    prefix = b"%d:" % seed
    ranked = (
        int.from_bytes(blake2b(prefix + b"%d" % number, digest_size=8).digest()) << NUMBER_BITS | number
        for number in numbers
    )
    first = sorted(ranked) if limit is None else heapq.nsmallest(limit, ranked)
    return array("Q", (one & _LOW for one in first))


def sample(numbers: Iterable[int], seed: int, size: int) -> list[int]:
    """*size* of the *numbers*, each as likely as any other, as they stand: the first ones in the order of *seed*."""
    return sorted(order(numbers, seed, size))


class Spool:
    """Rows in a temporary file, to be had in any order. It goes when this does."""

    def __init__(self, rows: Iterable[JsonObject | None], numbers: "array[int]") -> None:
        """
        Keep those of *rows* whose numbers, from 0, are in *numbers*, to give them in its order.

        All of *rows* are drawn, so that whatever reads a file comes to its end.
        """
        self._file = tempfile.TemporaryFile(prefix="runner-")  # noqa: SIM115  # closed by the finalizer
        weakref.finalize(self, self._file.close)
        wanted = iter(sorted(number << NUMBER_BITS | place for place, number in enumerate(numbers)))
        self._offsets = array("Q", bytes(8 * len(numbers)))
        following = next(wanted, None)
        for number, row in enumerate(rows):
            if following is not None and following >> NUMBER_BITS == number:
                self._offsets[following & _LOW] = self._file.tell()
                self._file.write(values.dump(row) + b"\n")
                following = next(wanted, None)

    def __len__(self) -> int:
        return len(self._offsets)

    def rows(self) -> Iterator[JsonObject]:
        """Every row, each a new mapping."""
        for offset in self._offsets:
            self._file.seek(offset)
            yield values.parse(self._file.readline())
