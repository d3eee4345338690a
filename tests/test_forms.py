"""The forms of the results that a job file asks for: there when a batch ends, whatever becomes of it."""

import csv
import errno
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from frames import needs_pyarrow
from happened import a_run, a_settled, an_ending, opened_store
from job_files import opened
from old_batches import MIXED, a_batch, mixed
from terminal import finish, lines, runner, start, wait_until, write

from runner import forms
from runner.batch import Folder
from runner.errors import JobFileError, RecordError
from runner.events import Reopened
from runner.tables import Keys, default_columns
from torture import shim

HANDLER = """
import time

def handler(job):
    time.sleep(job["input"].get("sleep", 0))
    return {"score": job["input"]["n"] / 4}
"""

JOB_FILE = """\
version: 1
name: forms
endpoints:
  local: {handler: "handler.py:handler"}
jobs:
  only:
    endpoint: local
    rows: {inline: [{n: 1}, {n: 2}, {n: 3}], matrix: {seed: [7, 8]}}
    input: {n: "{{ row.n }}"}
outputs: {results: [jsonl, csv, parquet]}
"""

NO_PYARROW = {"sitecustomize.py": "import sys\nsys.modules['pyarrow'] = None\n"}
"""A module by which it is as if pyarrow were not installed, for whoever has its folder as PYTHONPATH."""


def latest(folder: Path) -> Path:
    """The newest batch."""
    return (folder / "batches" / "forms" / "latest").resolve()


def not_written(folder: Path, form: str, why: str) -> str:
    """What is said of a form that can't be written."""
    return (
        f"error: {folder}/results.{form} can't be written: {why}; no result is lost, they are in results.jsonl beside"
        " it\n  help: see that the disk has room and the folder can be written, then go on with"
        f" 'runner resume {folder}', which writes it\n"
    )


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


@needs_pyarrow
def test_a_batch_ends_with_the_files_that_were_asked_for(tmp_path: Path) -> None:
    """Of the same lines; and nothing of their making is left beside them."""
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": JOB_FILE})
    ran = runner("run", "job.yaml", "--quiet", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    folder = latest(tmp_path)
    assert {path.name for path in folder.iterdir() if "results" in path.name} == {
        *("results.jsonl", "results.csv", "results.parquet"),
    }
    for form in ("csv", "parquet"):
        out = tmp_path / f"out.{form}"
        assert runner("results", "forms", "--format", form, "--output", out, cwd=tmp_path).code == 0
        assert out.read_bytes() == (folder / f"results.{form}").read_bytes()
    settled = lines(folder / "results.jsonl")
    assert [row["key"] for row in rows(folder / "results.csv")] == [line["key"] for line in settled]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "results.parquet").to_pydict()
    assert table["matrix.seed"] == [line["matrix"]["seed"] for line in settled]
    assert table["output.score"] == [line["output"]["score"] for line in settled]


EVERY_SOURCE = """\
version: 1
name: forms
endpoints:
  local: {handler: "handler.py:handler", workers: 2}
jobs:
  inline: {endpoint: local, rows: {inline: [{n: 1}], matrix: {seed: [1]}, include: [{seed: 1, size: 2}]}, input: {n: 1}}
  folder: {endpoint: local, rows: {folder: photos}, input: {n: 2}}
  openai: {endpoint: local, rows: {openai: requests.jsonl}, input: {n: 3}}
  next: {endpoint: local, rows: {job: inline}, input: {n: "{{ row.output.score }}"}}
  whole: {endpoint: local, rows: {job: inline, collect: true}, input: {n: 5}}
outputs: {results: [csv]}
"""


def test_columns_that_can_be_known_are_there_before_any_run_has_settled(tmp_path: Path) -> None:
    """Of whatever rows come from, but files, whose keys nobody knows before they are read."""
    request = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
    files = {"photos/1.png": "x", "requests.jsonl": json.dumps(request) + "\n"}
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": EVERY_SOURCE, **files})
    assert runner("run", "job.yaml", "--quiet", cwd=tmp_path).code == 0
    folder = Folder(latest(tmp_path))
    (whole,) = {tuple(row) for row in rows(folder.form("csv"))}
    known = [column.name for column in default_columns([], Keys.planned(folder.read_manifest()))]
    assert known == [name for name in whole if not name.startswith("output.")]


