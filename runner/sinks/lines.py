"""The results as JSON: a line each, as results.jsonl has them, or one array."""

from collections.abc import Iterator

from runner.sinks.base import Source, Write
from runner.values import dump


def write_jsonl(source: Source, write: Write) -> None:
    """Each line as it stands, byte for byte, or as an object of the chosen fields."""
    for text in _texts(source):
        write(text)


def write_array(source: Source, write: Write) -> None:
    """One array of the same, a line each."""
    before = b"[\n"
    for text in _texts(source):
        write(before + text.removesuffix(b"\n"))
        before = b",\n"
    write(b"\n]\n" if before == b",\n" else b"[]\n")


def _texts(source: Source) -> Iterator[bytes]:
    for text, line in source.objects():
        yield dump(line) + b"\n" if text is None else text
