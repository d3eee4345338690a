"""Jobs that need each other: order, gates, one job's runs as the rows of the next, and counts that add up."""

import asyncio
import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pipelines import counts, gone_on_with, lines_of, numbers, pipeline, ran, states, why

from runner import progress
from runner.commands.plan import plan
from runner.commands.show import show
from runner.errors import UsageError
from runner.execute import execute
from runner.ledger import Ledger
from runner.live import Live
from runner.options import Options
from runner.summary import summary
from runner.tally import Tally

ECHO = {"n": "{{ row.n }}", "fails": "{{ row.fails }}"}
OF_A: dict[str, Any] = {"rows": {"job": "a"}, "input": {"n": "{{ row.output.n }}"}}


def a(count: int = 3, *, fails: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """A job of *count* runs, of which those in *fails* fail."""
    return {"rows": numbers(count, fails=dict.fromkeys(fails, True)), "input": ECHO} | more


# Rows of another job


async def test_each_run_that_succeeds_is_a_row(tmp_path: Path) -> None:
    """With all that is known of it, times matrix and repeat; a run's index says which of them it is."""
    second = {
        "rows": {"job": "a", "matrix": {"seed": [7, 8]}},
        "input": {"n": "{{ row.output.n }}", "seed": "{{ matrix.seed }}", "of": "{{ row.row.n }}"},
    }
    batch = await ran(pipeline(tmp_path, {"a": a(), "b": second}))
    assert batch.verdict == "pass"
    first = lines_of(batch, "a")
    made = lines_of(batch, "b")
    assert [(line["index"], line["output"]["n"], line["output"]["seed"], line["output"]["of"]) for line in made] == [
        *((0, 0, 7, 0), (1, 0, 8, 0), (2, 1, 7, 1)),
        *((3, 1, 8, 1), (4, 2, 7, 2), (5, 2, 8, 2)),
    ]
    row = {name: first[1][name] for name in ("job", "key", "index", "row", "matrix", "repeat", "output", "artifacts")}
    assert made[2]["row"] == made[3]["row"] == row


async def test_rows_come_while_their_job_still_runs(tmp_path: Path) -> None:
    """The second run of the first job waits for the first run of the second: without streaming neither would end."""
    mark = str(tmp_path / "begun")
    rows = {"inline": [{"n": 0}, {"n": 1, "awaits": mark}]}
    first = {"rows": rows, "input": {"n": "{{ row.n }}", "awaits": "{{ row.awaits | default('/', true) }}"}}
    second = {"rows": {"job": "a"}, "input": {"n": "{{ row.output.n }}", "marks": mark}}
    batch = await ran(pipeline(tmp_path, {"a": first, "b": second}))
    assert states(batch, "b") == ["succeeded"] * 2


async def test_what_does_not_succeed_leaves_skipped_runs_with_a_reason(tmp_path: Path) -> None:
    """The counts add up to what was planned before anybody knew."""
    second = OF_A | {"rows": {"job": "a", "repeat": 2}}
    third = {"rows": {"job": "b"}, "input": {"n": 1}}
    batch = await ran(pipeline(tmp_path, {"a": a(fails=(1,)), "b": second, "c": third}))
    assert (batch.verdict, batch.exit_code) == ("fail", 1)
    assert counts(batch, "b") == {"runs": 6, "succeeded": 4, "skipped": 2}
    assert counts(batch, "c") == {"runs": 6, "succeeded": 4, "skipped": 2}
    failed = "run 1 of job 'a' failed"
    assert why(batch, "b") == [None, None, failed, failed, None, None]
    assert why(batch, "c")[2:4] == [f"run {n} of job 'b' was skipped: {failed}" for n in (2, 3)]
    line = lines_of(batch, "b")[2]
    assert line["error"] == {"type": None, "message": failed, "traceback": None}
    assert (line["input"], line["attempts"], line["row"]["row"], line["row"]["output"]) == (
        None,
        0,
        {"n": 1, "fails": True},
        None,
    )
    assert batch.health["jobs"]["b"]["errors"] == [{"message": failed, "count": 2}]


async def test_what_where_drops_is_no_run(tmp_path: Path) -> None:
    """How many there are is said exactly in the end."""
    second = OF_A | {"rows": {"job": "a", "where": "row.output.n > 0"}}
    batch = await ran(pipeline(tmp_path, {"a": a(), "b": second, "c": {"needs": ["b"]}}))
    assert batch.verdict == "pass"
    assert counts(batch, "b") == {"runs": 2, "succeeded": 2}
    assert [line["index"] for line in lines_of(batch, "b")] == [1, 2]
    assert counts(batch, "c") == {"runs": 1, "succeeded": 1}
    before = batch.folder.results.read_bytes()
    again = await gone_on_with(batch)
    assert (again.verdict, counts(again, "b")) == ("pass", {"runs": 2, "succeeded": 2})
    assert batch.folder.results.read_bytes() == before


async def test_a_row_on_which_where_fails_is_invalid(tmp_path: Path) -> None:
    """One odd output is named, and harms nothing else."""
    second = OF_A | {"rows": {"job": "a", "where": "row.output.n and row.output.n < 2"}}
    batch = await ran(pipeline(tmp_path, {"a": a(), "b": second}))
    assert counts(batch, "b") == {"runs": 2, "succeeded": 1, "failed": 1}
    assert why(batch, "b") == ["rows.where: expected true or false, found 0", None]


async def test_a_limit_takes_the_first_rows_to_come(tmp_path: Path) -> None:
    """What failed takes a place only when no other row wants it."""
    jobs = {
        "a": a(5, fails=(0, 1, 2)),
        "few": OF_A | {"rows": {"job": "a", "limit": 2}},
        "some": OF_A | {"rows": {"job": "a", "limit": 4}},
    }
    batch = await ran(pipeline(tmp_path, jobs))
    assert counts(batch, "few") == {"runs": 2, "succeeded": 2}
    assert counts(batch, "some") == {"runs": 4, "succeeded": 2, "skipped": 2}


async def test_limit_on_the_command_line_cuts_runs_of_each_job(tmp_path: Path) -> None:
    """The same ones each time: those with the first indexes."""
    second = OF_A | {"rows": {"job": "a", "repeat": 2}}
    batch = await ran(pipeline(tmp_path, {"a": a(5), "b": second}), limit=3)
    assert counts(batch, "b") == {"runs": 3, "succeeded": 3}
    assert [line["index"] for line in lines_of(batch, "b")] == [0, 1, 2]


async def test_equal_inputs_have_keys_of_their_own(tmp_path: Path) -> None:
    """As everywhere: an occurrence number tells them apart."""
    batch = await ran(pipeline(tmp_path, {"a": a(4), "b": {"rows": {"job": "a"}, "input": {"same": True}}}))
    assert counts(batch, "b") == {"runs": 4, "succeeded": 4}
    assert len({line["key"] for line in lines_of(batch, "b")}) == 4


# All runs together


async def test_all_runs_that_succeeded_are_one_row(tmp_path: Path) -> None:
    """In the order of the plan, whatever the order of their ends."""
    sheet = {
        "rows": {"job": "a", "collect": True},
        "input": {"all": "{{ row.runs | map(attribute='output.n') | list }}"},
    }
    batch = await ran(pipeline(tmp_path, {"a": a(4, fails=(1,)), "sheet": sheet}))
    assert counts(batch, "sheet") == {"runs": 1, "succeeded": 1}
    assert lines_of(batch, "sheet")[0]["output"]["all"] == [0, 2, 3]


async def test_nothing_to_collect_is_a_reason_to_skip(tmp_path: Path) -> None:
    """For each run that there would have been."""
    sheet = {"rows": {"job": "a", "collect": True, "repeat": 2}, "input": {"all": "{{ row.runs | length }}"}}
    batch = await ran(pipeline(tmp_path, {"a": a(2, fails=(0, 1)), "sheet": sheet}))
    assert why(batch, "sheet") == ["no run of job 'a' succeeded"] * 2


# Artifacts of the job before


def with_artifacts(fails: tuple[int, ...] = ()) -> dict[str, Any]:
    """A job that makes a file of each output."""
    return a(2, fails=fails, artifacts=[{"path": "pictures/{{ row.n }}.png", "base64": "{{ output.data }}"}])


async def test_artifacts_go_into_inputs_and_results_name_them(tmp_path: Path) -> None:
    """The next worker gets the bytes, and results.jsonl which file they were."""
    second = {
        "rows": {"job": "a"},
        "input": {
            "n": 0,
            "raw": "{{ row.artifacts[0] | artifact_base64 }}",
            "uri": "{{ row.output.data.file | artifact_data_uri }}",
        },
    }
    batch = await ran(pipeline(tmp_path, {"a": with_artifacts(), "b": second}))
    assert batch.verdict == "pass"
    line = lines_of(batch, "b")[1]
    path = "artifacts/pictures/1.png"
    named = {"file": path, "sha256": sha256((batch.folder.path / path).read_bytes()).hexdigest()}
    assert line["input"] == {"n": 0, "raw": named, "uri": named}
    assert line["output"]["raw"] == "cGljdHVyZSBvZiAx"
    assert line["output"]["uri"] == "data:image/png;base64,cGljdHVyZSBvZiAx"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("manifest.json", "'manifest.json' is no artifact of this batch: write one of row.artifacts"),
        ("artifacts/../x", "'artifacts/../x' is no artifact of this batch: write one of row.artifacts"),
        ("/etc/passwd", "'/etc/passwd' is no artifact of this batch: write one of row.artifacts"),
        ("artifacts/none.png", "there is no file 'artifacts/none.png' below this batch's 'artifacts'"),
    ],
)
async def test_only_artifacts_of_the_batch_are_read(tmp_path: Path, path: str, says: str) -> None:
    """A path may come from a model's output, and must not reach anything else."""
    second = {"rows": {"job": "a"}, "input": {"raw": "{{ vars.path | artifact_base64 }}"}}
    batch = await ran(pipeline(tmp_path, {"a": with_artifacts(), "b": second}, vars={"path": path}))
    assert why(batch, "b") == [f"input.raw: {says}"] * 2


