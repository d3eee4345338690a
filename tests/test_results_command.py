"""`runner results`: what is written, in which form, and where to."""

import csv
import io
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from frames import needs_pyarrow
from happened import a_run, a_settled, an_ending, carried, opened_store
from old_batches import MIXED, a_batch, mixed
from terminal import ROOT, environment, runner, write

from runner.batch import Folder
from runner.commands.results import Wanted, results
from runner.errors import UsageError
from runner.events import Reopened


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return a_batch(tmp_path / "batches", mixed(), planned=MIXED)


def written(folder: Folder, **wanted: Any) -> bytes:
    """What comes out on stdout."""
    out = io.BytesIO()
    assert results(str(folder.path), Wanted(**wanted), output_dir=None, out=out) == 0
    return out.getvalue()


def refused(folder: Folder, *, output: Path | None = None, **wanted: Any) -> str:
    """What is said instead."""
    with pytest.raises(UsageError) as caught:
        results(str(folder.path), Wanted(**wanted), output_dir=None, output=output, out=io.BytesIO())
    return caught.value.render()


def test_lines_pass_through_byte_for_byte(folder: Folder) -> None:
    """A filter must not write a number in another way."""
    lines = folder.results.read_bytes().splitlines(keepends=True)
    assert written(folder) == b"".join(lines)
    assert written(folder, states=["failed", "skipped"]) == lines[1] + lines[2]
    assert written(folder, jobs=["photos"], where="index == 0") == lines[0]
    assert written(folder, jobs=["captions"], states=["failed"]) == b""


def test_json_is_one_array(folder: Folder) -> None:
    """Of the same lines."""
    lines = [json.loads(line) for line in folder.results.read_bytes().splitlines()]
    assert json.loads(written(folder, format="json")) == lines
    assert written(folder, format="json").count(b"\n") == 6
    assert json.loads(written(folder, format="json", outcomes=["failed"])) == [lines[1]]
    assert written(folder, format="json", outcomes=["lost"]) == b"[]\n"


def test_csv_has_a_column_for_each_key(folder: Folder) -> None:
    """It opens in a spreadsheet as it is."""
    times = "1970-01-01T00:01:41.000Z,1970-01-01T00:01:43.000Z,[],,\n"
    assert written(folder, format="csv").decode() == (
        "key,job,index,state,outcome,status,row.prompt,row.style,matrix.seed,repeat,output,output.score,error,"
        "error_type,job_id,worker_id,attempts,delay_time_ms,execution_time_ms,submitted_at,settled_at,artifacts,"
        "reused_from,cost_usd\n"
        'aaaa1,photos,0,succeeded,completed,COMPLETED,a horse,,1,0,"{""score"":0.75}",0.75,,,aaaa1-job-1,w1,1,19,539,'
        f"{times}"
        f"aaaa2,photos,1,failed,failed,FAILED,ein Pferd,ink,,0,,,no horse,ValueError,aaaa2-job-1,w1,1,,,{times}"
        "bbbb3,photos,2,skipped,,,,,,0,,,,,,,0,,,,1970-01-01T00:01:43.000Z,[],,\n"
        f"cccc4,captions,0,succeeded,completed,COMPLETED,,,,0,short,,,,cccc4-job-1,w1,1,,,{times}"
    )


def test_csv_has_no_columns_of_jobs_that_are_not_wanted(folder: Folder) -> None:
    """Nor a different header for what --where happens to keep."""
    head = b"key,job,index,state,outcome,status,repeat,output,"
    assert written(folder, format="csv", jobs=["captions"]).startswith(head)
    whole = written(folder, format="csv").splitlines()
    assert written(folder, format="csv", where="false").splitlines() == whole[:1]
    assert written(folder, format="csv", where="job == 'captions'").splitlines() == [whole[0], whole[4]]


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("jsonl", '{"index":0,"output.score":0.75}\n{"index":1}\n{"index":2}\n{"index":0}\n'),
        ("json", '[\n{"index":0,"output.score":0.75},\n{"index":1},\n{"index":2},\n{"index":0}\n]\n'),
        ("csv", "index,output.score\n0,0.75\n1,\n2,\n0,\n"),
    ],
)
def test_fields_are_all_that_comes(folder: Folder, format_: str, expected: str) -> None:
    """What a line does not have is left out, so that null is told from nothing."""
    assert written(folder, format=format_, fields=["index", "output.score"]).decode() == expected


