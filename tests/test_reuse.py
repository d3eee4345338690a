"""What an earlier batch has is not paid for again, and nothing is taken that could have come out otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, an_ending, intended, new_store, opened_store
from reusing import Sums
from terminal import Ran, finish, runner, serving, wait_until

from runner.entries import Taken
from runner.events import Claimed, FileClaim
from runner.results import line, settled
from runner.reuse import _renamed
from runner.shapes import noted
from runner.states import State

COST = {"endpoints": {"local": {"handler": "handler.py:handler", "cost_per_second": 1000.0}}}
TEXT = {"artifacts": [{"path": "{{ row.n }}.txt", "text": "{{ output.text }}"}]}


def test_what_succeeded_before_is_taken_and_only_the_rest_is_run(tmp_path: Path) -> None:
    """Tomorrow's rows are today's and some more: only these are paid for."""
    sums = Sums.make(tmp_path, 1, 2, 3, **COST)
    sums.passes()
    first, before = sums.batches[0], sums.lines
    assert (sums.calls, sums.reused) == ([1, 2, 3], 0)

    sums.set_rows(9, 1, 2, 3)
    ran = sums.passes()
    assert (sums.calls, sums.reused) == ([9], 3)
    assert "double  4 of 4 succeeded (3 reused), execution" in ran.out
    for old, new in zip(before, sums.lines[1:], strict=True):
        own = {"index": old["index"] + 1, "attempts": 0, "job_id": None, "submitted_at": None}
        assert new == old | own | {"settled_at": new["settled_at"], "reused_from": first.id}
    assert sums.lines[0]["attempts"] == 1


def test_what_is_reused_costs_nothing(tmp_path: Path) -> None:
    """Neither in the report nor where money stops a job: it was paid for long ago."""
    stop = {"stop_when": {"cost": "0.001 USD"}}
    sums = Sums.make(tmp_path, 1, 2, 3, **COST)
    sums.passes()
    sums.set_job(stop, **COST)
    sums.passes()
    assert (sums.reused, json.loads(sums.batches[0].health.read_bytes())["jobs"]["double"]["cost_usd"]) == (3, 0.0)


def test_nothing_is_reused_unless_the_job_file_says_so(tmp_path: Path) -> None:
    """Who measures, or draws lots, wants every run."""
    sums = Sums.make(tmp_path, 1, 2, job={"reuse": "never"})
    sums.passes()
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 1, 2, 2], 0)


def test_fresh_reuses_nothing(tmp_path: Path) -> None:
    """The command line has the last word, and the next batch takes the newest results."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    sums.passes("--fresh")
    assert (sums.calls, sums.reused) == ([1, 1, 2, 2], 0)
    newest = sums.batches[0].id
    sums.passes()
    assert (sums.calls, [line["reused_from"] for line in sums.lines]) == ([], [newest, newest])


def test_what_failed_is_run_again(tmp_path: Path) -> None:
    """Only a success is worth keeping."""
    sums = Sums.make(tmp_path, 1, 2, 3)
    (tmp_path / "bad2").touch()
    assert sums.run().code == 1
    (tmp_path / "bad2").unlink()
    assert sums.calls == [1, 2, 3]
    sums.passes()
    assert (sums.calls, sums.reused) == ([2], 2)


def _handler(sums: Sums) -> None:
    sums.set_handler("\n\nOTHER = 1\n")


def _endpoint(sums: Sums) -> None:
    sums.set_job({"endpoint": "other"}, endpoints={"other": {"handler": "handler.py:handler"}})


def _success_when(sums: Sums) -> None:
    sums.set_job({"success_when": "output.double > 0"})


def _artifacts(sums: Sums) -> None:
    sums.set_job(TEXT)


def _mode(sums: Sums) -> None:
    sums.set_job({"mode": "sync"})


@pytest.mark.parametrize("change", [_handler, _endpoint, _success_when, _artifacts, _mode])
def test_nothing_is_taken_that_may_come_out_otherwise_now(tmp_path: Path, change: Any) -> None:
    """Another handler, another endpoint, another judgement: the old result says nothing of the new one."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    change(sums)
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 1, 2, 2], 0)


def test_what_makes_no_other_result_does_not_matter(tmp_path: Path) -> None:
    """More lanes, more patience, another order: the same results."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    sums.set_rows(2, 1)
    more = {"concurrency": 7, "retry": {"attempts": 3}, "timeouts": {"run": "9m"}, "policy": {"ttl": "1h"}}
    sums.set_job(more, description="more of everything", vars={"unused": 1})
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2], 2)


