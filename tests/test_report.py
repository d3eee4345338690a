"""The health report, held against the lines of results.jsonl."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from happened import a_run, a_settled, accepted, an_ending, ended, error, intended, new_store, opened_store, skipped

from runner import batch, results
from runner.batch import Folder
from runner.clock import iso
from runner.durable import write_whole
from runner.errors import RecordError
from runner.events import Event, Sampled
from runner.judge import all_hold
from runner.ledger import Ledger
from runner.report import Told, fold, judged, told, write
from runner.states import SETTLED, Outcome, State
from runner.store import Store
from runner.thresholds import COUNTS
from runner.thresholds import parse as parse_threshold
from runner.values import JsonObject, dump, parse

FACTS = Told(
    batch="20261123T022312Z-7f3a",
    name="horses",
    planned={"photos": 60, "captions": 20, "empty": 0},
    endpoint_of={"photos": "sdxl", "captions": "llm", "empty": "sdxl"},
    cost_per_second={"sdxl": 0.001, "llm": None},
    started_at=0.0,
    ended_at=9.5,
    verdict="fail",
)


def mixed(job: str, count: int, chance: random.Random) -> Iterable[list[Event]]:
    """Lives of *count* runs of *job*, one in ten still open, in groups as a recorder would write them."""
    for number in range(count):
        run = a_run(f"{job}-{number}", job, index=number)
        last = 0
        for attempt in range(1, chance.randint(1, 3)):
            failed = an_ending(Outcome.CRASHED, execution_time_ms=chance.randint(0, 500))
            yield [intended(run, attempt), accepted(run, attempt), ended(run, attempt, failed)]
            last = attempt
        kind = chance.random()
        if kind < 0.1:
            yield [intended(run, last + 1)]
        elif kind < 0.2:
            yield [skipped(run) if not last else a_settled(run, last, an_ending(Outcome.REJECTED))]
        else:
            outcome = chance.choice([Outcome.COMPLETED, Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED])
            told: JsonObject = {
                "delay_time_ms": chance.randint(0, 99),
                "execution_time_ms": chance.choice([None, 7, 300, 5000]),
            }
            if outcome is not Outcome.COMPLETED:
                told["error"] = error(f"message {chance.randint(0, 3)}")
            ending = an_ending(outcome, **told)
            yield [intended(run, last + 1), accepted(run, last + 1), a_settled(run, last + 1, ending)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A mixed batch over two resumes."""
    chance = random.Random(7)
    store = new_store(tmp_path)
    for job, count in (("photos", 50), ("captions", 20)):
        for number, group in enumerate(mixed(job, count, chance)):
            store.write(group)
            if number % 40 == 39:
                store.close()
                store = opened_store(tmp_path)
                store.repair()
    return store


def rank(values: Sequence[int], percent: int) -> int | None:
    return min((v for v in values if 100 * sum(o <= v for o in values) >= percent * len(values)), default=None)


def by_hand(lines: list[JsonObject], planned: int) -> JsonObject:
    """What the lines of one job say, counted in the plainest way."""
    states = Counter(one["state"] for one in lines)
    messages = Counter(one["error"]["message"] for one in lines if one["error"])

    def times(name: str) -> JsonObject:
        found = [one[name] for one in lines if one[name] is not None]
        return {"p50": rank(found, 50), "p95": rank(found, 95), "p99": rank(found, 99), "max": max(found, default=None)}

    return {
        "runs": planned,
        **{state.value: states[state] for state in State if state in SETTLED},
        "pending": planned - len(lines),
        "reused": sum("reused_from" in one for one in lines),
        "outcomes": dict(sorted(Counter(one["outcome"] for one in lines if one["outcome"]).items())),
        "delay_time_ms": times("delay_time_ms"),
        "execution_time_ms": times("execution_time_ms"),
        "errors": [
            {"message": message, "count": count}
            for message, count in sorted(messages.items(), key=lambda one: (-one[1], one[0]))
        ],
    }


def test_the_report_says_what_the_lines_say(store: Store, tmp_path: Path) -> None:
    """Over all resumes: statistics of the last process alone would be of half a batch."""
    report = fold(store.ledger, FACTS)
    lines = list(results.read(tmp_path / "results.jsonl"))
    assert len(lines) > 50
    for job, planned in FACTS.planned.items():
        found = dict(report["jobs"][job])
        for key in ("retried", "cost_usd", "cost_basis", "stopped"):
            found.pop(key)
        assert found == by_hand([one for one in lines if one["job"] == job], planned)
    store.close()


