"""Look for a handler in its file without importing it: a handler is imported only when a local endpoint runs."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from runner.wording import suggest

Trouble = tuple[str, str | None]
"""A message, and what to do about it."""


def split(handler: str) -> tuple[str, str] | None:
    """File and function of ``handlers/horse.py:handler``; None when it is not of that form."""
    file, colon, function = handler.rpartition(":")
    return (file, function) if colon and file.endswith(".py") and function.isidentifier() else None


def handler_digest(folder: Path, handler: str) -> str | None:
    """The SHA-256 of the file that *handler*, seen from *folder*, is in; None when it can't be read."""
    parts = split(handler)
    try:
        return None if parts is None else hashlib.sha256((folder / parts[0]).read_bytes()).hexdigest()
    except OSError:
        return None


def handler_problem(folder: Path, handler: str) -> Trouble | None:
    """What is wrong with *handler*, seen from *folder*."""
    parts = split(handler)
    if parts is None:
        return f"expected a file and a function, found '{handler}'", "write it as handlers/horse.py:handler"
    file, function = parts
    try:
        tree = ast.parse((folder / file).read_bytes(), file)
    except FileNotFoundError:
        return f"there is no file '{file}'", "paths start at the job file's folder"
    except OSError as error:
        return f"'{file}' can't be read: {error.strerror}", None
    except SyntaxError as error:
        return f"'{file}' is not valid Python: line {error.lineno}: {error.msg}", None
    except (ValueError, RecursionError, MemoryError):
        return f"'{file}' is not valid Python", None
    names = list(_names(tree.body))
    if function in names or "*" in names:
        return None
    return f"'{file}' defines no '{function}'", suggest(function, dict.fromkeys(names))


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module has once it is imported, as far as its text tells; ``*`` for a star import."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.Assign):
            yield from (
                node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
            )
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _names(statement.body)
            yield from _names(getattr(statement, "orelse", []))
            yield from _names(getattr(statement, "finalbody", []))
            for caught in getattr(statement, "handlers", []):
                yield from _names(caught.body)
