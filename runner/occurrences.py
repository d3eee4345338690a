"""Count equal runs in little memory, however long the plan: what was not counted before is known without the disk."""

from runner.database import Database

RECENT = 2000
"""So many digests wait in memory to be written together."""

MARK_BITS = 20
"""2 ** 20 bytes of marks: a million runs leave one in fifty to be looked up in vain."""

MARKS = 4
"""Bits that a digest sets; it is surely new if one of them is not set yet."""


class KeyIndex:
    """
    Says how often a digest was counted before. A file that goes away by itself has them all; a Bloom filter in memory
    says of nearly every new one that it needs no look at the file. A digest has 16 bytes.
    """

    def __init__(self) -> None:
        self._db = Database.scratch(
            schema="CREATE TABLE seen (digest BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._recent: dict[bytes, int] = {}
        self._marks = bytearray(1 << MARK_BITS)

    def count(self, digest: bytes) -> int:
        """How often *digest* was counted before; counts it once more."""
        before = self._recent.get(digest)
        if before is None:
            before = 0 if self._is_surely_new(digest) else self._looked_up(digest)
            if len(self._recent) >= RECENT:
                self._write()
        self._recent[digest] = before + 1
        return before

    def _is_surely_new(self, digest: bytes) -> bool:
        """Whether *digest* was never asked about; sets its marks."""
        marks, bits = self._marks, int.from_bytes(digest, "big")
        is_new = False
        for _ in range(MARKS):
            place, bit = bits >> 3 & (1 << MARK_BITS) - 1, 1 << (bits & 7)
            if not marks[place] & bit:
                marks[place] |= bit
                is_new = True
            bits >>= 32
        return is_new

    def _looked_up(self, digest: bytes) -> int:
        row = self._db.first("SELECT count FROM seen WHERE digest = ?", (digest,))
        return 0 if row is None else int(row[0])

    def _write(self) -> None:
        with self._db.transaction():
            self._db.do_each("INSERT OR REPLACE INTO seen VALUES (?, ?)", self._recent.items())
        self._recent.clear()

    def close(self) -> None:
        """Let the file go."""
        self._db.close()