def test_a_batch_that_pauses_has_them_of_what_is_settled(tmp_path: Path) -> None:
    """And the whole of it once it has gone on; a second resume changes nothing."""
    job = JOB_FILE.replace("csv, parquet", "csv").replace('n }}"', 'n }}", sleep: 0.3')
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": job})
    process = start("run", "job.yaml", "--drain", "100ms", cwd=tmp_path)
    results = tmp_path / "batches/forms/latest/results.jsonl"
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 1, "the first line")
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    folder = latest(tmp_path)
    settled = lines(folder / "results.jsonl")
    assert 0 < len(settled) < 6
    assert [row["key"] for row in rows(folder / "results.csv")] == [line["key"] for line in settled]
    assert runner("run", "job.yaml", "--resume", cwd=tmp_path).code == 0
    whole = (folder / "results.csv").read_bytes()
    assert len(rows(folder / "results.csv")) == 6
    assert runner("resume", "forms", cwd=tmp_path).code == 0
    assert (folder / "results.csv").read_bytes() == whole


def test_a_file_that_can_not_be_written_loses_no_batch(tmp_path: Path) -> None:
    """It is said which, and a resume writes it and sends nothing."""
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": JOB_FILE.replace("csv, parquet", "csv")})
    process = start("run", "job.yaml", "--quiet", cwd=tmp_path)
    wait_until(lambda: (tmp_path / "batches/forms/latest").exists(), "the batch")
    folder = latest(tmp_path)
    (folder / "results.csv").mkdir()
    ran = finish(process)
    assert (ran.code, ran.err) == (1, not_written(folder, "csv", "Is a directory"))
    assert json.loads((folder / "health.json").read_bytes())["verdict"] == "pass"
    before = (folder / "results.jsonl").read_bytes()
    assert not list(folder.glob(".results*"))
    (folder / "results.csv").rmdir()
    assert runner("resume", folder, cwd=tmp_path).code == 0
    assert len(rows(folder / "results.csv")) == 6
    assert (folder / "results.jsonl").read_bytes() == before
    assert runner("run", "job.yaml", cwd=tmp_path).code == 0, "a new batch"


@needs_pyarrow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_disk_that_gets_full_in_the_end_loses_no_batch(tmp_path: Path, form: str) -> None:
    """In the middle of a file; what is there of it goes, and the batch can be gone on with."""
    try:
        shim.library()
    except shim.NoCompiler as error:
        pytest.skip(f"a disk that fails needs a C compiler: {error}")
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": JOB_FILE.replace("csv, parquet", form)})
    fault = shim.Fault("write", f"*/.results.{form}.tmp", errno.ENOSPC)
    full = shim.variables(tmp_path, fault=fault, struck=tmp_path / "struck")
    ran = runner("run", "job.yaml", "--quiet", cwd=tmp_path, env=full)
    folder = latest(tmp_path)
    assert shim.strikes(tmp_path / "struck")
    assert (ran.code, ran.out, ran.err) == (1, "", not_written(folder, form, "No space left on device"))
    assert [path.name for path in folder.iterdir() if "results" in path.name] == ["results.jsonl"]
    assert runner("resume", folder, "--quiet", cwd=tmp_path).code == 0
    assert folder.joinpath(f"results.{form}").exists()
    assert len(lines(folder / "results.jsonl")) == 6


def test_parquet_without_pyarrow_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """Not at the end of a night."""
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": JOB_FILE, **{f"lib/{k}": v for k, v in NO_PYARROW.items()}})
    ran = runner("run", "job.yaml", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "lib")})
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "job.yaml:10:33: parquet needs pyarrow, which is not installed\n"
        "  10 | outputs: {results: [jsonl, csv, parquet]}\n"
        "     |                                 ^\n"
        "  help: pip install 'runpod-runner[parquet]'\n",
    )
    assert not (tmp_path / "batches").exists()


