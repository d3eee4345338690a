"""
Turn YAML text into a checked job file, or into every problem with its place.

Reading is YAML 1.2 core over PyYAML's composed nodes: PyYAML itself speaks 1.1, lets the last of two equal keys win
and retypes ``on``, ``1:30`` and ``0123``. Sizes are counted on the event stream first: the C composer recurses, and
100,000 nested brackets end the process.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import yaml

from runner.errors import JobFileError, Problem, UsageError
from runner.layers import Layers, copied, lay, profiles
from runner.lines import REFERENCE, Fault, masked, position, stars
from runner.records import record
from runner.salvage import of_layers, validate
from runner.slips import explain
from runner.spec import JobFileSpec, found
from runner.values import JsonObject, JsonValue
from runner.wording import Finding, Loc, suggest

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_ALIASES = 100
MAX_VALUES = 1_000_000
"""Values in a file once its aliases are written out: a hundred aliases are enough to make billions."""

# C is ten times faster; PyYAML built without libyaml has only the other.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN = "plain"
_TEXT = "tag:yaml.org,2002:str"
_CORE: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_CORE |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_LEADING_ZERO = re.compile(r"[-+]?0\d")
_NO_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Loader(_Base):  # type: ignore[misc]  # its base is chosen at run time
    """Composes nodes and leaves the typing of plain scalars to us."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        """A mark of our own on plain scalars; YAML 1.1's guesses on none."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TEXT
        return "map" if kind is yaml.MappingNode else "seq"


@record(frozen=True)
class Document:
    """
    A job file as text and as a tree, so that any part of it can be pointed at.

    *value* is as it is written, *layers* what it comes to: places are asked for by the latter's paths.
    """

    path: Path
    file: str
    sha256: str
    text: str
    root: yaml.Node
    value: JsonValue
    lines: list[str] = field(repr=False)
    layers: Layers = field(repr=False)

    def problem(self, found: Finding, *, warning: bool = False, column: tuple[int, int] | None = None) -> Problem:
        """*found* with its place. *column* overrides the place: line and column, for a spot inside a text."""
        mark = locate(self.root, self.layers.origin(found.loc), at_key=found.at_key)
        line, at = column or (mark.line + 1, mark.column + 1)
        source = self.lines[line - 1] if line <= len(self.lines) else None
        via = self.layers.via(found.loc)
        return Problem(self.file, line, at, found.message, found.fix, source, warning, via)

    def spot(self, loc: Loc, pattern: str) -> tuple[int, int] | None:
        """Line and column of the first match of *pattern* inside the text at *loc*; None when it isn't there."""
        node = descend(self.root, self.layers.origin(loc))
        if node is None:
            return None
        match = re.compile(pattern).search(self.text, node.start_mark.index, node.end_mark.index)
        return position(self.text, match.start(match.lastindex or 0)) if match else None


@record(frozen=True, slots=True)
class Loaded:
    """
    What came of a file.

    *spec* holds what is valid of it, None when nothing can stand alone; it is only complete when *problems* is empty.
    *faults* are those of the problems that are slips of YAML.
    """

    document: Document
    spec: JobFileSpec | None
    problems: list[Problem]
    faults: list[Problem] = field(repr=False)

    def under(self, profile: str | None) -> "Loaded":
        """
        What comes of the file under *profile*, None being none. What is wrong with it without any is told as well.

        Raises:
            UsageError: the file has no such profile.
        """
        written: JsonObject = self.document.value
        names = profiles(written)
        if profile is not None and profile not in names:
            fix = suggest(profile, names) or "the file has no profiles"
            raise UsageError(f"unknown profile '{profile}' in {self.document.file}", fix=fix)
        found = of_layers(written)
        told = {finding.loc for finding in found}
        problems = [*self.faults, *map(self.document.problem, found)]
        for name in dict.fromkeys((None, profile)):
            layers = lay(written, name)
            document = replace(self.document, layers=layers)
            found, spec = validate(layers.value)
            problems += [document.problem(finding) for finding in found if layers.origin(finding.loc) not in told]
        return Loaded(document, spec, list(dict.fromkeys(problems)), self.faults)  # what is merged twice is wrong once


