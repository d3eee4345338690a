"""A forked command is a process like one that was started by itself; here one of each kind is held beside the other."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, environment, popen
from terminal import DEADLINE_S, ROOT, Ran, finish, processes_with, runner, start, wait_until
from zygote import LENGTH_BYTES

SLOW = """
import time

def handler(job):
    open(f"{__file__}.{job['input']['at']}", "x").close()
    time.sleep(600)
"""
SCRIPT = Path(sys.executable).with_name("runner")


def fresh(*words: str | Path, cwd: Path, main: tuple[str, ...] = (sys.executable, "-m", "runner")) -> Any:
    """Start a new interpreter for it."""
    return subprocess.Popen(
        [*main, *map(str, words)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two job files: the runs of one end at once, those of the other never."""
    (tmp_path / "echo.py").write_text("def handler(job):\n    return job['input']\n")
    (tmp_path / "slow.py").write_text(SLOW)
    for name in ("echo", "slow"):
        (tmp_path / f"{name}.yaml").write_text(
            f"version: 1\nname: {name}\nendpoints: {{here: {{handler: '{name}.py:handler', workers: 1}}}}\n"
            "vars: {at: x}\njobs: {one: {endpoint: here, input: {at: '{{ vars.at }}'}}}\n"
        )
    return tmp_path


@pytest.fixture
def both(folder: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two servers, forked and not, that have said where they serve."""
    processes = [start("serve", "echo.yaml", cwd=folder), fresh("serve", "echo.yaml", cwd=folder)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("serving ")
        yield processes
    finally:
        for process in processes:
            process.terminate()
            assert finish(process).code == 0


def test_it_is_our_child_and_has_what_a_new_process_has(both: list["subprocess.Popen[str]"], folder: Path) -> None:
    """Parent, session, group, folder, signals, priorities, limits, descriptors: all that the kernel knows."""
    assert [type(one) for one in both] == [Forked, subprocess.Popen]
    forked, new = (_told(one.pid) for one in both)
    assert forked == new
    assert forked["PPid"] == str(os.getpid())
    assert forked["cwd"] == str(folder)


def test_it_is_found_by_its_words_and_its_environment(folder: Path) -> None:
    """Tests look for what a command left behind; what has ended is not found."""
    process = start("run", "slow.yaml", cwd=folder, env={"RUN_MARK": "a-mark-of-its-own"})
    assert processes_with("a-mark-of-its-own") == [process.pid]
    process.kill()
    finish(process)
    wait_until(lambda: not processes_with("a-mark-of-its-own"), "its workers to end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_signals_as_a_new_one_does(folder: Path, number: signal.Signals) -> None:
    """The exit code says which."""
    words = ["run", "slow.yaml", "--drain", "0s", "--quiet", "--output-dir"]
    processes = [start(*words, "a", "--var", "at=a", cwd=folder), fresh(*words, "b", "--var", "at=b", cwd=folder)]
    for process, at in zip(processes, "ab", strict=True):
        wait_until((folder / f"slow.py.{at}").exists, "its run to begin")
        process.send_signal(number)
    ran = [finish(process) for process in processes]
    assert [one.code for one in ran] == [128 + number] * 2
    assert _of_no_day(ran[0], "/a/") == _of_no_day(ran[1], "/b/")


def test_the_installed_command_says_and_does_the_same(tmp_path: Path) -> None:
    """What people type is the script; here it is run as it was installed."""
    for words in (["validate", "none.yaml"], ["run", str(ROOT / "jobs/hello.yaml")]):
        new = finish(fresh(*words, cwd=tmp_path, main=(str(SCRIPT),)))
        assert _of_no_day(runner(*words, cwd=tmp_path)) == _of_no_day(new)


def test_what_python_reads_while_it_starts_needs_a_new_one(tmp_path: Path) -> None:
    """A forked process would not notice."""
    for env in ({"PYTHONHASHSEED": "7"}, {"PYTHONWARNINGS": ""}, {"LC_ALL": "C"}, {"COLUMNS": "70"}, {"HOME": "/"}):
        process = start("--version", cwd=tmp_path, env=env)
        assert type(process) is subprocess.Popen
        assert finish(process).code == 0
    process = popen([sys.executable, "-c", "1"], cwd=tmp_path, env=environment(), stdin=-3, stdout=-1, stderr=-1)
    assert type(process) is subprocess.Popen
    finish(process)


def test_each_has_chance_of_its_own(folder: Path) -> None:
    """Forked from one state, they would name their batches alike."""
    found = {finish(start("run", "echo.yaml", "--fresh", cwd=folder)).err.split()[2] for _ in range(2)}
    assert len({name.rpartition("-")[2].rstrip(":") for name in found}) == 2


def _told(pid: int) -> dict[str, str]:
    at = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (at / "status").read_text().splitlines())
    names = ("PPid", "Uid", "Groups", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "SigCgt", "Umask")
    told = {name: status[name] for name in names}
    fields = (at / "stat").read_text().rpartition(")")[2].split()
    told |= {
        "nice": fields[16],
        "leads its group": str(fields[2] == str(pid)),
        "its session": str(fields[3] == str(pid)),
    }
    told |= {"limits": (at / "limits").read_text(), "cwd": str((at / "cwd").readlink())}
    kinds = (re.sub(r"\d+", "N", str(one.readlink())) for one in (at / "fd").iterdir())
    return told | {"descriptors": "\n".join(sorted(kinds))}


def _of_no_day(ran: Ran, where: str = "/") -> Ran:
    """Without batch ids and times."""
    odd = re.compile(r"\d{8}T\d{6}Z-\w{4}|\d+(\.\d+)?m?s")
    return Ran(ran.code, *(odd.sub("_", text).replace(where, "/") for text in (ran.out, ran.err)))


def test_nothing_stays_of_it_when_who_asked_was_killed_while_it_did() -> None:
    """A test run that is killed must not leave a process that takes a core for ever."""
    ours, theirs = socket.socketpair()
    with theirs:
        words = [sys.executable, str(ROOT / "tests/zygote.py"), str(theirs.fileno())]
        process = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    with ours:
        ours.sendall((100).to_bytes(LENGTH_BYTES, "big") + b"half of it")
    assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
    assert process.returncode == 0
