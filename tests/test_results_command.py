"""`runner results`: what is written, in which form, and where to."""

import csv
import io
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, an_ending, opened_store
from old_batches import MIXED, a_batch, mixed

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
    times = "1970-01-01T00:01:41.000Z,1970-01-01T00:01:43.000Z,[]\n"
    assert written(folder, format="csv").decode() == (
        "key,job,index,state,outcome,status,row.prompt,row.style,matrix.seed,repeat,output,error,error_type,job_id,"
        "worker_id,attempts,delay_time_ms,execution_time_ms,submitted_at,settled_at,artifacts\n"
        'aaaa1,photos,0,succeeded,completed,COMPLETED,a horse,,1,0,"{""score"":0.75}",,,aaaa1-job-1,w1,1,19,539,'
        f"{times}"
        f"aaaa2,photos,1,failed,failed,FAILED,ein Pferd,ink,,0,,no horse,ValueError,aaaa2-job-1,w1,1,,,{times}"
        "bbbb3,photos,2,skipped,,,,,,0,,,,,,0,,,,1970-01-01T00:01:43.000Z,[]\n"
        f"cccc4,captions,0,succeeded,completed,COMPLETED,,,,0,short,,,cccc4-job-1,w1,1,,,{times}"
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
        ({"format": "xml"}, "--format is jsonl, json or csv, found 'xml'\n  help: write --format csv"),
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
