"""The structure that docs/architecture.md promises, held against the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import ROOT

PACKAGE = ROOT / "runner"
ALONE = {
    "yaml": {"runner.load"},
    "jinja2": {"runner.template"},
    "sqlite3": {"runner.database"},
    "aiohttp": {"runner.exchange", "runner.wire", "runner.fetch", "runner.local", "runner.watching"},
    "ray": {"runner.on_ray"},
    "typer": {"runner.cli"},
    "pyarrow": {"runner.sinks", "runner.inputs"},
    "jsonschema_rs": {"runner.output_schema"},
    "fsspec": {"runner.remote"},
}
"""Who may import what, lazy imports and imports for types included; a package stands for all in it."""


def name_of(path: Path) -> str:
    """The module at *path*, a package by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """What the module at *path* imports, wherever in it, our own modules by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
    return found


def room(module: str) -> str:
    """The row of the table that *module* belongs to: a package of its own is one room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floors() -> list[str]:
    """The rooms in the order of the table, the uppermost first."""
    table = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return [name.removesuffix("/").removesuffix(".py") for row in rows for name in re.findall(r"`([\w/.]+)`", row)]


def test_every_module_is_in_the_table_once() -> None:
    """A newcomer looks a file up there first."""
    listed = floors()
    assert sorted(listed) == sorted({room(module) for module in MODULES})
    assert len(listed) == len(set(listed))


def test_imports_point_down_the_table() -> None:
    """So that a change can be understood from the file and what is below it."""
    order = {name: number for number, name in enumerate(floors())}
    upwards = [
        f"{module} imports {found}"
        for module, path in MODULES.items()
        for found in imports(path) & MODULES.keys()
        if room(found) != room(module) and order[room(found)] <= order[room(module)] and found != "runner"
    ]
    assert upwards == []


def test_nothing_imports_in_a_circle() -> None:
    """Not even within a package, nor lazily."""
    left = {module: imports(path) & MODULES.keys() - {module, "runner"} for module, path in MODULES.items()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


@pytest.mark.parametrize("library", ALONE)
def test_a_library_is_imported_in_one_place(library: str) -> None:
    """Replacing one, or finding out what it costs, is then the work of one file."""
    users = {module for module, path in MODULES.items() if library in {name.split(".")[0] for name in imports(path)}}
    assert {next((room for room in ALONE[library] if user.startswith(room)), user) for user in users} == ALONE[library]


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], {"pydantic", "jinja2", "yaml", "aiohttp", "asyncio", "sqlite3", "orjson"}),
        (["validate", "jobs/hello.yaml"], {"jinja2", "aiohttp", "asyncio", "sqlite3", "rich", "pyarrow", "fsspec"}),
        (["plan", "jobs/hello.yaml"], {"jinja2", "aiohttp", "asyncio", "sqlite3", "rich", "pyarrow", "fsspec"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_needs_and_no_more(words: list[str], heavy: set[str]) -> None:
    """Who types it waits for it; counting imports tells the same on every machine, a clock does not."""
    script = (
        "import sys; from runner.__main__ import main\n"
        f"sys.argv = ['runner', *{words!r}]\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert heavy & set(ran.stderr.split()) == set()
