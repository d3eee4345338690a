"""
Make the reference of the commands, `docs/commands.md`, from the command line itself: what `--help` says, as a page.

``python -m runner.manual`` prints it.
"""

from collections.abc import Iterator
from typing import Any

from runner import exit_codes
from runner.cli import commands

_INTRODUCTION = f"""\
# The commands

Every command with all that it takes, made by `make schema` from what `runner COMMAND --help` says.

- **BATCH** is a folder, an id, a NAME (the newest batch of that job file), or `latest`.
- **`--format json`** prints one JSON document on stdout and nothing else there.
- **A duration** is a number and a unit: `500ms`, `90s`, `5m`, `2h`, `1d`.
- {exit_codes.short().replace("Exit codes:", "**Exit codes:**")} [What to do next](exit-codes.md).
- What is meant for a person goes without colours where `NO_COLOR` is set, and where nobody looks.
"""

_HEAD = ["| | default | |", "|---|---|---|"]


def text() -> str:
    """The reference as the file has it."""
    return "\n".join([_INTRODUCTION, *(_section(name, command) for name, command in sorted(commands().items()))])


def _section(name: str, command: Any) -> str:
    """One command: what it is for, what it takes, what its help ends with."""
    told = [one for one in command.params if one.name != "help" and not one.hidden]
    arguments = [one for one in told if one.param_type_name == "argument"]
    options = [one for one in told if one.param_type_name != "argument"]
    usage = " ".join(["runner", name, *(_argument(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## runner {name}", "", " ".join(command.help.split()), "", "```text", usage, "```", ""]
    if told:
        lines += [*_HEAD, *(_row(one) for one in (*arguments, *options)), ""]
    lines += _ending(command.epilog or "")
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    written: str = argument.metavar
    return written if argument.required or written.startswith("[") else f"[{written}]"


def _row(one: Any) -> str:
    """A line of the table: an argument or an option, its default, what it is for."""
    if one.param_type_name == "argument":
        written = _argument(one)
    else:
        written = ", ".join(one.opts) + ("" if one.is_flag else f" {one.metavar}")
    # An entity, for a backslash before `|` would be shown within code.
    code = f"`{written}`" if "|" not in written else f"<code>{written.replace('|', '&#124;')}</code>"
    shown = "" if one.default in (None, False, []) else f"`{one.default}`"
    return f"| {code} | {shown} | {(one.help or '').replace('|', '&#124;')} |"


def _ending(epilog: str) -> Iterator[str]:
    """What follows the options in the help; of the exit codes there is a page."""
    if not epilog or epilog == exit_codes.epilog():
        return
    for part in epilog.replace("\b\n", "\0").split("\0"):
        if part.strip():
            yield from ("```text", part.rstrip(), "```", "")


if __name__ == "__main__":
    print(text(), end="")