# Needs and when


async def test_a_job_waits_for_those_it_needs(tmp_path: Path) -> None:
    """Nothing of it is sent before the last run of theirs is settled."""
    batch = await ran(pipeline(tmp_path, {"later": {"needs": ["a"], "rows": numbers(2)}, "a": a(3)}))
    assert batch.verdict == "pass"
    assert [line["job"] for line in batch.results()] == ["a"] * 3 + ["later"] * 2


async def test_a_job_is_skipped_when_what_it_needs_did_not_succeed(tmp_path: Path) -> None:
    """All of its runs, each with the reason; and so is the next one."""
    jobs = {"a": a(3, fails=(0,)), "b": {"needs": ["a"], "rows": numbers(2)}, "c": {"needs": ["b"]}}
    batch = await ran(pipeline(tmp_path, jobs))
    assert batch.verdict == "fail"
    assert why(batch, "b") == ["1 of 3 runs of job 'a' did not succeed"] * 2
    assert why(batch, "c") == ["2 of 2 runs of job 'b' did not succeed"]


async def test_when_takes_the_place_of_that_rule(tmp_path: Path) -> None:
    """It sees how the runs ended, and the vars."""
    gates = {
        "enough": "jobs.a.succeeded >= vars.least and jobs.a.failed == 1",
        "mourning": "jobs.a.succeeded == 0",
        "odd": "jobs.a.runs / jobs.a.cancelled > 1",
    }
    jobs = {name: {"needs": ["a"], "when": when} for name, when in gates.items()}
    batch = await ran(pipeline(tmp_path, {"a": a(3, fails=(0,))} | jobs, vars={"least": 2}))
    assert states(batch, "enough") == ["succeeded"]
    assert why(batch, "mourning") == ["when is false"]
    assert why(batch, "odd") == ["when: the template fails: division by zero"]


