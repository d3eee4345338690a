"""Say where an artifact may go: a relative path that stays below its folder, on every kind of machine."""

import re
from collections.abc import Iterator

from runner.spec import ARTIFACT_KINDS, UNREAD, Job, found
from runner.values import JsonValue
from runner.wording import Finding, Loc

Trouble = tuple[str, str | None]
"""A message, and what to do about it."""

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_FILLED = UNREAD  # it may become anything
_DRIVE = re.compile(r"[A-Za-z]:")
_RELATIVE = "write one that starts below the batch's folder, such as images/{{ run.index }}.png"


def path_problem(path: str, *, rendered: bool = False) -> Trouble | None:
    """What is wrong with *path*, as far as its text tells: a template, or what it was *rendered* to."""
    text = path if rendered else _TEMPLATE.sub(_FILLED, path)
    if text.startswith(("/", "\\", "~")) or _DRIVE.match(text):
        return "an artifact's path is relative", _RELATIVE
    parts = re.split(r"[/\\]", text)
    if ".." in parts:
        return "an artifact's path can't leave its folder: '..' leads out of it", _RELATIVE
    if not path.strip():
        return "an artifact's path is empty", _RELATIVE
    if "" in parts or "." in parts:
        return "a part of this path is empty" if "" in parts else "'.' is no part of a path", _RELATIVE
    odd = next((character for character in text if not character.isprintable() and character != _FILLED), None)
    if odd is not None:
        return f"character U+{ord(odd):04X} can't be part of a path", None
    return None


def problems(loc: Loc, job: Job, raw: JsonValue) -> Iterator[Finding]:
    """
    What is wrong with the artifacts of the job at *loc*, before any of their templates is looked at.

    *raw* is what the file has there: what was left out of *job*, because it is wrong by itself, is not told again.
    """
    seen: dict[str, int] = {}
    for number, artifact in enumerate(job.artifacts):
        at: Loc = (*loc, "artifacts", number)
        written = _kinds(raw[number] if isinstance(raw, list) else None)
        if written is not None and len(written) != 1:
            message = f"an artifact is made from one thing, found {_listed(written)}"
            yield Finding(at, message, "write exactly one of " + ", ".join(ARTIFACT_KINDS))
        trouble = path_problem(artifact.path)
        if trouble:
            yield Finding((*at, "path"), *trouble)
        elif artifact.path in seen and artifact.path != UNREAD:
            message = f"artifact {seen[artifact.path] + 1} goes to {found(artifact.path)} already"
            yield Finding((*at, "path"), message, "give each artifact of a job a path of its own")
        seen.setdefault(artifact.path, number)


def _kinds(raw: JsonValue) -> list[str] | None:
    """The kinds that an artifact is written with; None where a key that is unknown may have been meant as one."""
    if not isinstance(raw, dict):
        return None
    # null is as if the key were not there, save for `json`, of which it is a value
    written = [kind for kind in ARTIFACT_KINDS if kind in raw and (raw[kind] is not None or kind == "json")]
    return written if written or not set(raw) - {"path", *ARTIFACT_KINDS} else None


def shared(loc: Loc, job: Job, runs: int) -> Iterator[Finding]:
    """Artifacts that every one of *runs* would write to the same file."""
    for number, artifact in enumerate(job.artifacts):
        if runs > 1 and not _TEMPLATE.search(artifact.path):
            message = f"all {runs} runs would write {found(artifact.path)}"
            yield Finding((*loc, "artifacts", number, "path"), message, "put {{ run.index }} into it")


def _listed(kinds: list[str]) -> str:
    return " and ".join(f"'{kind}'" for kind in kinds) or "none"
