"""Import a handler from a file. Standard library only: workers start with this."""

import difflib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

Handler = Callable[[dict[str, Any]], Any]


class CantImport(Exception):
    """
    Raised when a handler can't be imported.

    *place* is where in the handler's own file, such as ``line 3: import torch``, None if it can't be said. *fix* is
    what to do, None if only the author can know.
    """

    def __init__(self, message: str, *, place: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.fix = fix


def load(reference: str) -> Handler:
    """
    The function that ``PATH.py:function`` names.

    The file's folder goes to the end of sys.path, so that a handler finds its neighbours, but a neighbour named
    ``queue.py`` is no stand-in for the standard library's.

    Raises:
        CantImport: the file is missing, fails while it is imported, or has no such function.
    """
    path_text, _, name = reference.rpartition(":")
    path = Path(path_text)
    sys.path.append(str(path.parent))
    module = _import(path)
    handler = getattr(module, name, None)
    if callable(handler):
        return handler  # type: ignore[no-any-return]  # what it takes is between its author and the job file
    if handler is not None:
        raise CantImport(f"'{name}' is a {type(handler).__name__}, not a function")
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    close = difflib.get_close_matches(name, names, 1)
    fix = f"did you mean '{close[0]}'?" if close else f"define it: def {name}(job): ..."
    raise CantImport(f"there is no function '{name}'", fix=fix)


def _import(path: Path) -> ModuleType:
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"handler_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CantImport("it is no Python file", fix="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look for it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a file does while it is imported
        raise _explained(error, path) from error
    return module


def _explained(error: BaseException, path: Path) -> CantImport:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, FileNotFoundError) and error.filename == str(path):
        return CantImport("there is no such file")
    fix = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        fix = f"install '{package}' for {sys.executable}, or put {package}.py beside the handler"
    return CantImport(text, place=_place(error, path), fix=fix)


def _place(error: BaseException, path: Path) -> str | None:
    """The last line of the handler's own file that led to the error."""
    import linecache  # these two cost 5 ms, which workers that import well can save
    import traceback

    if isinstance(error, SyntaxError) and error.filename == str(path):
        number = error.lineno
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        number = lines[-1] if lines else None
    if number is None:
        return None
    return f"line {number}: {linecache.getline(str(path), number).strip()}"