async def test_what_a_job_file_chose_not_to_run_fails_no_batch(tmp_path: Path) -> None:
    """A clean-up that was not needed is no failure, nor is what comes after it."""
    jobs = {
        "a": a(2),
        "mend": {"rows": {"job": "a"}, "when": "jobs.a.failed > 0", "input": {"n": "{{ row.output.n }}"}},
        "after": {"needs": ["mend"]},
        "of_it": {"rows": {"job": "mend"}, "input": {"n": 1}},
        "all_of_it": {"rows": {"job": "mend", "collect": True}, "input": {"n": 1}},
    }
    batch = await ran(pipeline(tmp_path, jobs))
    assert (batch.verdict, batch.exit_code) == ("pass", 0)
    assert why(batch, "mend") == ["when is false"] * 2
    assert why(batch, "after") == why(batch, "all_of_it") == ["job 'mend' was skipped: when is false"]
    assert why(batch, "of_it") == [f"run {n} of job 'mend' was skipped: when is false" for n in (0, 1)]


async def test_with_when_rows_wait_for_all_of_their_job(tmp_path: Path) -> None:
    """What it says is of all runs, so none is made before."""
    second = OF_A | {"when": "jobs.a.failed == 1"}
    batch = await ran(pipeline(tmp_path, {"a": a(3, fails=(2,)), "b": second}))
    assert [line["job"] for line in batch.results()] == ["a"] * 3 + ["b"] * 3
    assert counts(batch, "b") == {"runs": 3, "succeeded": 2, "skipped": 1}


