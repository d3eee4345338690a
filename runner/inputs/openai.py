"""
Rows that are requests for OpenAI's Batch API, or vLLM's ``run-batch``: a jsonl file, as it was made for these.

Each line has ``custom_id``, ``method``, ``url`` and ``body``, and no other has its ``custom_id``: by it the answers are
told apart. Source: OpenAI, API reference, "The request input object" of Batch; vLLM, "Offline inference with the OpenAI
batch file format" (read November 2026).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

from runner.inputs.base import BadRow, Report
from runner.inputs.source import DataFile, DataFiles, InputFile
from runner.scalars import found
from runner.values import JsonObject, JsonValue

MOST = 20
"""Requests with the id of another one that are told of before reading goes on without."""


class Requests:
    """
    The requests of some files, one after the other.

    The first reading to the end checks them; ids are counted on disk, however many there are.
    """

    def __init__(self, parts: Sequence[DataFile]) -> None:
        self._parts = parts
        self._all = DataFiles(parts)
        self.copy = self._all.copy
        self._is_checked = False

    @property
    def files(self) -> Sequence[InputFile]:
        """Those that were read to their ends."""
        return self._all.files

    def rows(self, report: Report) -> Iterator[JsonObject]:
        """Every request. One that is none, or has the id of an earlier one, is a bad row."""
        return self._all.rows(report) if self._is_checked else self._checked(report)

    def recall(self, known: Mapping[Path, InputFile]) -> bool:
        """Whether the files are as they are *known*: then they were checked before."""
        self._is_checked = self._all.recall(known)
        return self._is_checked

    def verify(self) -> None:
        """Raise UsageError when one of the files changed."""
        self._all.verify()

    def _checked(self, report: Report) -> Iterator[JsonObject]:
        from runner.occurrences import KeyIndex  # sqlite3: only such rows need it

        again: dict[str, list[tuple[DataFile, int]]] = {}
        with closing(KeyIndex()) as index:
            for part in self._parts:
                for row in part.rows(report):
                    trouble = problem(row)
                    if trouble is not None:
                        message, fix = trouble
                        report(BadRow(part.line, 1, message, fix, file=part.shown))
                    elif index.count(_digest(row["custom_id"])) == 0:
                        yield row
                    elif sum(map(len, again.values())) < MOST:
                        again.setdefault(row["custom_id"], []).append((part, part.line))
        for bad in self._duplicates(again):
            report(bad)
        self._is_checked = True

    def _duplicates(self, again: dict[str, list[tuple[DataFile, int]]]) -> Iterator[BadRow]:
        """What is wrong with those *again*, whose ids were there before; where that was is read again."""
        left = dict(again)
        for part in self._parts:
            for row in part.rows(_ignored) if left else ():
                places = left.pop(row["custom_id"], ()) if problem(row) is None else ()
                for other, line in places:
                    message = f"custom_id {found(row['custom_id'])} is that of {part.shown}:{part.line}, too"
                    yield BadRow(line, 1, message, "answers are told apart by it: give each its own", file=other.shown)
                if not left:
                    break


def problem(row: JsonObject) -> tuple[str, str | None] | None:
    """Why *row* is no request, and what to do about it."""
    for key, is_right, expected in _KEYS:
        if key not in row:
            return f"missing key '{key}' in a request for OpenAI", "rows.file reads jsonl of any other shape"
        if not is_right(row[key]):
            return f"expected {expected} as '{key}', found {found(row[key])}", None
    return None


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str) and value != ""


_KEYS = (
    ("custom_id", _is_text, "a text"),
    ("method", lambda value: value == "POST", "'POST'"),
    ("url", lambda value: isinstance(value, str) and value.startswith("/"), "a path such as '/v1/chat/completions'"),
    ("body", lambda value: isinstance(value, dict), "an object"),
)


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _ignored(_bad: BadRow) -> None:
    """A report for a second look: bad rows were told in the first."""
