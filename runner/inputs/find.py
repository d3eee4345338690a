"""Find the data files that `rows.file` names: one, or those that a glob matches, in the order of their names."""

import glob
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from runner import extras
from runner.inputs.packed import MISSING_ZSTD, packing_of
from runner.spec import DATA_KINDS, NOT_YET, PACKINGS

STDIN = "-"
"""What stands for rows from stdin in `rows.file`."""

Trouble = tuple[str, str | None]
"""A message, and what to do about it."""


def kind_of(name: str) -> str:
    """The kind of a data file by its name: ``jsonl`` for ``a.jsonl`` and ``A.JSONL.gz``; it may be no kind we read."""
    return name.lower().removesuffix(f".{packing_of(name)}").rpartition(".")[2]


def find(folder: Path, file: str) -> list[Path]:
    """
    The data files that *file* names, seen from *folder*.

    A glob's matches come in the order of their paths, by code points, so that every machine has the same; what starts
    with a dot is not matched. A name with ``*``, ``?`` or ``[`` in it that is there as it stands is that file.
    """
    return [folder / name for name in _names(folder, file)]


def data_file_problem(folder: Path, file: str) -> Trouble | None:
    """What is wrong with `rows.file`, as far as names, *folder* and what is installed tell."""
    return None if file == STDIN else _first_problem(folder, file, _kind_problem)


def requests_problem(folder: Path, file: str) -> Trouble | None:
    """What is wrong with `rows.openai`, as far as names, *folder* and what is installed tell."""

    def problem(name: str) -> Trouble | None:
        if kind_of(name) != "jsonl":
            return f"requests for OpenAI are jsonl, found '{name}'", "name a .jsonl file"
        return _kind_problem(name)

    return _first_problem(folder, file, problem)


def _first_problem(folder: Path, file: str, problem: Callable[[str], Trouble | None]) -> Trouble | None:
    names = _names(folder, file)
    if not names:
        return f"no file matches '{file}'", _START
    return next((trouble for name in names if (trouble := problem(name) or _file_problem(folder / name, name))), None)


def _names(folder: Path, file: str) -> list[str]:
    if not any(character in file for character in "*?[") or _mode(folder / file) is not None:
        return [file]
    found = glob.glob(file, root_dir=folder, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute patterns
    return sorted(name for name in found if not stat.S_ISDIR(_mode(folder / name) or 0))


def _mode(path: Path) -> int | None:
    """What kind of file *path* is, None when there is none."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _kind_problem(name: str) -> Trouble | None:
    """Why a file of that name can't be read, whatever is in it."""
    kind, packing = kind_of(name), packing_of(name)
    if kind in NOT_YET["suffixes"]:
        return f"a .{kind} file is not supported yet", _KNOWN
    if kind not in DATA_KINDS:
        return f"unknown kind of data file '{name}'", _KNOWN
    if kind == "parquet" and packing:
        return f"a .parquet file is packed by itself, found '{name}'", "unpack it"
    if kind == "parquet" and not extras.is_there("pyarrow"):
        return MISSING_PARQUET
    return MISSING_ZSTD if packing == "zst" and not has_zstd() else None


def has_zstd() -> bool:
    """Whether .zst files can be read."""
    return sys.version_info >= (3, 14) or (extras.is_there("backports") and extras.is_there("backports.zstd"))


def _file_problem(path: Path, name: str) -> Trouble | None:
    mode = _mode(path)
    if mode is None:
        return f"there is no file '{name}'", _START
    if stat.S_ISDIR(mode):
        name = name.rstrip("/")
        return f"'{name}' is a folder", f"name the files in it: {name}/*, or write folder: {name} for a row a file"
    if not stat.S_ISREG(mode):
        return (
            f"'{name}' is no regular file, and rows are read twice",
            "pipe jsonl into the command, and write file: '-'",
        )
    return None if os.access(path, os.R_OK) else (f"'{name}' can't be read", None)


MISSING_PARQUET = ("reading .parquet files needs pyarrow, which is not installed", extras.PARQUET)
_START = "paths start at the job file's folder"
_PACKED = ", ".join(f"'.{packing}'" for packing in PACKINGS)
_KNOWN = "known: " + ", ".join(f"'.{kind}'" for kind in DATA_KINDS) + f"; all but the last also with {_PACKED} behind"