async def test_the_source_of_rows_may_have_failures_where_another_need_may_not(tmp_path: Path) -> None:
    """They are told row by row."""
    jobs = {"a": a(2, fails=(0,)), "warm_up": {}, "b": OF_A | {"needs": ["warm_up", "a"]}}
    batch = await ran(pipeline(tmp_path, jobs))
    assert counts(batch, "b") == {"runs": 2, "succeeded": 1, "skipped": 1}


@pytest.mark.parametrize(
    ("chosen", "needed", "fix"),
    [("b", "a", "choose both: --job a --job b"), ("c", "b", "choose all: --job a --job b --job c")],
)
async def test_a_job_is_not_chosen_without_what_it_needs(tmp_path: Path, chosen: str, needed: str, fix: str) -> None:
    """Taking it along would be paid for by surprise."""
    path = pipeline(tmp_path, {"a": a(), "b": OF_A, "c": {"needs": ["b"]}})
    with pytest.raises(UsageError) as raised:
        await ran(path, only=(chosen,))
    assert raised.value.render() == f"error: job '{chosen}' needs job '{needed}', which is not chosen\n  help: {fix}"
    assert not (tmp_path / "batches").exists()


# Going on with a batch


async def test_what_failed_is_run_again_and_gives_its_rows_then(tmp_path: Path) -> None:
    """What was skipped because of it is forgotten, what was collected without it is collected anew."""
    block = tmp_path / "block"
    block.touch()
    first = {
        "rows": numbers(3, fails_while={1: str(block)}),
        "input": {"n": "{{ row.n }}", "fails_while": "{{ row.fails_while | default('/none', true) }}"},
    }
    jobs = {
        "a": first,
        "b": OF_A,
        "gated": {"needs": ["a"]},
        "sheet": {
            "rows": {"job": "b", "collect": True},
            "input": {"n": 0, "all": "{{ row.runs | map(attribute='output.n') | list }}"},
            "artifacts": [{"path": "sheet.json", "json": "{{ output.all }}"}],
        },
        "sent": {"rows": {"job": "sheet"}, "input": {"n": 1, "all": "{{ row.output.all.file | artifact_base64 }}"}},
    }
    batch = await ran(pipeline(tmp_path, jobs))
    assert states(batch, "b") == ["succeeded", "skipped", "succeeded"]
    assert states(batch, "gated") == ["skipped"]
    before = lines_of(batch, "sheet") + lines_of(batch, "sent")
    assert [line["state"] for line in before] == ["succeeded"] * 2
    block.unlink()
    again = await gone_on_with(batch, retry_failed=True)
    assert again.verdict == "pass", again.health
    assert {name: counts(again, name) for name in jobs} == {
        name: {"runs": runs, "succeeded": runs}
        for name, runs in {"a": 3, "b": 3, "gated": 1, "sheet": 1, "sent": 1}.items()
    }
    assert json.loads((again.folder.path / "artifacts/sheet.json").read_bytes()) == [0, 1, 2]
    lines = list(again.results())
    assert len(lines) == 9
    assert not {line["key"] for line in before} & {line["key"] for line in lines}
    assert len([line for line in lines if line["job"] == "b"]) == 3
    finished = again.folder.results.read_bytes()
    once_more = await gone_on_with(again)
    assert (once_more.verdict, again.folder.results.read_bytes()) == ("pass", finished)