def test_the_counts_add_up_to_the_plan(store: Store) -> None:
    """Always: a run that is in no count is a run that is lost."""
    report = fold(store.ledger, FACTS)
    words = [state.value for state in State if state in SETTLED]
    for job in (*report["jobs"].values(), report["batch"]):
        assert sum(job[word] for word in words) + job["pending"] == job["runs"]
    for job in report["jobs"].values():
        assert sum(job["outcomes"].values()) == job["runs"] - job["skipped"] - job["pending"]
    assert report["batch"]["runs"] == sum(FACTS.planned.values())
    store.close()


def test_every_attempt_is_paid_for(store: Store, tmp_path: Path) -> None:
    """Also those that were tried again, and those of runs that are still open."""
    db = store.ledger._db
    spent_ms = sum(row[0] or 0 for row in db.rows("SELECT execution_time_ms FROM attempts WHERE job = 'photos'"))
    again = sum(row[0] > 1 for row in db.rows("SELECT attempt FROM attempts WHERE job = 'photos'"))
    photos = fold(store.ledger, FACTS)["jobs"]["photos"]
    assert (photos["retried"], photos["cost_usd"]) == (again, round(spent_ms / 1000 * 0.001, 6))
    assert fold(store.ledger, FACTS)["jobs"]["captions"]["cost_usd"] is None
    store.close()


def test_the_report_has_the_keys_of_the_contract(store: Store) -> None:
    """Dashboards read them by name."""
    report = fold(store.ledger, FACTS)
    assert list(report) == ["verdict", "batch", "endpoints", "jobs", "thresholds"]
    assert report["batch"] == {
        "id": "20261123T022312Z-7f3a",
        "name": "horses",
        "profile": None,
        "started_at": "1970-01-01T00:00:00.000Z",
        "ended_at": "1970-01-01T00:00:09.500Z",
        **{word: report["batch"][word] for word in ("runs", "succeeded", "failed", "cancelled", "skipped", "pending")},
        "retried": report["batch"]["retried"],
        "reused": 0,
        "cost_usd": None,
        "cost_basis": None,
    }
    keys = {
        *("runs", "succeeded", "failed", "cancelled", "skipped", "pending", "outcomes", "retried", "reused"),
        *("delay_time_ms", "execution_time_ms", "errors", "cost_usd", "cost_basis", "stopped"),
    }
    assert all(set(job) == keys for job in report["jobs"].values())
    assert set(report["jobs"]["empty"]["execution_time_ms"]) == {"p50", "p95", "p99", "max"}
    store.close()


def thresholds(**texts: str) -> Told:
    """`FACTS`, with thresholds, and a rate for every endpoint."""
    bounds = tuple(parse_threshold(metric, text) for metric, text in texts.items())
    return replace(FACTS, thresholds=bounds, cost_per_second={"sdxl": 0.001, "llm": 0.0002})


def test_thresholds_count_runs_of_all_jobs_together(store: Store, tmp_path: Path) -> None:
    """They are the batch's verdict, not a job's; what is not settled yet is in no count but the plan's."""
    lines = list(results.read(tmp_path / "results.jsonl"))
    expected = Counter(one["state"] for one in lines)
    expected["answer_lost"] = sum(one["outcome"] == "answer_lost" for one in lines)
    tried = Counter(row[0] for row in store.ledger._db.rows("SELECT key FROM attempts"))
    expected["retried"] = sum(times > 1 for times in tried.values())
    assert expected["retried"] < sum(job["retried"] for job in fold(store.ledger, FACTS)["jobs"].values())
    found = fold(store.ledger, thresholds(**dict.fromkeys(COUNTS, "<= 10")))["thresholds"]
    assert found == [
        {"name": metric, "bound": "<= 10", "value": expected[metric], "pass": expected[metric] <= 10}
        for metric in COUNTS
    ]
    (share,) = fold(store.ledger, thresholds(failed="< 99%"))["thresholds"]
    assert share == {"name": "failed", "bound": "< 99%", "value": expected["failed"] / 80, "pass": True}
    store.close()


@pytest.mark.parametrize("statistic", ["p50", "p90", "p95", "p99", "max", "mean"])
def test_thresholds_on_times_are_over_the_runs_of_all_jobs(store: Store, tmp_path: Path, statistic: str) -> None:
    """Percentiles of jobs can't be put together afterwards, so they are taken of all runs."""
    lines = list(results.read(tmp_path / "results.jsonl"))
    found = fold(store.ledger, thresholds(execution_time=f"{statistic} < 1s", delay_time=f"{statistic} < 1s"))
    for one in found["thresholds"]:
        times = [line[f"{one['name']}_ms"] for line in lines if line[f"{one['name']}_ms"] is not None]
        percent = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}.get(statistic)
        expected = round(sum(times) / len(times), 3) if percent is None else rank(times, percent)
        assert (one["bound"], one["value"]) == (f"{statistic} < 1s", expected)
        assert one["pass"] is (expected is not None and expected < 1000)
    store.close()


