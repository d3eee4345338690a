"""Shards of a batch: which run belongs to which, and which part of a limit is each one's. Pure."""

import math
import re
from dataclasses import dataclass
from typing import Self

from runner.errors import UsageError
from runner.units import Rate

MOST = 9999
"""So many shards a batch has at most: each is a folder, and asks for its own part of every limit."""

SHARDS = "shards"
"""The folder in a batch's that has its shards."""

_FORM = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_FOLDER = re.compile(r"(\d{2,4})-of-(\d{2,4})", re.ASCII)
_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The part *number* of *of* of a batch, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        What *text* says, such as ``3/16``.

        Raises:
            UsageError: it says no such thing.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"--shard wants NUMBER/COUNT or auto, found {text!r}", fix="write --shard 3/16")
        return cls.checked(int(found[1]), int(found[2]))

    @classmethod
    def checked(cls, number: int, of: int) -> Self:
        """
        Shard *number* of *of*.

        Raises:
            UsageError: there is no such shard.
        """
        if not 1 <= of <= MOST:
            raise UsageError(f"--shard {number}/{of}: a batch has 1 to {MOST} shards", fix="write --shard 3/16")
        if not 1 <= number <= of:
            raise UsageError(
                f"--shard {number}/{of}: there is no shard {number} of {of}",
                fix=f"shards count from 1: the last one is {of}/{of}",
            )
        return cls(number, of)

    @classmethod
    def of_folder(cls, name: str) -> Self | None:
        """The shard whose folder is called *name*, such as ``03-of-16``; None where none is called so."""
        found = _FOLDER.fullmatch(name)
        if found is None:
            return None
        shard = cls(int(found[1]), int(found[2]))
        return shard if 1 <= shard.number <= shard.of and shard.folder == name else None

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """How its folder is called: names sort as the numbers do."""
        width = max(2, len(str(self.of)))
        return f"{self.number:0{width}}-of-{self.of:02}"

    def has(self, key: str) -> bool:
        """
        Whether the run *key* is its own. Keys are digests, the same on every machine, so all shards agree on who has
        which, and each has about as many.
        """
        return int(key[:16], 16) % self.of == self.number - 1

    def count(self, total: int) -> int:
        """Its part of *total*: those of all shards add up to it, and none is more than one above another."""
        return total // self.of + (self.number <= total % self.of)

    def rate(self, total: Rate) -> Rate:
        """
        Its part of a rate: in no window the parts of all shards are more than *total*. Of fewer calls than there are
        shards each has one in a longer period, and they hold on average only.
        """
        if total.count >= self.of:
            return Rate(self.count(total.count), total.period_s)
        return Rate(1, math.ceil(total.period_s * self.of / total.count * 1000) / 1000)


WHOLE = Shard(1, 1)
"""A batch that is not divided."""


def check_batch_id(text: str) -> str:
    """
    *text* as what all shards of one batch call it.

    Raises:
        UsageError: it can't be the name of a folder everywhere.
    """
    if _BATCH_ID.fullmatch(text) is None or text == "latest":
        raise UsageError(
            f"--batch-id wants letters, digits, '.', '_' and '-', found {text!r}", fix="write --batch-id 2026-11-23"
        )
    return text