async def test_what_was_collected_waits_for_what_is_run_again_before_it_is(tmp_path: Path) -> None:
    """When both have failed: an input that is about to grow is not paid for again."""
    block = tmp_path / "block"
    block.touch()
    fails = {"n": "{{ row.n }}", "fails_while": "{{ row.fails_while | default('/none', true) }}"}
    jobs: dict[str, dict[str, Any]] = {
        "a": {"rows": numbers(3, fails_while={1: str(block)}), "input": fails},
        "whole": {"rows": {"job": "a", "collect": True}, "input": {"n": "{{ row.runs | length }}"}},
        "sheet": {
            "rows": {"job": "a", "collect": True},
            "input": {"n": "{{ row.runs | length }}", "fails_while": str(block)},
        },
        "of_whole": {"rows": {"job": "whole"}, "input": {"n": "{{ row.output.n }}", "fails_while": str(block)}},
    }
    batch = await ran(pipeline(tmp_path, jobs))
    assert {name: states(batch, name) for name in ("whole", "sheet", "of_whole")} == {
        "whole": ["succeeded"],
        "sheet": ["failed"],
        "of_whole": ["failed"],
    }
    block.unlink()
    again = await gone_on_with(batch, retry_failed=True)
    assert again.verdict == "pass", again.health
    assert [lines_of(again, name)[0]["output"]["n"] for name in ("whole", "sheet", "of_whole")] == [3, 3, 3]
    with Ledger.read_only(again.folder.ledger) as ledger:
        tried = ledger.database.rows("SELECT job, count(*) FROM attempts WHERE job != 'a' GROUP BY job")
        assert dict(map(tuple, tried)) == {"whole": 2, "sheet": 2, "of_whole": 2}


async def test_what_was_collected_and_failed_is_run_again_where_nothing_else_is(tmp_path: Path) -> None:
    """Its row is as it was, and so is its key."""
    block = tmp_path / "block"
    block.touch()
    sheet = {"rows": {"job": "a", "collect": True}, "input": {"n": 1, "fails_while": str(block)}}
    batch = await ran(pipeline(tmp_path, {"a": a(2), "sheet": sheet}))
    (before,) = lines_of(batch, "sheet")
    assert before["state"] == "failed"
    block.unlink()
    again = await gone_on_with(batch, retry_failed=True)
    assert again.verdict == "pass"
    assert [(line["key"], line["attempts"]) for line in lines_of(again, "sheet")] == [(before["key"], 2)]