def test_a_threshold_on_the_cost_is_of_what_the_jobs_cost(store: Store) -> None:
    """Whoever adds up the jobs' figures comes to the same sum; one that is not known makes it unknown."""
    facts = thresholds(cost="< 5 USD")
    report = fold(store.ledger, facts)
    costs = [job["cost_usd"] for job in report["jobs"].values()]
    assert report["thresholds"] == [{"name": "cost", "bound": "< 5 USD", "value": round(sum(costs), 6), "pass": True}]
    assert min(costs[:2]) > 0
    unknown = fold(store.ledger, replace(facts, cost_per_second=FACTS.cost_per_second))["thresholds"]
    assert unknown == [{"name": "cost", "bound": "< 5 USD", "value": None, "pass": False}]
    store.close()


def test_what_decides_the_verdict_is_what_the_report_shows(store: Store) -> None:
    """The batch's end asks for it before the report is written."""
    facts = thresholds(failed="< 99%", cost="< 0.001 USD", execution_time="p90 < 1h")
    found = judged(store.ledger, facts)
    assert [one.as_json() for one in found] == fold(store.ledger, facts)["thresholds"]
    assert [one.holds for one in found] == [True, False, True]
    assert all_hold(found) is False
    assert all_hold(judged(store.ledger, FACTS)) is None
    store.close()


def test_thresholds_of_a_batch_in_which_nothing_ran(tmp_path: Path) -> None:
    """Without a time there is nothing to judge: it fails, unless nothing was planned."""
    store = new_store(tmp_path)
    facts = replace(thresholds(execution_time="p95 < 1s", delay_time="mean < 1s", failed="< 1%"))
    assert [(one.value, one.holds) for one in judged(store.ledger, facts)] == [(None, False), (None, False), (0, True)]
    empty = replace(facts, planned={"photos": 0})
    assert [(one.value, one.holds) for one in judged(store.ledger, empty)] == [(None, True)] * 3
    store.close()


def test_an_error_group_names_the_exception(tmp_path: Path) -> None:
    """A KeyError says nothing but the key: 'nope' alone would send nobody to the right line."""
    errors = [("KeyError", "'nope'"), ("KeyError", "'nope'"), ("ValueError", "ValueError: no"), ("MyError", "")]
    store = new_store(tmp_path)
    for number, (kind, message) in enumerate(errors):
        failed = an_ending(Outcome.FAILED, error=error(message) | {"type": kind})
        store.write([a_settled(a_run(f"k{number}", index=number), 0, failed)])
    assert fold(store.ledger, FACTS)["jobs"]["photos"]["errors"] == [
        {"message": "KeyError: 'nope'", "count": 2},
        {"message": "MyError", "count": 1},
        {"message": "ValueError: no", "count": 1},
    ]
    store.close()


def test_a_job_that_was_stopped_says_why(tmp_path: Path) -> None:
    """Who sees skipped runs in the morning asks that first."""
    store = new_store(tmp_path)
    why = "stop_when: 12 of 100 runs failed (limit 10%)"
    jobs = fold(store.ledger, replace(FACTS, stopped={"photos": why}))["jobs"]
    assert {name: job["stopped"] for name, job in jobs.items()} == {"photos": why, "captions": None, "empty": None}
    store.close()


def test_an_endpoint_shows_its_last_counters_and_its_newest_word(tmp_path: Path) -> None:
    """A key that was revoked an hour ago must not look like work going well."""
    store = new_store(tmp_path)
    good = Sampled("sdxl", 1.0, {"inQueue": 0}, {"running": 2})
    store.write([Sampled("sdxl", 0.0, {}, {}, "reset"), good, Sampled("old", 1.0, {}, {"idle": 1})])
    endpoints = fold(store.ledger, FACTS)["endpoints"]
    idle = "idle: nothing waits and nothing runs"
    evidence = {name: one.pop("evidence") for name, one in endpoints.items()}
    assert {name: one.get("condition") for name, one in evidence.items()} == {
        "sdxl": "working",
        "llm": None,
        "old": "idle",
    }
    assert endpoints == {
        "sdxl": {
            "samples": 2,
            "diagnosis": "working: 2 workers busy, nothing waits",
            "jobs": {"inQueue": 0},
            "workers": {"running": 2},
        },
        "llm": {"samples": 0, "diagnosis": "not looked at", "jobs": {}, "workers": {}},
        "old": {"samples": 1, "diagnosis": idle, "jobs": {}, "workers": {"idle": 1}},
    }
    store.write([Sampled("sdxl", 2.0, {}, {}, "HTTP 401")])
    assert fold(store.ledger, FACTS)["endpoints"]["sdxl"] == {
        "samples": 3,
        "diagnosis": "can't be told: HTTP 401",
        "evidence": {
            "condition": "can't be told",
            "since": iso(2.0),
            "until": iso(2.0),
            "looks": 1,
            "most_waiting": 0,
            "lately": {},
            "conditions": {
                "can't be told": {"looks": 2, "since": iso(0.0), "until": iso(2.0), "most_waiting": 0},
                "working": {"looks": 1, "since": iso(1.0), "until": iso(1.0), "most_waiting": 0},
            },
        },
        "jobs": {"inQueue": 0},
        "workers": {"running": 2},
    }
    store.close()