def test_all_else_works_without_pyarrow(tmp_path: Path) -> None:
    """It is an extra: who wants no parquet needs no 170 MB."""
    job = JOB_FILE.replace("csv, parquet", "csv")
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": job, **{f"lib/{k}": v for k, v in NO_PYARROW.items()}})
    env = {"PYTHONPATH": str(tmp_path / "lib")}
    assert runner("run", "job.yaml", cwd=tmp_path, env=env).code == 0
    assert len(rows(latest(tmp_path) / "results.csv")) == 6
    assert runner("results", "forms", "--format", "csv", cwd=tmp_path, env=env).out.count("\n") == 7
    ran = runner("results", "forms", "--format", "parquet", "--output", "x", cwd=tmp_path, env=env)
    assert (ran.code, ran.err) == (
        2,
        "error: --format parquet needs pyarrow, which is not installed\n  help: pip install 'runpod-runner[parquet]'\n",
    )
    assert not (tmp_path / "x").exists()


def test_a_job_file_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` tells it too."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    opened(tmp_path, {}, outputs={"results": ["jsonl", "csv"]})
    with pytest.raises(JobFileError, match="parquet needs pyarrow, which is not installed"):
        opened(tmp_path, {}, outputs={"results": ["parquet"]})


def test_a_library_that_has_gone_meanwhile_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that runs for days may outlive an environment; the older file stays."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    folder = a_batch(tmp_path, mixed(), planned=MIXED)
    folder.form("parquet").write_text("older")
    with pytest.raises(RecordError) as caught:
        forms.write(folder, ["csv", "parquet"])
    assert caught.value.message.startswith(f"{folder.path}/results.parquet can't be written: ")
    assert caught.value.fix == (
        f"pip install 'runpod-runner[parquet]', then go on with 'runner resume {folder.path}', which writes it"
    )
    assert (folder.form("parquet").read_text(), len(rows(folder.form("csv")))) == ("older", 4)
    assert not list(folder.path.glob(".results*"))


def test_results_that_can_not_be_read_are_no_mistake_in_the_arguments(tmp_path: Path) -> None:
    """Exit 1, not 2: something was sent."""
    folder = a_batch(tmp_path, mixed(), planned=MIXED)
    text = folder.results.read_bytes()
    folder.results.write_bytes(b"{" + text[1:].replace(b"}", b"]", 1))
    with pytest.raises(RecordError, match=r"line 1 of .* can't be read: it is not JSON"):
        forms.write(folder, ["csv"])


def test_jsonl_is_there_in_any_case_and_each_form_once() -> None:
    """It is the record; naming it makes nothing twice."""
    assert forms.beside(["jsonl"]) == []
    assert forms.beside(["csv", "jsonl", "parquet", "csv"]) == ["csv", "parquet"]


def test_what_a_kill_left_of_an_earlier_one_is_no_hindrance(tmp_path: Path) -> None:
    """Nor does it stay beside the new one."""
    folder = a_batch(tmp_path, mixed(), planned=MIXED)
    (folder.path / ".results.csv.tmp").write_text("half a fi")
    forms.write(folder, ["csv"])
    assert sorted(path.name for path in folder.path.iterdir() if "results" in path.name) == [
        *("results.csv", "results.jsonl"),
    ]


def test_what_was_run_again_is_in_them_once(tmp_path: Path) -> None:
    """Only the lines that stand."""
    folder = a_batch(tmp_path, mixed(), planned=MIXED)
    store = opened_store(folder.path)
    store.reopen([Reopened("aaaa2", 200.0)])
    again = replace(a_run("aaaa2", index=1), row={"prompt": "ein Pferd"})
    store.write([a_settled(again, 2, an_ending(output="ja"))])
    store.close()
    forms.write(folder, ["csv"])
    assert [(row["key"], row["output"]) for row in rows(folder.form("csv"))] == [
        ("aaaa1", '{"score":0.75}'),
        ("bbbb3", ""),
        ("cccc4", "short"),
        ("aaaa2", "ja"),
    ]