async def test_an_interrupt_leaves_the_rest_to_a_resume(tmp_path: Path) -> None:
    """Nothing is skipped: what a job gives that was cut short is still to come."""
    go = tmp_path / "go"
    rows = {"inline": [{"n": 0, "awaits": "/"}, {"n": 1, "awaits": str(go)}]}
    jobs = {
        "a": {"rows": rows, "input": {"n": "{{ row.n }}", "awaits": "{{ row.awaits }}"}},
        "b": OF_A,
        "sheet": {"rows": {"job": "b", "collect": True}, "input": {"n": "{{ row.runs | length }}"}},
        "last": {"needs": ["sheet"]},
    }

    def watch(live: Live) -> None:
        _once(lambda: live.tally.jobs["b"].settled == 1, lambda: live.drain(0.1))

    batch = await execute(Options(pipeline(tmp_path, jobs), output_dir=tmp_path / "batches"), watch=watch)
    assert batch.verdict == "interrupted"
    assert [counts(batch, name) for name in jobs] == [
        {"runs": 2, "succeeded": 1, "pending": 1},
        {"runs": 2, "succeeded": 1, "pending": 1},
        {"runs": 1, "pending": 1},
        {"runs": 1, "pending": 1},
    ]
    assert batch.health["jobs"]["sheet"]["waits_for"] == ["b"]
    assert "  sheet  0 of 1 succeeded (1 pending), waits for b\n" in summary(batch.health, "x")
    go.touch()
    again = await gone_on_with(batch)
    assert again.verdict == "pass"
    assert [counts(again, name)["succeeded"] for name in jobs] == [2, 2, 1, 1]
    assert lines_of(again, "sheet")[0]["output"]["n"] == 2


async def test_a_changed_job_of_rows_of_a_job_is_not_gone_on_with(tmp_path: Path) -> None:
    """Which of its runs would be the same is known too late; also where changes are accepted."""
    path = pipeline(tmp_path, {"a": a(3, fails=(1,)), "b": OF_A})
    batch = await ran(path)
    pipeline(tmp_path, {"a": a(3, fails=(1,)), "b": OF_A | {"input": {"n": "{{ row.row.n }}"}}})
    for accept in (False, True):
        with pytest.raises(UsageError) as raised:
            await gone_on_with(batch, retry_failed=True, accept_changes=accept)
        assert raised.value.render() == (
            "error: job 'b' makes its runs of job 'a', and its input, its rows or the vars are other than when"
            f" batch {batch.folder.id} was started\n"
            "  help: put them back, then go on; or start a new batch with --fresh"
        )


async def test_new_data_of_the_first_job_flow_through_where_they_are_accepted(tmp_path: Path) -> None:
    """The later jobs follow from it."""
    path = pipeline(tmp_path, {"a": a(2), "b": OF_A})
    batch = await ran(path)
    pipeline(tmp_path, {"a": a(4), "b": OF_A})
    again = await gone_on_with(batch, accept_changes=True)
    assert again.verdict == "pass"
    assert counts(again, "b") == {"runs": 4, "succeeded": 4}


# Stopping


async def test_a_job_stopped_for_good_leaves_reasons_behind_it(tmp_path: Path) -> None:
    """And counts that add up."""
    first = a(8, fails=tuple(range(8)), concurrency=1, stop_when={"failed": 2})
    batch = await ran(pipeline(tmp_path, {"a": first, "b": OF_A}))
    assert batch.verdict == "stopped"
    found = counts(batch, "a")
    assert found["failed"] + found["skipped"] == 8
    assert counts(batch, "b") == {"runs": 8, "skipped": 8}
    assert set(why(batch, "b")) == {
        f"run {n} of job 'a' {'failed' if state == 'failed' else 'was skipped'}"
        for n, state in enumerate(states(batch, "a"))
    }