def test_a_judgement_by_the_row_is_not_taken_for_another_row(tmp_path: Path) -> None:
    """The input is the same, and so is the expression; what it compares the output with is not."""
    judged = {"success_when": "output.double == row.wanted", "input": {"n": 1}}
    sums = Sums.make(tmp_path, job=judged | {"rows": {"inline": [{"wanted": 2}]}})
    sums.passes()
    sums.set_job(judged | {"rows": {"inline": [{"wanted": 3}]}})
    assert sums.run().code == 1
    assert (sums.calls, sums.reused) == ([1, 1], 0)
    sums.set_job(judged | {"rows": {"inline": [{"wanted": 2}]}})
    sums.passes()
    assert (sums.calls, sums.reused) == ([], 1)


def test_a_judgement_by_vars_is_not_taken_for_other_vars(tmp_path: Path) -> None:
    """--var makes another expression of the same text."""
    sums = Sums.make(tmp_path, 1, job={"success_when": "output.double > vars.least"}, vars={"least": 1})
    sums.passes()
    assert sums.run("--var", "least=2").code == 1
    assert (sums.calls, sums.reused) == ([1, 1], 0)


# Artifacts


def files(sums: Sums) -> dict[str, str]:
    """The artifacts of the newest batch."""
    folder = sums.batches[0].path / "artifacts"
    return {path.name: path.read_text() for path in sorted(folder.iterdir())} if folder.exists() else {}


def test_artifacts_are_copied_so_that_the_earlier_batch_can_go(tmp_path: Path) -> None:
    """`runner clean` harms no later batch: what that refers to is its own."""
    sums = Sums.make(tmp_path, 1, 2, job=TEXT)
    sums.passes()
    first, before = sums.batches[0], files(sums)
    sums.passes()
    assert (sums.calls, sums.reused, files(sums)) == ([1, 2], 2, before)
    made = sums.batches[0]
    assert [line["artifacts"] for line in sums.lines] == [["artifacts/1.txt"], ["artifacts/2.txt"]]
    whole = made.results.read_bytes()

    ran = sums.runner("clean", "--keep", "1", "--yes")
    assert ran.code == 0, ran.err
    assert not first.path.exists()
    assert (made.results.read_bytes(), files(sums)) == (whole, before)
    assert sums.runner("show", "sums", "0").out.count(f"reused     from batch {first.id}") == 1

    sums.passes()
    assert (sums.calls, sums.reused, files(sums)) == ([], 2, before)
    assert [line["reused_from"] for line in sums.lines] == [first.id, first.id]


def _gone(path: Path) -> None:
    path.unlink()


def _changed(path: Path) -> None:
    path.write_text("it is 3")


@pytest.mark.parametrize("harm", [_gone, _changed])
def test_a_run_whose_file_is_not_as_it_was_made_is_run_again(tmp_path: Path, harm: Any) -> None:
    """A result without its files is none."""
    sums = Sums.make(tmp_path, 1, 2, job=TEXT)
    sums.passes()
    harm(sums.batches[0].path / "artifacts/2.txt")
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2, 2], 1)
    assert files(sums) == {"1.txt": "it is 1", "2.txt": "it is 2"}


def test_artifacts_are_called_by_the_index_that_they_have_now(tmp_path: Path) -> None:
    """A row in front moves all others: each file, and what the output says of it, moves along."""
    job = {"artifacts": [{"path": "{{ run.index }}.txt", "text": "{{ output.text }}"}]}
    sums = Sums.make(tmp_path, 1, 2, job=job)
    sums.passes()
    sums.set_rows(7, 1, 2)
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2, 7], 2)
    assert files(sums) == {"0.txt": "it is 7", "1.txt": "it is 1", "2.txt": "it is 2"}
    for one in sums.lines:
        assert one["artifacts"] == [one["output"]["text"]["file"]] == [f"artifacts/{one['index']}.txt"]


def test_a_reference_in_an_output_is_renamed_where_it_is_one() -> None:
    """What only looks like one is the worker's own."""
    names = {("artifacts/0.txt", "abc"): "artifacts/1.txt"}
    one, other = {"file": "artifacts/0.txt", "sha256": "abc"}, {"file": "artifacts/0.txt", "sha256": "abd"}
    output = {"a": [one, other], "b": one | {"more": 1}, "c": {"file": [], "sha256": 1}, "d": "artifacts/0.txt"}
    assert _renamed(output, names) == output | {"a": [one | {"file": "artifacts/1.txt"}, other]}