def test_what_runs_again_is_not_counted_twice(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """Also before the batch ends."""
    store = opened_store(folder.path)
    store.reopen([Reopened("aaaa2", 200.0)])
    store.close()
    assert written(folder, fields=["key"]) == b'{"key":"aaaa1"}\n{"key":"bbbb3"}\n{"key":"cccc4"}\n'
    assert capsys.readouterr().err == ""
    folder.ledger.write_bytes(b"no ledger")
    assert written(folder, fields=["key"]).count(b"\n") == 4
    assert capsys.readouterr().err == (
        "note: lines of runs that were run again may be among these:"
        f" the ledger {folder.ledger} can't be used: file is not a database\n"
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"format": "xml"}, "--format is jsonl, json, csv, parquet or openai, found 'xml'\n  help: write --format csv"),
        ({"format": "openai", "fields": ["key"]}, "--fields and --format openai exclude each other\n  help: leave one"),
        ({"jobs": ["photo"]}, "unknown job 'photo'\n  help: did you mean 'photos'?"),
        ({"fields": ["outptu"]}, "unknown field 'outptu' in --fields\n  help: did you mean 'output'?"),
        ({"where": "nothing"}, "--where: unknown name 'nothing'\n  help: known: "),
    ],
    ids=str,
)
def test_a_mistaken_wish_writes_nothing(folder: Folder, wanted: dict[str, Any], message: str) -> None:
    """Half an answer would be taken for a whole one."""
    assert refused(folder, **wanted).startswith(f"error: {message}")