async def test_a_later_job_that_is_stopped_waits_for_its_rows_to_skip_them(tmp_path: Path) -> None:
    """All that was planned is told of."""
    second = {"rows": {"job": "a"}, "input": {"fails": True}, "concurrency": 1, "stop_when": {"failed": 1}}
    batch = await ran(pipeline(tmp_path, {"a": a(8), "b": second}))
    assert counts(batch, "a") == {"runs": 8, "succeeded": 8}
    found = counts(batch, "b")
    assert (found["runs"], found["failed"] + found["skipped"]) == (8, 8)
    assert found["skipped"] >= 6


async def test_a_batch_that_is_cancelled_settles_every_planned_run(tmp_path: Path) -> None:
    """Those included whose rows never came."""
    never = str(tmp_path / "never")
    first = {"rows": numbers(3), "input": {"awaits": never, "n": "{{ row.n }}"}}
    jobs = {"a": first, "b": OF_A | {"rows": {"job": "a", "repeat": 2}}, "c": {"needs": ["b"]}}
    batch = await execute(
        Options(pipeline(tmp_path, jobs), output_dir=tmp_path / "batches"),
        watch=lambda live: _soon(live.abandon),
    )
    assert batch.verdict == "stopped"
    assert counts(batch, "b") == {"runs": 6, "skipped": 6}
    assert counts(batch, "c") == {"runs": 1, "skipped": 1}
    assert counts(batch, "a").get("pending", 0) == 0


async def test_timeouts_of_a_job_begin_with_its_first_run(tmp_path: Path) -> None:
    """It would be over before what it needs has ended."""
    first = a(1, input={"n": 0, "awaits": str(tmp_path / "go")})
    path = pipeline(tmp_path, {"a": first, "b": {"needs": ["a"], "timeouts": {"job": "700ms"}}})

    def later(_: Live) -> None:
        asyncio.get_running_loop().call_later(1.5, (tmp_path / "go").touch)

    batch = await execute(Options(path, output_dir=tmp_path / "batches"), watch=later)
    assert states(batch, "b") == ["succeeded"]


async def test_a_batch_without_a_process_is_cancelled_to_its_last_run(tmp_path: Path) -> None:
    """After an interrupt, by a process of its own, with nothing left to read but the ledger."""
    never = str(tmp_path / "never")
    rows = {"inline": [{"n": 0, "awaits": "/"}, {"n": 1, "awaits": never}]}
    first = {"rows": rows, "input": {"n": "{{ row.n }}", "awaits": "{{ row.awaits }}"}}
    jobs = {"a": first, "b": OF_A, "sheet": {"rows": {"job": "b", "collect": True}}, "last": {"needs": ["sheet"]}}

    def watch(live: Live) -> None:
        _once(lambda: live.tally.jobs["b"].settled == 1, lambda: live.drain(0.1))

    batch = await execute(Options(pipeline(tmp_path, jobs), output_dir=tmp_path / "batches"), watch=watch)
    assert batch.verdict == "interrupted"
    ended = await gone_on_with(batch, cancel=True)
    assert ended.verdict == "stopped"
    assert ended.health["batch"]["pending"] == 0
    assert counts(ended, "b") == {"runs": 2, "succeeded": 1, "skipped": 1}
    assert [states(ended, name) for name in ("sheet", "last")] == [["skipped"]] * 2