# Earlier batches


def test_a_batch_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """It is said, and an older one that has the results is taken."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    oldest = sums.batches[0].id
    sums.passes()
    damaged = sums.batches[0]
    sums.set_rows(7)
    sums.passes()
    damaged.ledger.write_bytes(b"no database" * 1000)
    sums.set_rows(1, 2)
    ran = sums.passes()
    assert (sums.calls, [one["reused_from"] for one in sums.lines]) == ([1, 2, 7], [oldest, oldest])
    assert f"nothing is reused from batch {damaged.id}: " in ran.err
    assert sums.passes("--quiet").err == ""


def test_a_line_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    """Whoever edited results.jsonl by hand made no result."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    results = sums.batches[0].results
    results.write_bytes(results.read_bytes().replace(b"it is 2", b"it is 3"))
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2, 2], 1)
    assert [line["output"]["text"] for line in sums.lines] == ["it is 1", "it is 2"]


def test_a_batch_of_two_minds_is_not_taken_from() -> None:
    """It was gone on with by another handler: nobody knows which run is of which."""
    assert noted(None, {"a": "1", "b": None}, is_resumed=False) == {"a": ["1"], "b": [None]}
    assert noted({"a": ["1"]}, {"a": "1"}, is_resumed=True) == {"a": ["1"]}
    assert noted({"a": ["1"]}, {"a": "2"}, is_resumed=True) == {"a": ["1", "2"]}
    assert noted({"a": ["1"]}, {"b": "2"}, is_resumed=True) == {"a": ["1"], "b": ["2"]}
    assert noted(None, {"a": "1"}, is_resumed=True) == {"a": [None, "1"]}


def test_a_batch_that_went_on_with_another_handler_is_not_taken_from(tmp_path: Path) -> None:
    """Its first runs are of the one, its last of the other."""
    sums = Sums.make(tmp_path, 1, 2)
    (tmp_path / "bad2").touch()
    assert sums.run().code == 1
    (tmp_path / "bad2").unlink()
    sums.set_handler("\n\nOTHER = 1\n")
    assert sums.runner("resume", "sums", "--retry-failed").code == 0
    assert sums.calls == [1, 2, 2]
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2], 0)


def test_workers_that_nobody_knows_again_are_never_taken_from(tmp_path: Path) -> None:
    """The file may be the same, and the program that was started with it another."""
    sums = Sums.make(tmp_path, 1, 2)
    with serving(tmp_path / "sums.yaml") as server:
        for _ in range(2):
            ran = sums.run("--local", server.url, env=server.env)
            assert ran.code == 0, ran.err
    assert (sums.calls, sums.reused) == ([1, 1, 2, 2], 0)
    sums.passes()
    assert (sums.calls, sums.reused) == ([1, 2], 0)


def test_a_command_is_warned_of(tmp_path: Path) -> None:
    """The key would do nothing, and nobody would see it."""
    sums = Sums.make(tmp_path, 1, endpoints={"local": {"command": "python handler.py"}})
    ran = sums.runner("validate", "sums.yaml")
    assert ran.code == 0
    said = "warning: nothing is reused: what the workers of a local endpoint with 'command' run can't be known again"
    assert said in ran.out + ran.err
    assert "help: give the endpoint a handler, or leave 'reuse' out" in ran.out + ran.err


def _remote(sums: Sums) -> None:
    sums.set_job(
        {"endpoint": "remote"},
        endpoints={"remote": {"id": "local", "base_url": "${URL}", "api_key": "${KEY}"}},
    )


def test_a_remote_endpoint_is_known_by_its_id_and_its_url(tmp_path: Path) -> None:
    """The same job on another endpoint is another worker, another model, another price."""
    sums = Sums.make(tmp_path, 1, 2)
    shutil.copy(tmp_path / "sums.yaml", tmp_path / "served.yaml")
    with serving(tmp_path / "served.yaml") as server, serving(tmp_path / "served.yaml") as other:
        _remote(sums)

        def run(served: Any) -> Ran:
            ran = sums.run(env={"URL": served.url, "KEY": served.token})
            assert ran.code == 0, ran.err
            return ran

        run(server)
        run(server)
        assert (sums.calls, sums.reused) == ([1, 2], 2)
        run(other)
        assert (sums.calls, sums.reused) == ([1, 2], 0)