def left_of(path: Path, value: JsonObject, *, sha256: str) -> Document:
    """The job file at *path* of which only the *value* is known any more: all its problems are at its beginning."""
    return Document(path, str(path), sha256, "", _compose("null"), value, [], Layers(value))


def load(path: Path, *, profile: str | None = None) -> Loaded:
    """
    Read the job file at *path* and hold it against the grammar, under *profile*.

    Raises:
        JobFileError: it can't be read as YAML at all, so that nothing further can be said.
        UsageError: it has no such profile.
    """
    data = _read(path)
    text = _decode(path, data)
    lines = masked(text)
    try:
        root = _compose(text)
        reader = _Reader(text)
        value = reader.value(root)
    except Fault as fault:
        raise JobFileError([_shown(str(path), lines, fault)]) from None
    _mask_secrets(root, lines)
    problems = [_shown(str(path), lines, fault) for fault in reader.faults]
    document = Document(path, str(path), hashlib.sha256(data).hexdigest(), text, root, value, lines, Layers({}))
    if not isinstance(value, dict):
        raise JobFileError(problems or [document.problem(_not_a_job_file(value))])
    if copied(value) > MAX_VALUES:
        message = f"more than {MAX_VALUES} values once every job has them"
        raise JobFileError([document.problem(Finding(("defaults",), message, at_key=True))])
    return Loaded(document, None, [], problems).under(profile)


def _not_a_job_file(value: JsonValue) -> Finding:
    if value is None:
        return Finding((), "the file is empty", "`runner init` writes a job file to start from")
    fix = "write version:, name:, endpoints: and jobs: at the beginnings of lines"
    return Finding((), f"expected a mapping with the keys of a job file, found {found(value)}", fix)


def _read(path: Path) -> bytes:
    """The bytes of *path*, or a problem that names it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message, fix = "there is no such file", None
    except IsADirectoryError:
        message, fix = "this is a folder", "name a job file in it"
    except (OSError, ValueError) as error:
        message, fix = f"can't be read: {getattr(error, 'strerror', None) or error}", None
    else:
        if len(data) <= MAX_BYTES:
            return data
        message, fix = "a job file has at most 8 MiB", "put the rows into a csv or jsonl file, and name it in rows.file"
    raise JobFileError([Problem(str(path), 1, 1, message, fix)])


def _decode(path: Path, data: bytes) -> str:
    """*data* as text, without a byte order mark."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = position(data[: error.start].decode("utf-8-sig", "replace"), error.start)
        fix = "save the file as UTF-8"
        raise JobFileError([Problem(str(path), line, column, "expected UTF-8 text", fix)]) from None
    try:
        _printable(text)
    except Fault as fault:
        raise JobFileError([_shown(str(path), masked(text), fault)]) from None
    return text


def _printable(text: str) -> None:
    """Refuse what YAML doesn't allow: the parser would, without saying where."""
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        message = f"character U+{ord(odd[0]):04X} can't be part of a YAML file"
        raise Fault(*position(text, odd.start()), message, 'write it as an escape in double quotes, such as "\\u0007"')


def _shown(file: str, lines: Sequence[str], fault: Fault) -> Problem:
    source = lines[fault.line - 1] if fault.line <= len(lines) else None
    return Problem(file, fault.line, fault.column, fault.message, fault.fix, source)


def _mask_secrets(root: yaml.Node, lines: list[str]) -> None:
    """Mask secret values that stand on lines of their own, which `masked` can't know."""
    for node in _secrets(root):
        if isinstance(node, yaml.SequenceNode) or (
            isinstance(node, yaml.ScalarNode) and not REFERENCE.fullmatch(node.value)
        ):
            for number in range(node.start_mark.line, min(node.end_mark.line + 1, len(lines))):
                start = node.start_mark.column if number == node.start_mark.line else 0
                end = node.end_mark.column if number == node.end_mark.line else len(lines[number])
                lines[number] = lines[number][:start] + stars(lines[number][start:end]) + lines[number][end:]