async def test_what_an_endpoint_refuses_leaves_what_comes_after_it_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has decided anything about it: a resume goes on."""
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_none")
    path = pipeline(tmp_path, {"a": a(2), "b": OF_A, "c": {"needs": ["b"]}})
    told = json.loads(path.read_text())
    told["endpoints"]["a"] = {"id": "gone", "base_url": "http://127.0.0.1:9/v2"}
    told["health"] = {"wait": "0s"}
    path.write_text(json.dumps(told))
    batch = await execute(Options(path, output_dir=tmp_path / "batches"), watch=_refusing)
    assert batch.verdict == "refused"
    assert {name: counts(batch, name) for name in "abc"} == {
        "a": {"runs": 2, "pending": 2},
        "b": {"runs": 2, "pending": 2},
        "c": {"runs": 1, "pending": 1},
    }


def _refusing(live: Live) -> None:
    live.endpoints["a"].refuse_because("endpoint 'a' is refused", fix="none")


async def test_a_resume_finds_the_rows_that_it_has_not_taken_up_among_many(tmp_path: Path) -> None:
    """However many make no run, or are known: reading them all leaves the others their time."""
    go = tmp_path / "go"
    rows = {"inline": [{"n": n, "awaits": str(go) if n == 449 else "/"} for n in range(450)]}
    jobs = {
        "a": {"rows": rows, "input": {"n": "{{ row.n }}", "awaits": "{{ row.awaits }}"}},
        "b": OF_A | {"rows": {"job": "a", "where": "row.output.n in [3, 449]"}},
        "sheet": {"rows": {"job": "a", "collect": True}, "input": {"n": "{{ row.runs | length }}"}},
    }

    def watch(live: Live) -> None:
        _once(lambda: live.tally.jobs["a"].settled == 449, lambda: live.drain(0.3))

    batch = await execute(Options(pipeline(tmp_path, jobs), output_dir=tmp_path / "batches"), watch=watch)
    assert counts(batch, "b")["succeeded"] == 1
    go.touch()
    again = await gone_on_with(batch)
    assert again.verdict == "pass"
    assert [line["index"] for line in lines_of(again, "b")] == [3, 449]
    assert lines_of(again, "sheet")[0]["output"]["n"] == 450


async def test_a_job_of_many_rows_that_may_not_begin_has_a_line_for_each(tmp_path: Path) -> None:
    """In the order of the plan, and without a call."""
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1500)))
    second = {"needs": ["a"], "rows": {"file": "rows.jsonl"}, "input": {"n": "{{ row.n }}"}}
    batch = await ran(pipeline(tmp_path, {"a": a(1, fails=(0,)), "b": second}))
    assert counts(batch, "b") == {"runs": 1500, "skipped": 1500}
    assert [line["row"]["n"] for line in lines_of(batch, "b")] == list(range(1500))


# What is said of it


async def test_show_and_plan_say_what_comes_from_where(tmp_path: Path) -> None:
    """A skipped run says why; the plan says that a count is a bound."""
    path = pipeline(tmp_path, {"a": a(2, fails=(1,)), "b": OF_A | {"rows": {"job": "a", "repeat": 2}}})
    batch = await ran(path)
    out = io.StringIO()
    assert show(str(batch.folder.path), "b:3", output_dir=None, out=out) == 0
    assert out.getvalue().startswith("run 3 of job b: skipped\n")
    assert "\n  error      run 1 of job 'a' failed\n" in out.getvalue()
    said = summary(batch.health, "x")
    assert "  b  2 of 4 succeeded (2 skipped)" in said
    assert "     2 x run 1 of job 'a' failed\n" in said
    out = io.StringIO()
    assert plan(path, out=out) == 0
    assert (
        "\nb: up to 4 runs, rows from job 'a', on local endpoint 'b', mode async\n"
        "  waits for: a\n"
        "  first body: made of what job 'a' gives, so nobody knows it yet\n"
    ) in out.getvalue()
    out = io.StringIO()
    assert plan(path, as_json=True, out=out) == 0
    told = json.loads(out.getvalue())["jobs"]["b"]
    assert (told["runs"], told["first"], told["keys"]) == (4, None, [])


def test_progress_says_what_is_waited_for() -> None:
    """A job that does nothing for an hour needs a reason."""
    tally = Tally({"a": 2, "b": 2})
    tally.jobs["b"].waits_for = ("a",)
    assert progress.states(tally) == "0 of 4 runs settled; b waits for a"


def _soon(call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(0.5, call)


def _once(true: Callable[[], bool], then: Callable[[], object]) -> None:
    """Call *then* as soon as *true* says so, while the batch runs."""
    if true():
        then()
    else:
        asyncio.get_running_loop().call_later(0.01, _once, true, then)
