"""A disk that fails under real processes: some cases of `python -m torture.disks`, and what they stand on."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture import shim
from torture.disks import cases, play_all, thinned
from torture.shim import Fault

CHOSEN = (
    "ENOSPC on write of the ledger's WAL (*/ledger.sqlite-wal) #9, first",
    "EIO on sync of results.jsonl (*/results.jsonl) #3, first",
    "EIO on sync of a new ledger (*/.ledger.sqlite.tmp) #2, first",
    "EROFS on any of every file (*/scene/*) #8, resume",
    "EIO on rename of health.json (*/health.json) #1, first",
    "ledger.sqlite cut #1, stopped",
    "ledger.sqlite-wal cut #1",
)

pytestmark = pytest.mark.usefixtures("forking")


@pytest.fixture(autouse=True)
def compiler() -> None:
    """The library that lets calls fail is built when it is needed."""
    try:
        shim.library()
    except shim.NoCompiler as error:
        pytest.skip(f"a disk that fails needs a C compiler: {error}")


def test_a_batch_survives_a_disk_that_fails_and_comes_back(tmp_path: Path) -> None:
    """It stops, says which file and why, and is gone on with: nothing lost, nothing paid for twice unawares."""
    by_name = {case.name: case for case in cases()}
    told = play_all([by_name[name] for name in CHOSEN], 1, tell=lambda _: None)
    assert told.problems == []
    assert sum(row.tried for row in told.rows()) >= 5
    told.write(tmp_path / "report.json", seed=1, seconds=1.0)
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert {"EIO on sync", "EIO on rename", "ledger cut"} <= {row["fault"] for row in report["rows"]}


def test_every_row_has_a_case_however_few_are_played() -> None:
    """The table must not depend on the seed."""
    found = cases()
    rows = {case.row for case in found}
    assert len({case.name for case in found}) == len(found)
    for seed in range(4):
        assert {case.row for case in thinned(found, 50, seed)} == rows


WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(file, b"12345678")
os.write(file, b"x")
"""


@pytest.mark.parametrize(("code", "length"), [(errno.ENOSPC, 4), (errno.EIO, 0)])
def test_a_call_on_one_file_fails_and_is_written_down(tmp_path: Path, code: int, length: int) -> None:
    """A disk that gets full takes the first half of what it is given, as a real one may."""
    struck = tmp_path / "struck"
    below = tmp_path / "below"
    below.mkdir()
    fault = Fault("write", "*/file", code)
    env = os.environ | shim.variables(below, fault=fault, struck=struck)
    ran = subprocess.run([sys.executable, "-c", WRITER, below / "file"], env=env, capture_output=True, text=True)
    assert ran.returncode == 1
    assert os.strerror(code) in ran.stderr
    assert (below / "file").stat().st_size == length
    assert [(one.operation, one.path) for one in shim.strikes(struck)] == [("write", str(below / "file"))]
