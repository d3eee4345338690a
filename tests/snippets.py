"""
Read the blocks of code of a page of documentation, and what is said of each: `pages.py` tries them.

A fenced block with a title is a file. What the others are, their language says:

    console   commands behind `$ ` or `NAME$ `, and what they print
    yaml      a job file, or a part of one: what it leaves out is made up around it
    python    a script, run with `python`; a `title` makes it a file
    sh, bash  a script, run with `bash -e`
    json      parsed; jsonl line by line
    text      shown, and no more

In what is printed, `...` stands for what varies; alone in a line, for any lines. Times and batch ids vary anyway.
A comment before a block says otherwise:

    <!-- not run: needs Docker -->      the block is only parsed, as its language allows
    <!-- merge: first.yaml -->          this part of a job file is laid over that file of the page
    <!-- in the background -->          the command runs on until the page ends; waited for is what it is shown to print

and ``<!-- file: NAME`` begins a file that a page needs and does not show; it ends at ``-->``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_OPENING = re.compile(r"(?P<fence>```+) ?(?P<language>[\w-]*)(?: +title=\"(?P<title>[^\"]+)\")?(?P<rest>.*)")
_PROMPT = re.compile(r"(\w+)?\$ ")
_MARK = re.compile(r"<!-- (?P<what>not run|merge|in the background)(?:: (?P<how>.*?))? -->")
_FILE = re.compile(r"<!-- file: (?P<name>\S+)")
_VARYING = (
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "THEN"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "THEN"),
    (re.compile(r"\b\d+(\.\d+)?(µs|ms|s)(?![\w/])"), "WHILE"),
    (re.compile(r"\b\d+(\.\d+)? (KiB|kB)\b"), "SIZE"),
    (re.compile(r" {2,}"), "  "),
)


@dataclass(frozen=True)
class Snippet:
    """A block of code, where it is, and what a comment says of it."""

    place: str
    language: str
    text: str
    title: str | None = None
    marks: dict[str, str] = field(default_factory=dict)


def snippets(page: Path) -> Iterator[Snippet]:
    """All blocks of *page*, the hidden files among them, in order."""
    lines = page.read_text().split("\n")
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        place = f"{page.name}:{number}"
        if found := _OPENING.match(line.lstrip()):
            assert not found["rest"], f"{place}: what is {found['rest']!r}?"
            indent = len(line) - len(line.lstrip())
            end = next(at for at in range(number, len(lines)) if lines[at].strip() == found["fence"])
            text = "".join(one[indent:] + "\n" for one in lines[number:end])
            yield Snippet(place, found["language"], text, found["title"], marks)
            number, marks = end + 1, {}
        elif found := _FILE.match(line):
            end = lines.index("-->", number)
            yield Snippet(place, "file", "\n".join([*lines[number:end], ""]), found["name"])
            number = end + 1
        elif found := _MARK.fullmatch(line.strip()):
            marks = marks | {found["what"]: found["how"] or ""}
        elif line.strip():
            assert not marks, f"{place}: a comment of {sorted(marks)} is not before a block"
            assert not line.strip().startswith("<!-- not run"), f"{place}: malformed comment"


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of a console with what it is shown to print; lines behind `> ` go on with a command."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if prompt := _PROMPT.match(line):
            found.append([line[prompt.end() :], ""])
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        else:
            assert found, f"a console begins with a command, and not with {line!r}"
            found[-1][1] += line + "\n"
    return [(command, shown) for command, shown in found]


def matches(shown: str, got: str) -> bool:
    """Whether *got* is what *shown* shows, but for what varies from run to run."""
    pattern = ""
    for line in _constant(shown).splitlines():
        pattern += r"(?:.*\n)*?" if line == "..." else r".*?".join(map(re.escape, line.split("..."))) + r"\n"
    return re.fullmatch(pattern, _constant(got)) is not None


def _constant(text: str) -> str:
    """*text* without what no two runs have in common."""
    for what, name in _VARYING:
        text = what.sub(name, text)
    return "".join(line.rstrip() + "\n" for line in text.rstrip().splitlines())
