"""Say where an artifact may go: a relative path that stays below its folder, on every kind of machine."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from runner.spec import ARTIFACT_KINDS, MOST_ARTIFACT_BYTES, UNREAD, Artifact, Job, found
from runner.units import size
from runner.values import JsonValue
from runner.wording import Finding, Loc

Trouble = tuple[str, str | None]
"""A message, and what to do about it."""

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_FILLED = UNREAD  # it may become anything
_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_OF_A_RUN = ("run", "row", "matrix", "repeat", "item")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_RELATIVE = "write one that starts below the batch's folder, such as images/{{ run.index }}.png"

ASIDE = ".*.part"
"""What files are called while they are made, in the folder for artifacts."""


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
    for part in parts:
        if not part.strip(" ."):  # Windows takes '.. ' for '..'
            return f"{found(part)} is no part of a path", _RELATIVE
        if _DEVICE.fullmatch(part):
            return f"{found(part)} is a device on Windows, and no file can have its name", "write another name"
    if fnmatchcase(text, ASIDE) and len(parts) == 1:
        return f"names like {ASIDE} are taken by files in the making", "put it into a folder, or write another name"
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
        elif artifact.for_ is not None and artifact.path != UNREAD and not reads(artifact, "item", "item_index"):
            message = f"all items of 'for' would be written to {found(artifact.path)}"
            yield Finding((*at, "path"), message, "put {{ item_index }} into it")
        seen.setdefault(artifact.path, number)
        if artifact.most_bytes is not None and artifact.most_bytes > MOST_ARTIFACT_BYTES:
            message = f"an artifact is at most {size(MOST_ARTIFACT_BYTES)}, found {size(artifact.most_bytes)}"
            yield Finding((*at, "max_size"), message)


def _kinds(raw: JsonValue) -> list[str] | None:
    """The kinds that an artifact is written with; None where a key that is unknown may have been meant as one."""
    if not isinstance(raw, dict):
        return None
    # null is as if the key were not there, save for `json`, of which it is a value
    written = [kind for kind in ARTIFACT_KINDS if kind in raw and (raw[kind] is not None or kind == "json")]
    return written if written or not set(raw) - {"path", "for", "max_size", *ARTIFACT_KINDS} else None


def shared(loc: Loc, job: Job, runs: int) -> Iterator[Finding]:
    """Artifacts that every one of *runs* would write to the same file."""
    for number, artifact in enumerate(job.artifacts):
        if runs > 1 and not reads(artifact, *_OF_A_RUN):
            message = f"all {runs} runs would write {found(artifact.path)}"
            yield Finding((*loc, "artifacts", number, "path"), message, "put {{ run.index }} into it")


def _listed(kinds: list[str]) -> str:
    return " and ".join(f"'{kind}'" for kind in kinds) or "none"


def reads(artifact: Artifact, *names: str) -> bool:
    """Whether the path of *artifact* may be another where one of *names* is: a template in it has that word."""
    words = re.compile(rf"\b({'|'.join(names)})\b")
    return any(words.search(_QUOTED.sub("", template)) for template in _TEMPLATE.findall(artifact.path))
