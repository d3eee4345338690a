"""Try a page of documentation as its reader would: in order, in one folder, in one shell. `snippets.py` reads it."""

import ast
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from job_files import as_yaml
from snippets import Snippet, commands, matches, snippets
from terminal import DEADLINE_S, environment

from runner.load import load
from runner.variants import check_all

HOME = "/srv/lab"
"""The folder in which pages are tried, as they show it."""

PORTS = ("8123", "8124")
"""Where pages serve local endpoints; the test takes ones that are free."""

_CHANGES_THE_MACHINE = re.compile(r"\b(pip|apt-get|apt|brew|npm) install\b|(?<![\w-])(sudo|docker|crontab)\b")
_MADE_UP = {
    "file": "prompt,text,lang\na horse,a horse,en\n",
    "openai": '{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {"a": 1}}\n',
    "folder": "",
}


@dataclass
class Page:
    """A page that is being tried: its *folder* and its shell."""

    folder: Path
    shell: subprocess.Popen[str]
    ports: dict[str, str]
    """Ports as the page shows them, and as they are."""
    env: dict[str, str]
    behind: list[subprocess.Popen[str]] = field(default_factory=list)
    unchecked: dict[str, Snippet] = field(default_factory=dict)
    """Job files by name, to be validated when all that they read can be there."""

    def read(self, page: Path) -> None:
        """Do all that *page* says, to its end."""
        for snippet in snippets(page):
            self.attempt(snippet)
        self.settle()

    def attempt(self, snippet: Snippet) -> None:
        """Do with *snippet* what a reader does; an AssertionError says what is wrong with it, and where."""
        if snippet.title is not None:
            self._write(snippet.title, snippet.text)
        only_parsed = "not run" in snippet.marks
        if snippet.language in ("console", "sh", "bash", "python") and snippet.title is None and not only_parsed:
            self.settle()
        match snippet.language:
            case "console":
                if only_parsed:
                    self._parse_shell(snippet, "\n".join(command for command, _ in commands(snippet.text)))
                elif "in the background" in snippet.marks:
                    self._begin(snippet)
                else:
                    self._type(snippet)
            case "sh" | "bash":
                self._parse_shell(snippet, snippet.text)
                if not only_parsed and snippet.title is None:
                    self._run(snippet, ["bash", "-e", "-c", self._own(snippet.text)])
            case "python":
                compile(snippet.text, snippet.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if not only_parsed and snippet.title is None:
                    self._run(snippet, [sys.executable, "-c", _awaiting(self._own(snippet.text))])
            case "yaml":
                if snippet.title is not None and not only_parsed:
                    self.unchecked[snippet.title] = snippet
                else:
                    self._check(snippet)
            case "json":
                json.loads(snippet.text)
            case "jsonl":
                for line in snippet.text.splitlines():
                    json.loads(line)
            case "sql":
                assert only_parsed, f"{snippet.place}: nothing here reads SQL"
            case "file" | "text" | "csv" | "ini" | "dockerfile":
                pass
            case other:
                raise AssertionError(f"{snippet.place}: nobody tries {other!r}; a block without code is 'text'")

    def settle(self) -> None:
        """Validate the job files that were written since; at the latest at the end of the page."""
        for snippet in self.unchecked.values():
            self._check(snippet)
        self.unchecked = {}

    def _own(self, text: str) -> str:
        for shown, real in self.ports.items():
            text = text.replace(f":{shown}/", f":{real}/").replace(f"--port {shown}", f"--port {real}")
        return text.replace(HOME, str(self.folder))

    def _shown(self, text: str) -> str:
        for shown, real in self.ports.items():
            text = text.replace(f":{real}/", f":{shown}/")
        return text.replace(str(self.folder), HOME)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _parse_shell(self, snippet: Snippet, text: str) -> None:
        ran = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{snippet.place}: {ran.stderr}"

    def _run(self, snippet: Snippet, words: list[str]) -> None:
        ran = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert ran.returncode == 0, f"{snippet.place}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}"

    def _check(self, snippet: Snippet) -> None:
        """Validate a job file, or a part of one that is made whole; any other YAML is only read."""
        if "not run" in snippet.marks:
            list(yaml.safe_load_all(snippet.text))
            return
        path = self.folder / (snippet.title or "part-of-a-page.yaml")
        path.write_text(snippet.text)
        value = load(path).document.value
        if not {"version", "endpoints", "jobs"} <= value.keys():
            assert snippet.title is None, f"{snippet.place}: a file, and no whole one"
            below = snippet.marks.get("merge")
            base = {} if below is None else load(self.folder / below).document.value
            path.write_text(as_yaml(whole(laid_over(base, value))))
            self._make_up(path)
        found = check_all(path, overrides={}, env={})
        errors = [f"{one.message} ({one.line}:{one.column})" for one in found.problems if not one.warning]
        assert errors == [], f"{snippet.place}: {errors}\n{path.read_text()}"
        if snippet.title is None:
            path.unlink()

    def _make_up(self, path: Path) -> None:
        """The files that the job file at *path* reads, where the page has none."""
        for name in re.findall(r"[\w/]+\.py(?=:\w)", path.read_text()):
            if not (self.folder / name).exists():
                self._write(name, "def handler(job): ...\n")
        for job in load(path).document.value["jobs"].values():
            rows = job.get("rows", {})
            for key, text in _MADE_UP.items():
                name = rows.get(key, "-")
                if name != "-" and not list(self.folder.glob(name)):
                    self._write(f"{name}/a.jpg" if key == "folder" else name, text)

    def _type(self, snippet: Snippet) -> None:
        """Type each command into the page's shell, and hold what it prints against what is shown."""
        typed = commands(snippet.text)
        for place, (command, shown) in enumerate(typed):
            assert not _CHANGES_THE_MACHINE.search(command), f"{snippet.place}: $ {command}: say that it is not run"
            got, code = self._answer(command)
            what = f"{snippet.place}: $ {command}\n--- shown\n{shown}--- got, exit {code}\n{got}"
            assert matches(shown, got), what
            asked = place + 1 < len(typed) and typed[place + 1][0] == "echo $?"
            assert code == 0 or asked, what

    def _answer(self, command: str) -> tuple[str, int]:
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        # In braces, so that no command reads what is typed next. `$?` of the one before is kept for an `echo $?`.
        self.shell.stdin.write(
            f"{{ (exit ${{last:-0}})\n{self._own(command)}\n}} </dev/null\nlast=$?; echo; echo \x1e$last\n"
        )
        self.shell.stdin.flush()
        answer: list[str] = []
        too_long = threading.Timer(DEADLINE_S, os.killpg, (self.shell.pid, signal.SIGKILL))
        too_long.start()
        try:
            for line in self.shell.stdout:
                if line.startswith("\x1e"):
                    return self._shown("".join(answer).removesuffix("\n")), int(line[1:])
                answer.append(line)
        finally:
            too_long.cancel()
        raise AssertionError(f"not done in {DEADLINE_S} s, or the end of the shell: {command!r}: {''.join(answer)}")

    def _begin(self, snippet: Snippet) -> None:
        """Start the one command of *snippet*, and wait for what it is shown to print."""
        ((command, shown),) = commands(snippet.text)
        log = self.folder / f".behind-{len(self.behind)}"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", self._own(command)],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.behind.append(process)
        give_up = time.monotonic() + DEADLINE_S
        while not matches(shown + "...\n", got := self._shown(log.read_text())):
            ended = process.poll() is not None or time.monotonic() > give_up
            assert not ended, f"{snippet.place}: $ {command}\n--- shown\n{shown}--- got\n{got}"
            time.sleep(0.02)


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """A page to try in *folder*: `runner` is ours, nothing of this machine's account is seen, and all of it ends."""
    work, programs = folder / "work", folder / ".venv/bin"
    work.mkdir(parents=True)
    programs.mkdir(parents=True)
    for name, words in {"runner": "-m runner", "python": "", "python3": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    (work / ".venv").symlink_to(folder / ".venv")
    env = environment({"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"})
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile"],
        cwd=work,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    page = Page(work, shell, dict(zip(PORTS, _free_ports(len(PORTS)), strict=True)), env)
    try:
        yield page
    finally:
        for process in (*page.behind, shell):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM if process is not shell else signal.SIGKILL)
            process.communicate(timeout=DEADLINE_S)


def laid_over(base: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """*part* of a job file over a whole one: mappings key by key, but each endpoint and all else whole."""
    found = dict(base)
    for key, value in part.items():
        if key == "endpoints":
            found[key] = found.get(key, {}) | value
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = laid_over(found[key], value)
        else:
            found[key] = value
    return found


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """*part* of a job file, with what it leaves out made up around it."""
    jobs = [*part.get("jobs", {}).values(), part.get("defaults", {})]
    named = {job["endpoint"]: {"id": "x"} for job in jobs if "endpoint" in job}
    endpoints = named | part.get("endpoints", {}) or {"x": {"id": "x"}}
    filled = {"version": 1, "name": "x", "vars": {"style": "ink"}} | part | {"endpoints": endpoints}
    filled.setdefault("jobs", {"x": {"endpoint": next(iter(endpoints)), "input": {"x": 1}}})
    return filled


def _awaiting(text: str) -> str:
    """A script that runs *text* as a notebook does: `await` stands where it likes."""
    return (
        "import ast, asyncio, inspect\n"
        f"code = compile({text!r}, 'page', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
        "made = eval(code, {'__name__': '__main__'})\n"
        "if inspect.isawaitable(made): asyncio.run(made)\n"
    )


def _free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in found]
