"""Know what a template may read, and say so when it reads something else."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any, Protocol

from runner.records import record
from runner.wording import suggest


class Use(Protocol):
    """A key that a template reads of a name."""

    @property
    def root(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def guarded(self) -> bool: ...


@record(frozen=True, slots=True)
class Known:
    """
    What a template sees: the keys of each name.

    None for a name that isn't there, an empty tuple of keys is a name without any; `ANY` one whose keys only the data
    tells. *more* are names that are there once a run has settled. *has_artifacts*: the rows are another job's runs.
    """

    row: tuple[str, ...] | None
    matrix: tuple[str, ...] | None
    vars: tuple[str, ...]
    has_repeat: bool = True
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_artifacts: bool = False

    @classmethod
    def of(cls, vars: Any, rows: Any) -> "Known":
        """What the raw *vars* and *rows* of a file offer, valid or not: one mistake must not bring on others."""
        constants = tuple(vars) if isinstance(vars, dict) else ()
        if rows is not None and not isinstance(rows, dict):
            return cls(ANY, ANY, constants)
        has_artifacts = (rows or {}).get("job") is not None
        return cls(_columns(rows or {}), _axes(rows or {}), constants, has_artifacts=has_artifacts)

    def rows_only(self) -> "Known":
        """What `where` sees, which comes before matrix and repeat."""
        return replace(self, matrix=None, has_repeat=False)

    def for_success(self) -> "Known":
        """What `success_when` sees: a remote job that is completed, and what it was run with."""
        return replace(self, more=dict.fromkeys(_SETTLED, ANY))

    def for_when(self, jobs: Iterable[str]) -> "Known":
        """What `when` sees: the needed *jobs*, and no row, for it is looked at once for all."""
        return Known(None, None, self.vars, has_repeat=False, more={"jobs": tuple(jobs)})

    def for_retry(self) -> "Known":
        """What `retry_when` sees: how an attempt ended, and what it was run with."""
        return replace(self, more=dict.fromkeys((*_SETTLED, *_ENDED), ANY) | {"error": _ERROR})

    def for_path(self, *, has_items: bool = False) -> "Known":
        """What an artifact's `path` sees: the run, and of what came of it only the type. *has_items*: it has `for`."""
        return replace(self, more={"run": ("index", "key"), "ext": ANY} | (_ITEM if has_items else {}))

    def for_artifact(self, *, has_items: bool = False) -> "Known":
        """What an artifact is made from. *has_items*: it has `for`."""
        return replace(self, more={"run": ("index", "key"), "output": ANY} | (_ITEM if has_items else {}))

    def problems(self, names: Iterable[str], uses: Iterable[Use]) -> Iterator[tuple[str, str | None, str]]:
        """Message, fix and a pattern that finds the spot, for every name and key that isn't there."""
        for name in sorted(names):
            trouble = self._name(name)
            if trouble:
                yield (*trouble, _spot(re.escape(name)))
        for use in uses:
            keys = {"row": self.row, "matrix": self.matrix, "vars": self.vars, **self.more}.get(use.root)
            if keys is None or keys is ANY or use.key is None or use.guarded or use.key in keys:
                continue
            message = f"{_NOUNS[use.root]} no '{use.key}'"
            fix = suggest(use.key, keys)
            if keys is OF_JOB and fix is not None and fix.startswith("known"):
                fix = f"write row.output.{use.key} for that part of its output; {fix}"
            if fix is None and use.root == "vars":
                fix = f"declare it: vars: {{{use.key}: …}}"
            pattern = rf"\b{use.root}\s*(?:\.\s*|\[\s*['\"])({re.escape(use.key)})\b"
            yield message, fix, pattern

    def _name(self, name: str) -> tuple[str, str | None] | None:
        if name in ("row", "matrix", "repeat") and "jobs" in self.more:
            return f"unknown name '{name}'", "'when' is looked at once for all rows: it sees jobs and vars"
        if name == "row":
            return ("the job has no rows", "give it rows.file or rows.inline") if self.row is None else None
        if name == "matrix" and self.has_repeat:
            return ("the job has no matrix", "give it rows.matrix") if self.matrix is None else None
        if name == "vars" or (name == "repeat" and self.has_repeat) or name in self.more:
            return None
        homes = {"row": self.row or (), "matrix": self.matrix or (), "vars": self.vars, "run": self.more.get("run", ())}
        for home, keys in homes.items():
            if name in keys:
                return f"unknown name '{name}'", f"did you mean '{home}.{name}'?"
        if name == "output" and "run" in self.more:
            made_of = "a path is made of run, row, matrix, repeat, vars and ext, and with 'for' of item and item_index"
            return f"unknown name '{name}'", made_of
        if name in _ELSEWHERE:
            return f"unknown name '{name}'", _ELSEWHERE[name]
        names = ["row", "matrix", "vars", "repeat"] if self.has_repeat else ["row", "vars"]
        if "jobs" in self.more:
            if name in self.more["jobs"]:
                return f"unknown name '{name}'", f"did you mean 'jobs.{name}'?"
            names = ["vars"]
        fix = suggest(name, [*names, *self.more])
        if "output" in self.more and fix is not None and fix.startswith("known"):
            fix = f"write output.{name} for that part of the output; {fix}"
        return f"unknown name '{name}'", fix