def test_what_an_endpoint_was_is_told_when_the_batch_is_over(tmp_path: Path) -> None:
    """In the morning it is idle; what matters is that it had no GPU half the night."""
    store = new_store(tmp_path)
    for at in (0.0, 15.0, 30.0):
        store.write([Sampled("sdxl", at, {"inQueue": 9}, {"throttled": 2})])
    store.write([Sampled("sdxl", 45.0, {"inQueue": 0}, {"idle": 2})])
    said = [
        fold(store.ledger, replace(FACTS, ended_at=ended_at))["endpoints"]["sdxl"]["diagnosis"]
        for ended_at in (None, 60.0)
    ]
    assert said == [
        "idle: nothing waits and nothing runs",
        "was throttled: 2 of 2 workers without a free GPU, 9 jobs waiting, in 3 of 4 looks, from 00:00:00 to 00:00:30"
        " UTC; allow more GPU types or data centers",
    ]
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A batch that has just begun."""
    folder = batch.create(tmp_path, now=0.0)
    spec = {"jobs": {"photos": {"endpoint": "sdxl"}}, "endpoints": {"sdxl": {"cost_per_second": 0.5}, "x": {}}}
    write_whole(folder.manifest, dump({"name": "horses", "spec": spec, "plan": {"photos": 3}}))
    with Ledger.create(folder.ledger) as ledger:
        ledger.note(started_at=5.0, plan={"photos": 3})
    return folder


def test_what_is_told_comes_from_the_manifest_and_the_notes(folder: Folder) -> None:
    """The job file may be gone or changed by now."""
    with Ledger.open(folder.ledger) as ledger:
        facts = told(ledger, folder)
        assert facts == Told(
            folder.id, "horses", {"photos": 3}, {"photos": "sdxl"}, {"sdxl": 0.5, "x": None}, 5.0, None, "running"
        )
        assert told(ledger, folder, verdict="unfinished").verdict == "unfinished"
        ledger.note(verdict="pass", ended_at=8.0)
        after = told(ledger, folder, verdict="unfinished")
        assert (after.verdict, after.ended_at) == ("pass", 8.0)


def test_thresholds_and_the_reasons_for_a_stop_are_told_too(folder: Folder) -> None:
    """`runner status` judges an ended batch by what it was started with."""
    spec = folder.read_manifest()["spec"] | {"thresholds": {"failed": "< 1%", "execution_time": "p95 < 30s"}}
    write_whole(folder.manifest, dump(folder.read_manifest() | {"spec": spec}))
    with Ledger.open(folder.ledger) as ledger:
        facts = told(ledger, folder)
        assert facts.thresholds == (parse_threshold("failed", "< 1%"), parse_threshold("execution_time", "p95 < 30s"))
        assert facts.stopped == {}
        ledger.note(stopped={"photos": "cancelled by 'runner cancel'"})
        assert told(ledger, folder).stopped == {"photos": "cancelled by 'runner cancel'"}


def test_the_report_is_written_whole(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard reads it at any moment; when the disk is full it keeps the one before."""
    write(folder, {"verdict": "pass"})
    assert parse(folder.health.read_bytes()) == {"verdict": "pass"}
    assert folder.health.read_bytes().endswith(b"}\n")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RecordError):
        write(folder, {"verdict": "fail"})
    assert parse(folder.health.read_bytes()) == {"verdict": "pass"}


def test_a_report_of_a_running_batch_speaks_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What settles while it is being made comes into the next one, in all figures or in none."""
    store = new_store(tmp_path)
    store.write([a_settled(a_run("k1"), 0, an_ending(execution_time_ms=7))])
    real = Ledger.counts

    def counts(reader: Ledger) -> object:
        found = real(reader)
        store.write([a_settled(a_run("k2"), 0, an_ending(Outcome.FAILED, execution_time_ms=9))])
        return found

    with Ledger.read_only(tmp_path / "ledger.sqlite") as reader:
        monkeypatch.setattr(Ledger, "counts", counts)
        photos = fold(reader, FACTS)["jobs"]["photos"]
    assert (photos["succeeded"], photos["failed"], photos["errors"]) == (1, 0, [])
    assert photos["execution_time_ms"]["max"] == 7
    store.close()