def test_a_file_is_written_whole(folder: Folder, tmp_path: Path) -> None:
    """Over an older one, through a link, with nothing left beside it."""
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    wanted = Wanted(format="csv", fields=["key"])
    assert results(str(folder.path), wanted, output_dir=None, output=link) == 0
    assert (real.read_text(), link.is_symlink()) == ("key\naaaa1\naaaa2\nbbbb3\ncccc4\n", True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches", "link.csv", "real.csv"]


def test_a_file_is_left_as_it_was_when_something_is_wrong(folder: Folder, tmp_path: Path) -> None:
    """A later step must not read half of it."""
    (tmp_path / "out").write_text("old")
    assert refused(folder, output=tmp_path / "out", where="output.score > 0.5").startswith(
        "error: --where can't be told"
    )
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches", "out"]


OF_A_BATCH = (
    "is in a batch's folder, whose files are the record of what ran\n  help: name a file elsewhere with --output"
)


@pytest.mark.parametrize("name", ["results.jsonl", "ledger.sqlite", "artifacts/new.csv", "new.csv"])
def test_a_batch_s_folder_is_not_written_to(folder: Folder, tmp_path: Path, name: str) -> None:
    """Not this one's, not another's, not by a detour."""
    (folder.path / "artifacts").mkdir()
    before = folder.results.read_bytes()
    other = a_batch(tmp_path / "batches", id_="20270116T080000Z-0000")
    for path in (folder.path / name, folder.path / ".." / folder.id / name):
        assert refused(folder, output=path) == f"error: {folder.path / name} {OF_A_BATCH}"
    assert refused(folder, output=folder.path.parent / "latest" / "x") == f"error: {other.path}/x {OF_A_BATCH}"
    (tmp_path / "link").symlink_to(folder.results)
    assert refused(folder, output=tmp_path / "link") == f"error: {folder.results} {OF_A_BATCH}"
    assert folder.results.read_bytes() == before


def test_what_is_no_file_is_not_replaced_by_one(folder: Folder, tmp_path: Path) -> None:
    """As root, /dev/null would be a file from then on."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert refused(folder, output=path) == (
            f"error: {path} can't be written: it is no regular file\n"
            "  help: name a file, or leave --output out for stdout"
        )
    missing = tmp_path / "nowhere" / "out.csv"
    assert refused(folder, output=missing) == (
        f"error: {missing} can't be written: No such file or directory\n"
        "  help: see that its folder is there and has room, or name another file with --output"
    )


def in_parquet(data: bytes) -> Any:
    """The table in a file."""
    import pyarrow
    import pyarrow.parquet

    return pyarrow.parquet.read_table(pyarrow.BufferReader(data))


@needs_pyarrow
def test_a_table_has_types_and_the_same_columns_whatever_where_keeps(folder: Folder) -> None:
    """Two of them can be laid under one another."""
    whole = in_parquet(written(folder, format="parquet"))
    assert whole.column_names == written(folder, format="csv").decode().split("\n")[0].split(",")
    assert whole["key"].to_pylist() == ["aaaa1", "aaaa2", "bbbb3", "cccc4"]
    assert whole["output"].to_pylist() == ['{"score":0.75}', None, None, '"short"']
    assert whole["output.score"].to_pylist() == [0.75, None, None, None]
    some = in_parquet(written(folder, format="parquet", where="job == 'captions'"))
    assert (some["key"].to_pylist(), some.schema) == (["cccc4"], whole.schema)
    failed = in_parquet(written(folder, format="parquet", states=["failed"], fields=["key", "error.message", "key"]))
    assert failed.to_pydict() == {"key": ["aaaa2"], "error.message": ["no horse"], "key_2": ["aaaa2"]}


def test_a_terminal_gets_no_parquet(folder: Folder) -> None:
    """It would act on it; a file or a program may have it."""

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with pytest.raises(UsageError) as caught:
        results(str(folder.path), Wanted(format="parquet"), output_dir=None, out=out)
    assert caught.value.render() == "error: parquet is nothing for a terminal\n  help: name a file with --output"
    assert out.getvalue() == b""


@needs_pyarrow
def test_a_pipe_gets_the_whole_table_and_may_stop_reading(folder: Folder, tmp_path: Path) -> None:
    """A pipe can't tell where it is, and who has read enough hears no complaint."""
    table, whole = tmp_path / "x.parquet", f"{sys.executable} -m runner results {folder.path} --format parquet"
    assert results(str(folder.path), Wanted(format="parquet"), output_dir=None, output=table) == 0
    for command, expected in ((f"{whole} | cat", table.read_bytes()), (f"{whole} | head -c 4", b"PAR1")):
        ran = subprocess.run(command, shell=True, cwd=ROOT, env=environment(), capture_output=True, check=False)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, expected, b"")


def test_openai_s_form_is_for_rows_with_a_custom_id(tmp_path: Path) -> None:
    """The others can be left out."""
    asked = replace(a_run("k1"), row={"custom_id": "request-1", "body": {}})
    events = [*carried(asked, an_ending(output={"choices": []})), *carried(a_run("k2", "other"))]
    folder = a_batch(tmp_path, events, planned={"photos": 1, "other": 1})
    expected = {
        "id": "k1",
        "custom_id": "request-1",
        "response": {"status_code": 200, "request_id": "k1-job-1", "body": {"choices": []}},
        "error": None,
    }
    assert refused(folder, format="openai") == (
        "error: --format openai knows a run by the custom_id of its row, and run 0 of job other has none\n"
        "  help: choose the jobs whose rows have one with --job, or write --format jsonl"
    )
    for wanted in ({"jobs": ["photos"]}, {"where": "row is not none and row.custom_id is defined"}):
        assert json.loads(written(folder, format="openai", **wanted)) == expected