def _spot(name: str) -> str:
    """A pattern for *name* inside a template, else anywhere; never for a key of that name."""
    alone = rf"(?<![\w.])({name})\b"
    return rf"\{{[{{%](?:(?![}}%]\}}).)*?{alone}|{alone}"


ANY = ("*",)
_SETTLED = ("output", "status", "execution_time_ms", "delay_time_ms")
_ENDED = ("outcome", "attempts")
_ERROR = ("type", "message", "traceback")
_ITEM = {"item": ANY, "item_index": ANY}
_ENVIRONMENT = "declare it under vars, as name: ${VAR}, and write {{ vars.name }}"
_CHANCE = "there is no clock and no chance here: equal rows make equal requests"
_ELSEWHERE = {
    "output": "a run's output is there in success_when, retry_when, cost and artifacts only",
    "run": "run.index and run.key are there in artifacts only",
    **dict.fromkeys(
        ("status", "execution_time_ms", "delay_time_ms"), "that is there in success_when, retry_when and cost only"
    ),
    **dict.fromkeys(("outcome", "attempts", "error"), "that is there in retry_when only"),
    **dict.fromkeys(("item", "item_index"), "that is there in artifacts with 'for' only"),
    "ext": "the type of a file is there in an artifact's path only",
    **dict.fromkeys(("env", "environ", "os"), _ENVIRONMENT),
    **dict.fromkeys(("now", "today", "utcnow", "date", "time", "datetime", "timestamp", "random", "uuid"), _CHANCE),
}
"""Names that people look for and a template has not, or not here; and what they do instead."""

_NOUNS = {
    "row": "the rows have",
    "matrix": "the matrix has",
    "vars": "the vars have",
    "run": "a run has",
    "error": "an error has",
    "jobs": "'needs' has",
}

OF_JOB = ("job", "key", "index", "row", "matrix", "repeat", "output", "artifacts")
"""What a row has that is another job's run."""

OF_FILE = ("path", "name", "stem", "suffix", "size_bytes", "sha256")
"""What a row has that is a file of a folder."""


def _columns(rows: dict[str, Any]) -> tuple[str, ...] | None:
    if rows.get("job") is not None:
        return ("runs",) if rows.get("collect") is True else OF_JOB
    if rows.get("folder") is not None:
        return OF_FILE
    if "file" in rows or "openai" in rows:
        return ANY
    inline = rows.get("inline")
    if inline is None:
        return None
    if not isinstance(inline, list) or not all(isinstance(row, dict) for row in inline):
        return ANY
    return tuple(dict.fromkeys(key for row in inline for key in row))


def _axes(rows: dict[str, Any]) -> tuple[str, ...] | None:
    matrix, include = rows.get("matrix"), rows.get("include")
    if matrix is None and not include:
        return None
    added = [key for entry in include if isinstance(entry, dict) for key in entry] if isinstance(include, list) else []
    return tuple(dict.fromkeys([*(matrix if isinstance(matrix, dict) else {}), *added]))
