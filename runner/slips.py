"""Say what is wrong with a text that is no YAML: libyaml's complaint in words that name the slip."""

import re
from collections.abc import Sequence
from typing import Protocol

from runner.lines import BREAK, Fault

_UNQUOTED = re.compile(r"(?:[:\-\[,]\s+|^\s*)(\{\{)")


class Mark(Protocol):
    """A place in a file, counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def explain(text: str, problem: str, mark: Mark, start: Mark | None, quoted: tuple[Mark, Mark] | None = None) -> Fault:
    """
    What libyaml's *problem* at *mark* comes from.

    *start* is where the part that it was reading begins. *quoted* is where the text in quotes begins and ends that
    stands right before the problem, None when none does.
    """
    line, column = mark.line + 1, mark.column + 1
    source = BREAK.split(text)
    shown = source[line - 1] if line <= len(source) else ""
    slip = _slip(source, line, column)
    if slip is not None:
        return slip
    if quoted is not None and quoted[1].line == mark.line and "did not find expected" in problem:
        begins, ends = quoted
        if begins.line < ends.line:
            message = f"the quote that opens here is closed only in line {ends.line + 1}"
            return Fault(begins.line + 1, begins.column + 1, message, "close it where its text ends")
        if problem.endswith("key"):
            fix = "quote the whole text; inside '…' write '' for a quote, inside \"…\" write \\\""
            return Fault(line, column, "the text goes on after its closing quote", fix)
    here = shown[column - 1 : column]
    if "did not find expected key" in problem and here in ("}", "]"):
        return Fault(line, column, f"this '{here}' closes nothing", "remove it")
    if "alphabetic or numeric" in problem:  # of the name of an alias or an anchor
        return Fault(
            line, column - 1, f"a text can't start with '{shown[column - 2 : column - 1]}'", "put it in quotes"
        )
    if "cannot start any token" in problem:
        if here == "\t":
            return Fault(line, column, "a tab can't indent YAML", "use spaces")
        return Fault(line, column, f"a text can't start with '{here}'", "put it in quotes")
    if "unexpected end of stream" in problem and start is not None:
        return Fault(start.line + 1, start.column + 1, "this quote is never closed", "close it")
    for words, message, fix in _COMPLAINTS:
        if words in problem:
            opened = f" of line {start.line + 1}" if start is not None and start.line + 1 < line else ""
            return Fault(line, column, message, fix.replace("' of here", f"'{opened}"))
    return Fault(line, column, f"this can't be read as YAML: {problem}")


_COMPLAINTS = (
    (
        "mapping values are not allowed",
        "a ':' is not expected here",
        "quote a text with ': ' in it, or mend the indentation",
    ),
    ("could not find expected ':'", "expected 'key: value'", "put a ':' and a space after the key"),
    ("did not find expected key", "expected a key here", "mend the indentation, or close a quote or bracket above"),
    ("did not find expected '-' indicator", "expected a '-' here", "indent all entries of a list alike"),
    ("did not find expected ',' or '}'", "expected ',' or '}'", "close the '{' of here, or quote the text in it"),
    ("did not find expected ',' or ']'", "expected ',' or ']'", "close the '[' of here, or quote the text in it"),
    ("did not find expected node content", "expected a value here", "write one, or quote the text"),
    ("did not find expected <document start>", "the document has ended before this", "mend the indentation"),
    ("block sequence entries are not allowed", "a list can't start here", "start it on a line of its own"),
    (
        "found undefined alias",
        "this alias has no anchor before it",
        "quote a text that starts with '*'; an alias needs &name at the value it repeats",
    ),
    ("found duplicate anchor", "this anchor is there twice", "rename one of the two"),
    ("did not find expected comment or line break", "a text can't start with '>' or '|'", "put it in quotes"),
    ("expected chomping or indentation", "a text can't start with '>' or '|'", "put it in quotes"),
    ("found invalid Unicode", "this escape is half a character", "write the character itself, or \\U and 8 digits"),
    ("found a tab character", "a tab can't indent YAML", "use spaces"),
    ("found unknown escape character", "this escape is not known", "write \\\\ for a backslash, or use single quotes"),
    ("found unexpected ':'", "a ':' is not expected here", "put a space after it, or quote the text"),
    ("expected hexdecimal number", "this escape is not whole", "write \\\\ for a backslash, or use single quotes"),
    ("unexpected document indicator", "the document ends inside a quote that is open", "close the quote above"),
    ("undefined tag handle", "tags are not supported", "quote a text that starts with '!'"),
)
"""libyaml's words, ours, and what to do."""


def _slip(source: Sequence[str], line: int, column: int) -> Fault | None:
    """One of the three commonest slips, looked for where the parser stopped and on the line before."""
    for number in (line, line - 1):
        shown = source[number - 1] if 0 < number <= len(source) else ""
        unquoted = _UNQUOTED.search(shown)
        if unquoted:
            rest = shown[unquoted.start(1) :].rstrip()
            message = "a template must be quoted: YAML reads '{{' as a mapping"
            return Fault(number, unquoted.start(1) + 1, message, f'write "{rest}"' if "}}" in rest else None)
        dollar = shown.rfind("${", 0, column + 1 if number == line else len(shown))
        if dollar >= 0 and "{" in shown[:dollar] and not _in_quotes(shown, dollar):
            if shown.startswith("${{", dollar):
                return Fault(number, dollar + 1, "'${{' is not a template", 'write "{{ x }}", in quotes')
            end = shown.find("}", dollar) + 1 or len(shown)
            reference = re.sub(":-.*", ":-…}", shown[dollar:end])  # a default may be the secret itself
            fix = f'write "{reference}"'
            return Fault(number, dollar + 1, "a reference inside { } must be quoted", fix)
    return None


def _in_quotes(shown: str, index: int) -> bool:
    """Whether the character at *index* is inside quotes, as far as one line tells."""
    return any(shown[:index].count(quote) % 2 for quote in "\"'")
