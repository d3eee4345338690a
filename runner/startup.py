"""Check how the workers of a local endpoint are started: by a handler, a command or somebody else."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner import variables
from runner.handlers import Trouble, handler_problem
from runner.spec import STARTS, LocalEndpoint
from runner.wording import Finding, Loc

_SHELL = re.compile(r"[0-9]*(\||\|\||&|&&|;|;;|<|<<|>|>>|>&|[<>]&[0-9])")
_PYTHON = re.compile(r"python[0-9.]*")


def problems(
    loc: Loc, endpoint: LocalEndpoint, written: Any, folder: Path, env: Mapping[str, str]
) -> Iterator[Finding]:
    """
    What is wrong with the start of *endpoint*'s workers.

    Args:
        loc: Where the endpoint is.
        written: What the file has there, valid or not.
        folder: The job file's, where relative paths start.
        env: The environment; a command with an unset variable is not looked at any further.
    """
    named = [key for key in STARTS if isinstance(written, dict) and written.get(key) not in (None, False)]
    if not named:
        yield Finding(loc, f"missing key 'handler' in endpoint '{loc[-1]}'", _NO_START, at_key=True)
    if len(named) > 1:
        in_order = [key for key in written if key in named]
        for key in in_order[1:]:
            message = f"'{in_order[0]}' and '{key}' can't stand together"
            yield Finding((*loc, key), message, "keep one of the two", at_key=True)
    elif named == ["external"] and "workers" in written:
        message = f"'workers' is for those started here, and those of '{loc[-1]}' are external"
        yield Finding((*loc, "workers"), message, "remove it, and start as many as you like", at_key=True)
    if named and "handler" not in named and "return_aggregate_stream" in written:
        fix = f"remove it: {named[0]} workers have it from their own runpod.serverless.start"
        message = "'return_aggregate_stream' goes with 'handler' only"
        yield Finding((*loc, "return_aggregate_stream"), message, fix, at_key=True)
    if endpoint.handler is not None and (trouble := handler_problem(folder, endpoint.handler)):
        yield Finding((*loc, "handler"), *trouble)
    if endpoint.command is not None and (trouble := _command_problem(folder, endpoint.command, env)):
        yield Finding((*loc, "command"), *trouble)


_NO_START = "write handler: and a file and function; or command: and a program; or external: true"


def words(command: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """
    The program and its arguments in *command*: split as a shell would, then references replaced, each within its word.

    Raises:
        ValueError: a quote is never closed.
        UsageError: a variable is unset.
    """
    return tuple(variables.resolve(word, env) for word in shlex.split(command))


def _command_problem(folder: Path, command: str, env: Mapping[str, str]) -> Trouble | None:
    try:
        split = shlex.split(command)
    except ValueError:
        return f"'{command}' is no command: a quote is never closed", "close it, or escape it with a backslash"
    if not split or not split[0]:
        return "the command names no program", "write command: python handlers/horse.py"
    for word in split:
        if _SHELL.fullmatch(word):
            return f"'{word}' is for a shell, and a command is run without one", "put it into a script, and name that"
        if variables.malformed(word):
            return f"'{variables.malformed(word)}' is not a reference", "write ${VAR} or '${VAR:-default}', quoted"
    if any(variables.unset(word, env) for word in split):
        return None  # told already
    program, *arguments = words(command, env)
    if "=" in program and "/" not in program.partition("=")[0]:
        return f"'{program}' is for a shell, and a command is run without one", f"write command: env {command}"
    return _program_problem(folder, program, env.get("PATH")) or _script_problem(folder, program, arguments)


def _program_problem(folder: Path, program: str, path: str | None) -> Trouble | None:
    """What is wrong with the *program*, looked for as it will be when it is started."""
    if "/" not in program:
        if shutil.which(program, path=path) is not None:
            return None
        return f"no program '{program}' on PATH", "install it, or write its path, from the job file's folder"
    file = folder / program
    if not file.exists():
        return f"there is no file '{program}'", _FROM_FOLDER
    if file.is_dir():
        return f"'{program}' is a folder", None
    if not os.access(file, os.X_OK):
        return f"'{program}' is not executable", f"chmod +x {shlex.quote(program)}, or write what runs it before it"
    return None


def _script_problem(folder: Path, program: str, arguments: list[str]) -> Trouble | None:
    """What is wrong with the script that Python is to run, the commonest command by far."""
    if not _PYTHON.fullmatch(Path(program).name):
        return None
    script = next((word for word in arguments if not word.startswith("-")), "")
    if not script.endswith(".py") or (folder / script).is_file():
        return None
    return f"there is no file '{script}'", _FROM_FOLDER


_FROM_FOLDER = "a command is started in the job file's folder"
