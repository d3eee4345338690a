"""Sources of rows for tests: one of each kind and packing, with the rows that must come out of it."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from job_files import as_yaml
from pyarrow import parquet

from runner.inputs.base import BadRow
from runner.inputs.source import Source
from runner.inputs.sources import source_of
from runner.spec import Rows
from runner.values import JsonObject

ZSTD: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

TEXTS = ("a horse", "ä 🐎 é", "007", "1e5", "null", "=1+1", "{{ 7*7 }}", 'say "hi", twice', "\u2028x", "#")
"""Values that something on the way might take for something else."""


def never(bad: BadRow) -> None:
    """A report for files that have no bad row."""
    raise bad


def some_rows(count: int) -> list[JsonObject]:
    """Rows of texts, which every kind of file can hold."""
    return [{"n": str(number), "text": TEXTS[number % len(TEXTS)]} for number in range(count)]


def table(rows: Sequence[JsonObject], delimiter: str) -> bytes:
    """*rows*, which have the same keys, as csv or the like."""
    made = io.StringIO(newline="")
    writer = csv.writer(made, delimiter=delimiter)
    writer.writerow(rows[0] if rows else ["n", "text"])
    writer.writerows(row.values() for row in rows)
    return made.getvalue().encode()


def as_parquet(rows: Sequence[JsonObject]) -> bytes:
    """*rows* as parquet, in several row groups."""
    made = io.BytesIO()
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {"n": "", "text": ""})}
    schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
    parquet.write_table(pyarrow.table(columns, schema), made, row_group_size=max(1, len(rows) // 3))
    return made.getvalue()


def lines(rows: Sequence[JsonObject]) -> bytes:
    """*rows* as jsonl."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_list(rows: Sequence[JsonObject]) -> bytes:
    """*rows* as one JSON list; each starts a line."""
    return f"[{','.join(chr(10) + as_yaml(row) for row in rows)}]".encode()


WRITE: dict[str, Callable[[Sequence[JsonObject]], bytes]] = {
    "csv": lambda rows: table(rows, ","),
    "tsv": lambda rows: table(rows, "\t"),
    "jsonl": lines,
    "json": as_list,
    "yaml": as_list,
    "yml": as_list,
    "parquet": as_parquet,
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": lambda data: bytes(ZSTD.compress(data)),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
TEXT_FILES = [
    f"{kind}{packing}" for kind in WRITE if kind != "parquet" for packing in ("", *(f".{name}" for name in PACK))
]
FILES = [*TEXT_FILES, "parquet"]


def packed(suffix: str, data: bytes) -> bytes:
    """*data*, the text of a file with the suffix *suffix*, packed where that says so."""
    packing = suffix.partition(".")[2]
    return PACK[packing](data) if packing else data


def write_rows(path: Path, rows: Sequence[JsonObject]) -> None:
    """Write *rows* to the file at *path*, as its suffixes say."""
    suffix = path.name.partition(".")[2]
    path.write_bytes(packed(suffix, WRITE[suffix.partition(".")[0]](rows)))


def request(number: int) -> JsonObject:
    """One line of a file for OpenAI's Batch API."""
    body = {"model": "llama", "messages": [{"role": "user", "content": TEXTS[number % len(TEXTS)]}]}
    return {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


class Made(NamedTuple):
    """A source, one of the files that its data is in, and the rows in it."""

    source: Source
    data: Path
    rows: list[JsonObject]


NAMES = [*FILES, "glob", "stdin", "inline", "folder", "openai", "openai.zst"]
"""Every source that there is."""


def make(name: str, folder: Path, count: int) -> Made:
    """The source *name* of `NAMES` with *count* rows, its files in *folder*."""
    data, rows = _written(name, folder, count)
    return Made(open_rows(name, folder, rows), data, rows)


def open_rows(name: str, folder: Path, rows: list[JsonObject]) -> Source:
    """The source *name* of what was written to *folder*; *rows* for those that are written nowhere."""
    described: dict[str, Any] = {
        "inline": {"inline": rows},
        "folder": {"folder": "photos"},
        "glob": {"file": "?.*"},
        "stdin": {"file": "-"},
        "openai": {"openai": "requests.jsonl"},
        "openai.zst": {"openai": "requests.jsonl.zst"},
    }
    spec = Rows.model_validate(described.get(name, {"file": f"rows.{name}"}))
    source = source_of(spec, folder, folder / "copy.jsonl")
    assert source is not None
    return source


def _written(name: str, folder: Path, count: int) -> tuple[Path, list[JsonObject]]:
    if name == "folder":
        return _photos(folder, count)
    if name.startswith("openai"):
        requests = [request(number) for number in range(count)]
        path = folder / f"requests.jsonl{name.removeprefix('openai')}"
        path.write_bytes(packed(path.name.partition(".")[2], lines(requests)))
        return path, requests
    rows = some_rows(count)
    if name == "glob":
        write_rows(folder / "a.csv.gz", rows[: count // 2])
        write_rows(folder / "b.jsonl", rows[count // 2 :])
        write_rows(folder / "c.parquet", [])
        return folder / "b.jsonl", rows
    path = folder / ("copy.jsonl" if name in ("stdin", "inline") else f"rows.{name}")
    write_rows(path, rows)
    return path, rows


def _photos(folder: Path, count: int) -> tuple[Path, list[JsonObject]]:
    (folder / "photos").mkdir()
    rows: list[JsonObject] = []
    for number in range(count):
        path, data = folder / f"photos/{number:05}.png", f"photo {number}".encode()
        path.write_bytes(data)
        told: JsonObject = {"path": f"photos/{path.name}", "name": path.name, "stem": path.stem, "suffix": ".png"}
        rows.append(told | {"size_bytes": len(data), "sha256": sha256(data).hexdigest()})
    return folder / "photos/00000.png", rows
