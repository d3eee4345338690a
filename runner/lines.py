"""The text of a file by lines: where a character stands, and what of a line may be shown."""

import re
from dataclasses import dataclass

# YAML's line breaks, not Python's: str.splitlines() knows more of them, and lines would be miscounted.
BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SECRET_LINE = re.compile(
    r"""(?P<before>(?:api_?key|access_id|token|secret|password|webhook)["']?\s*:)(?P<value>.*)""", re.IGNORECASE
)
REFERENCE = re.compile(r"""\s*["']?\$\{\w+\}["']?\s*([,}#].*)?""")
_IN_PASSING = re.compile(
    r"""\brpa_\w+  # a key of RunPod's
    | (?<=://)[^\s/@"']+(?=@)  # a user name and password in a URL
    | (?<=[?&])[\w.-]*(?:key|token|secret|password|signature|sig)=[^\s&#"']+""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(slots=True)
class Fault(Exception):
    """A problem that ends the reading."""

    line: int
    column: int
    message: str
    fix: str | None = None


def position(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at *index*."""
    before = BREAK.split(text[:index])
    return len(before), len(before[-1]) + 1


def stars(text: str) -> str:
    return re.sub(r"\S", "*", text)


def masked(text: str) -> list[str]:
    """
    The lines of *text* as they may be shown: what looks like a secret becomes as many stars, so that carets stay right.

    Goes by the look of a line alone, for it also serves files that can't be parsed.
    """
    lines, hidden = [], -1  # the indentation of a key whose secret stands on the next lines
    for line in BREAK.split(text):
        indent = len(line) - len(line.lstrip())
        match = _SECRET_LINE.search(line)
        if hidden >= 0 and indent > hidden:
            line = stars(line)
        elif match and not REFERENCE.fullmatch(match["value"]):
            hidden = indent
            line = line[: match.start("value")] + stars(match["value"])
        else:
            hidden = -1
        lines.append(_IN_PASSING.sub(lambda found: stars(found[0]), line))
    return lines