def _secrets(root: yaml.Node) -> Iterator[yaml.Node | None]:
    """Every node whose value is secret, or may be."""
    layers = [root, *_children(descend(root, ("profiles",)))]
    for layer in layers:
        for endpoint in _children(descend(layer, ("endpoints",))):
            yield descend(endpoint, ("api_key",))
    for job in (*_children(descend(root, ("jobs",))), *(descend(layer, ("defaults",)) for layer in layers)):
        for loc in (("webhook",), ("s3_config",), ("s3_config", "access_id"), ("s3_config", "access_secret")):
            yield descend(job, loc)


def _children(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        yield from (value for _, value in node.value)


def read_list(text: str) -> tuple[list[tuple[int, int, JsonValue]], list[Fault]]:
    """
    The entries of a YAML list, read by the rules of job files, each with its line and column; and what is wrong.

    Raises:
        Fault: *text* can't be read as YAML at all, or is no list.
    """
    _printable(text)
    root = _compose(text)
    if not isinstance(root, yaml.SequenceNode):
        raise _at(root, "expected a list of mappings", "write '- ' before each")
    reader = _Reader(text)
    items = [(node.start_mark.line + 1, node.start_mark.column + 1, reader.value(node, 1)) for node in root.value]
    return items, reader.faults


def _compose(text: str) -> yaml.Node:
    """The node tree of the one document in *text*, after its size was counted."""
    try:
        _count(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is None:
            raise Fault(1, 1, "this can't be read as YAML") from None
        raise explain(text, error.problem or "", mark, error.context_mark, _last_quoted(text)) from None
    except yaml.YAMLError:
        raise Fault(1, 1, "this can't be read as YAML") from None
    if root is None:
        start: Any = yaml.Mark("", 0, 0, 0, None, 0)
        return yaml.ScalarNode(_PLAIN, "", start, start)
    return root


def _last_quoted(text: str) -> tuple[yaml.Mark, yaml.Mark] | None:
    """Where the last thing that can be read of *text* begins and ends, when it is a text in quotes."""
    last: deque[Any] = deque(maxlen=1)
    with suppress(yaml.YAMLError):
        last.extend(yaml.parse(text, Loader=_Loader))
    return next(((one.start_mark, one.end_mark) for one in last if getattr(one, "style", None) in ("'", '"')), None)


def _count(text: str) -> None:
    """Refuse too deep a nest, too many aliases and a second document, before anything recurses."""
    depth = aliases = documents = 0
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise Fault(line, column, f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > MAX_ALIASES:
                raise Fault(line, column, f"more than {MAX_ALIASES} aliases", "repeat the values, or use matrix")
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise Fault(line, column, "a second document starts here", "write one document a file")


class _Reader:
    """Builds values from nodes, and notes what is wrong on the way instead of stopping at it."""

    def __init__(self, text: str) -> None:
        self.faults: list[Fault] = []
        self._text = text
        self._values = 0

    def value(self, node: yaml.Node, depth: int = 0) -> JsonValue:
        """The JSON value of *node*."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _at(node, f"more than {MAX_VALUES} values once the aliases are written out")
        if depth > MAX_DEPTH:
            raise _at(node, f"nested deeper than {MAX_DEPTH} levels through its aliases")
        if node.tag not in (_PLAIN, _TEXT, "map", "seq"):
            fix = "remove it, or quote a text that starts with '!'"
            self.faults.append(_at(node, f"tag '{_tag(node.tag)}' is not supported", fix))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._unquoted(node) or self._mapping(node, depth)
        return self._scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _unquoted(self, node: yaml.MappingNode) -> str | None:
        """The text of an unquoted ``{{ x }}``, which YAML reads as a mapping whose key is a mapping."""
        if not (node.flow_style and len(node.value) == 1 and isinstance(node.value[0][0], yaml.MappingNode)):
            return None
        text = self._text[node.start_mark.index : node.end_mark.index]
        self.faults.append(_at(node, "a template must be quoted: YAML reads this as a mapping", f'write "{text}"'))
        return text

    def _mapping(self, node: yaml.MappingNode, depth: int) -> JsonObject:
        result: JsonObject = {}
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                merged.append(value_node)
                continue
            key = self._key(key_node)
            if key is None:
                self.value(value_node, depth + 1)
            elif key in lines:
                fix = f"it was set in line {lines[key]}: remove one of the two"
                self.faults.append(_at(key_node, f"duplicate key '{key}'", fix))
            else:
                lines[key] = key_node.start_mark.line + 1
                result[key] = self.value(value_node, depth + 1)
        for source in merged:
            self._merge(result, source, depth)
        return result

    def _key(self, node: yaml.Node) -> str | None:
        """The text of a key, None when it is not text."""
        before = len(self.faults)
        key = self.value(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str):
            return key
        if len(self.faults) == before:
            shown = f"'{node.value}'" if isinstance(node, yaml.ScalarNode) else "this"
            fix = f'quote it: "{node.value}"' if isinstance(node, yaml.ScalarNode) else "write a word before the colon"
            self.faults.append(_at(node, f"a key must be text, and {shown} is not", fix))
        return None

    def _merge(self, into: JsonObject, source: yaml.Node, depth: int) -> None:
        """YAML 1.1's ``<<``, which 1.2 dropped and many files use: keys of the mapping itself win."""
        for node in source.value if isinstance(source, yaml.SequenceNode) else [source]:
            more = self.value(node, depth + 1)
            if not isinstance(more, dict):
                fix = "write <<: *name, or a list of such aliases"
                self.faults.append(_at(node, "'<<' merges mappings, and this is none", fix))
                continue
            for key, value in more.items():
                into.setdefault(key, value)

    def _scalar(self, node: yaml.ScalarNode) -> JsonValue:
        """The value of a scalar by YAML 1.2's core schema, as far as JSON has it."""
        text: str = node.value
        if node.tag != _PLAIN:
            return text
        if text in _CORE:
            return _CORE[text]
        if _NO_JSON.fullmatch(text):
            self.faults.append(_at(node, f"JSON has no number '{text}'", f'quote it: "{text}"'))
        elif _BASED.fullmatch(text):
            return int(text, 0)
        elif _FLOAT.fullmatch(text):
            return self._number(node, text)
        return text

    def _number(self, node: yaml.ScalarNode, text: str) -> JsonValue:
        if _LEADING_ZERO.match(text):
            fix = f'quote it to keep it text: "{text}"'
            self.faults.append(_at(node, f"number '{text}' starts with a zero", fix))
            return text
        try:
            number = int(text) if _INTEGER.fullmatch(text) else float(text)
        except ValueError:  # Python reads at most 4300 digits
            number = float("inf")
        if number in (float("inf"), float("-inf")):
            self.faults.append(_at(node, "this number is too large", "quote it to keep it text"))
        return number


def _at(node: yaml.Node, message: str, fix: str | None = None) -> Fault:
    return Fault(node.start_mark.line + 1, node.start_mark.column + 1, message, fix)


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def descend(root: yaml.Node | None, loc: Sequence[int | str]) -> yaml.Node | None:
    """The node at *loc*, None when the tree has none."""
    node = root
    for part in loc:
        node = _child(node, part)[1]
    return node


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Key and value at *part* of *node*; merged mappings are asked last, as reading does."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if not isinstance(node, yaml.MappingNode):
        return None, None
    for key, value in node.value:
        if key.value == part:
            return key, value
    for key, value in node.value:
        if key.value == "<<":
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                found = _child(source, part)
                if found[1] is not None:
                    return found
    return None, None


def locate(root: yaml.Node, loc: Sequence[int | str], *, at_key: bool = False) -> yaml.Mark:
    """
    Find the place that *loc* speaks of.

    Goes as deep as the tree allows: a missing key is not in the tree, so it ends at what misses it, where the fix
    belongs.
    """
    node, mark = root, root.start_mark
    for part in loc:
        key, value = _child(node, part)
        if key is None or value is None:
            break
        node, mark = value, key.start_mark if at_key else value.start_mark
    return mark