def test_the_jobs_of_a_pipeline_are_reused_each_by_itself(tmp_path: Path) -> None:
    """What is fed on is the same, so what was made of it is; a new row goes all the way."""
    second = {
        "endpoint": "local",
        "rows": {"job": "double"},
        "reuse": "succeeded",
        "input": {"n": "{{ row.output.double }}"},
    }
    sums = Sums.make(tmp_path, 1, 2)
    text = json.loads((tmp_path / "sums.yaml").read_text())
    text["jobs"]["again"] = second
    (tmp_path / "sums.yaml").write_text(json.dumps(text))
    sums.passes()
    assert sums.calls == [1, 2, 2, 4]
    sums.set_rows(5, 1, 2)
    sums.passes()
    assert (sums.calls, sums.reused) == ([5, 10], 4)


# Kills


def test_a_kill_in_the_middle_of_reusing_changes_nothing(tmp_path: Path) -> None:
    """What was taken stays, the rest is taken later: the batch is whole, and the handler hears of nothing."""
    count = 700
    sums = Sums.make(tmp_path, *range(count), endpoints={"local": {"handler": "handler.py:handler", "workers": 2}})
    sums.passes()
    assert len(sums.calls) == count
    first = sums.batches[0]

    process = sums.start()
    wait_until(lambda: len(sums.batches) > 1 and _size(sums.batches[0].results), "the first reused line")
    process.kill()
    finish(process)
    ran = sums.run("--resume")
    assert ran.code == 0, ran.err
    assert (sums.calls, sums.reused) == ([], count)
    assert {line["reused_from"] for line in sums.lines} == {first.id}
    assert [line["output"]["double"] for line in sums.lines] == [2 * n for n in range(count)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_a_reused_line_that_the_ledger_does_not_speak_of_is_adopted(tmp_path: Path) -> None:
    """A kill came between the line and the commit: it is counted as what it is, and costs nothing."""
    store, run = new_store(tmp_path), a_run()
    told = line(
        run,
        an_ending(execution_time_ms=5000),
        state=State.SUCCEEDED,
        attempts=0,
        job_id=None,
        submitted_at=None,
        settled_at=103.0,
        reused_from="20261123T022312Z-7f3a",
    )
    store.close()
    (tmp_path / "results.jsonl").write_bytes(told)
    store = opened_store(tmp_path)
    assert (store.repair(), store.ledger.reused(), store.ledger.spent()) == (1, {"photos": 1}, {})
    assert settled(told).reused_from == "20261123T022312Z-7f3a"
    store.close()


def test_a_name_that_a_reused_run_is_about_to_take_is_taken(tmp_path: Path) -> None:
    """It has no row yet, for it was never sent; after a kill it is none, and the name is free."""
    store = new_store(tmp_path)
    claim = Claimed("k1", 0, (FileClaim("artifacts/1.png", "abc", 3),))
    other = Claimed("k2", 1, claim.files)
    assert store.write([claim]) == {}
    assert store.write([intended(a_run("k2")), other]) == {"k2": Taken("artifacts/1.png", None, None)}
    store.close()
    store = opened_store(tmp_path)
    store.repair()
    assert store.write([other]) == {}
    store.close()


def test_what_runs_were_begun_fresh_goes_on_fresh(tmp_path: Path) -> None:
    """A resume takes nothing where nothing was to be taken."""
    sums = Sums.make(tmp_path, 1, 2, 3)
    sums.passes()
    assert sums.calls == [1, 2, 3]
    # A batch that was begun fresh and got no further than its first run.
    (tmp_path / "bad1").touch()
    sums.set_job({"stop_when": {"failed": 1}, "concurrency": 1})
    assert sums.run("--fresh").code == 1
    assert sums.calls == [1]
    (tmp_path / "bad1").unlink()
    sums.set_job({"concurrency": 1})
    assert sums.runner("resume", "sums", "--retry-failed").code == 0
    assert (sums.calls, sums.reused) == ([1, 2, 3], 0)


def test_help_says_both_that_fresh_does() -> None:
    """It would be found out by paying, else."""
    said = " ".join(runner("run", "--help", cwd=Path.cwd()).out.split())
    assert "Start a new batch, also beside an unfinished one, in which nothing is reused." in said