VLLM = """
def handler(job):
    asked = job["input"]["openai_input"]
    if asked["model"] != "m":
        raise ValueError("no such model")
    yield {"object": "chat.completion", "choices": [{"message": {"content": asked["messages"][0]["content"].upper()}}]}
"""

REQUESTS = """\
version: 1
name: requests
endpoints:
  vllm: {handler: "vllm.py:handler"}
jobs:
  chat:
    endpoint: vllm
    rows: {openai: requests.jsonl}
    input: {openai_route: "{{ row.url }}", openai_input: "{{ row.body }}"}
"""


def test_a_file_made_for_openai_s_batches_comes_back_as_their_answers(tmp_path: Path) -> None:
    """Who reads batches of OpenAI's, or of vLLM's run-batch, reads ours."""
    asked = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": f"a horse {number}"}]},
        }
        for number, model in enumerate(["m", "m", "none"])
    ]
    requests = "".join(json.dumps(one) + "\n" for one in asked)
    write(tmp_path, {"vllm.py": VLLM, "requests.yaml": REQUESTS, "requests.jsonl": requests})
    assert runner("run", "requests.yaml", "--quiet", cwd=tmp_path).code == 1
    ran = runner("results", "requests", "--format", "openai", cwd=tmp_path)
    told = sorted(map(json.loads, ran.out.splitlines()), key=lambda line: str(line["custom_id"]))
    assert [one["custom_id"] for one in told] == ["request-0", "request-1", "request-2"]
    assert [one["response"] and one["response"]["body"]["choices"][0]["message"]["content"] for one in told] == [
        *("A HORSE 0", "A HORSE 1", None),
    ]
    assert [one["error"] for one in told] == [None, None, {"code": "failed", "message": "no such model"}]


def test_results_of_a_pipeline_are_one_table(tmp_path: Path) -> None:
    """Rows that another job made are nested: each key of theirs is a column, what is in it stands as JSON."""
    first = replace(a_run("k1", "captions"), row={"path": "1.png"})
    second = replace(
        a_run("k2", "images"),
        row={"output": {"caption": "a horse"}, "artifacts": ["artifacts/1.txt"], "row": {"path": "1.png"}},
    )
    made = an_ending(output={"caption": "a horse"}, artifacts=("artifacts/1.txt",))
    events = [*carried(first, made), *carried(second, an_ending(output="done"))]
    folder = a_batch(tmp_path, events, planned={"captions": 1, "images": 1})
    rows = list(csv.DictReader(io.StringIO(written(folder, format="csv").decode(), newline="")))
    assert [row["row.path"] for row in rows] == ["1.png", ""]
    assert [row["row.output"] for row in rows] == ["", '{"caption":"a horse"}']
    assert [row["row.row"] for row in rows] == ["", '{"path":"1.png"}']
    assert [row["artifacts"] for row in rows] == ['["artifacts/1.txt"]', "[]"]


def test_the_help_says_that_no_cell_is_a_formula(tmp_path: Path) -> None:
    """Who wonders about the apostrophe finds it there."""
    assert "No cell can become a formula" in runner("results", "--help", cwd=tmp_path).out


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    """Results may be larger than memory; CSV needs two passes over them."""
    run, ending = a_run(), an_ending(output="x" * 1000)
    settled = [a_settled(replace(run, key=f"{n:08}", index=n, row={"n": n}), 1, ending) for n in range(5000)]
    folder = a_batch(tmp_path, settled, planned={"photos": 5000})
    out = tmp_path / "out.csv"
    tracemalloc.start()
    try:
        assert results(str(folder.path), Wanted(format="csv"), output_dir=None, output=out) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with out.open(newline="") as file:
        assert [row["row.n"] for row in csv.DictReader(file)] == [str(n) for n in range(5000)]
    assert peak < 2_000_000 < folder.results.stat().st_size
