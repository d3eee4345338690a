"""Metrics of a batch for node_exporter: lines that Prometheus takes, names that last."""

import re
from pathlib import Path

from made_batches import Shape, made
from old_batches import a_batch

from runner import prometheus, report, reports
from runner.batch import Folder
from runner.ledger import Ledger
from runner.states import Verdict
from runner.values import JsonObject, dump

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{{(?P<labels>{LABEL}(?:,{LABEL})*)\}} (?P<value>\S+)")


def health(folder: Folder) -> JsonObject:
    """The object of health.json."""
    with Ledger.read_only(folder.ledger) as ledger:
        return report.fold(ledger, report.told(ledger, folder))


def read(document: bytes) -> dict[tuple[str, str], float]:
    """Each sample of *document* by name and labels, once the file is seen to be in Prometheus's text format."""
    text = document.decode()
    assert text.endswith("\n")
    found: dict[tuple[str, str], float] = {}
    families: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            families.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {families[-1]} gauge"
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample["name"] == families[-1]
            assert (sample["name"], sample["labels"]) not in found
            found[sample["name"], sample["labels"]] = float(sample["value"])
    assert len(families) == len(set(families))
    return found


def test_the_numbers_are_those_of_the_health_report(tmp_path: Path) -> None:
    """In seconds and USD, as names say."""
    folder = made(tmp_path, Shape(runs=100, pictures=0))
    told = health(folder)
    found = read(prometheus.document(told, last_success_at=1_795_000_000.5))
    photos = told["jobs"]["photos"]
    assert found["runner_verdict", 'batch="horses",verdict="fail"'] == 1
    assert sum(value for (name, _), value in found.items() if name == "runner_verdict") == 1
    for state in ("succeeded", "failed", "cancelled", "skipped", "pending"):
        assert found["runner_runs", f'batch="horses",job_name="photos",state="{state}"'] == photos[state]
    p95 = found["runner_execution_time_seconds", 'batch="horses",job_name="photos",statistic="p95"']
    assert p95 == photos["execution_time_ms"]["p95"] / 1000
    assert found["runner_execution_cost_usd", 'batch="horses",job_name="photos"'] == photos["cost_usd"]
    assert found["runner_started_timestamp_seconds", 'batch="horses"'] == 1_795_400_592
    assert found["runner_last_success_timestamp_seconds", 'batch="horses"'] == 1_795_000_000.5
    assert found["runner_threshold_holds", 'batch="horses",threshold="failed < 1%"'] == 0


def test_names_stay_as_they_are() -> None:
    """Dashboards and alerts hang on them; a new one may come, none may go."""
    assert list(prometheus.METRICS) == [
        "runner_verdict",
        "runner_started_timestamp_seconds",
        "runner_ended_timestamp_seconds",
        "runner_last_success_timestamp_seconds",
        "runner_runs",
        "runner_run_outcomes",
        "runner_retried_runs",
        "runner_reused_runs",
        "runner_execution_time_seconds",
        "runner_delay_time_seconds",
        "runner_execution_cost_usd",
        "runner_cost_usd",
        "runner_threshold_holds",
    ]


def test_hostile_text_stays_within_its_label(tmp_path: Path) -> None:
    """What comes from a file is never a line of its own."""
    told = health(made(tmp_path, Shape(runs=10, pictures=0)))
    hostile = 'a\\"} 1\nrunner_verdict{x="\\n'
    told["batch"]["name"] = hostile
    found = read(prometheus.document(told, last_success_at=None))
    label = 'batch="a\\\\\\"} 1\\nrunner_verdict{x=\\"\\\\n"'
    assert {labels[: len(label)] for _, labels in found} == {label}


def test_what_nobody_knows_has_no_line(tmp_path: Path) -> None:
    """A zero would be a lie that an alert believes."""
    told = health(made(tmp_path, Shape(runs=10, pictures=0, verdict=None)))
    told["jobs"]["photos"]["cost_usd"] = told["jobs"]["captions"]["cost_usd"] = None
    names = {name for name, _ in read(prometheus.document(told, last_success_at=None))}
    assert not names & {
        "runner_execution_cost_usd",
        "runner_ended_timestamp_seconds",
        "runner_last_success_timestamp_seconds",
    }


def test_a_failed_night_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    """The alert that people want is "no success for two days"; batches that were killed have nothing to say."""
    ids = [f"2027011{day}T080000Z-7f3a" for day in range(5)]
    verdicts = [Verdict.PASS, Verdict.PASS, Verdict.FAIL, None, Verdict.FAIL]
    folders = [a_batch(tmp_path, id_=id_, verdict=verdict) for id_, verdict in zip(ids, verdicts, strict=True)]
    for number, (folder, verdict) in enumerate(zip(folders, verdicts, strict=True)):
        if verdict is not None:
            ended_at = f"2027-01-1{number}T09:00:00.000Z"
            folder.health.write_bytes(dump({"verdict": verdict, "batch": {"ended_at": ended_at}}))
    ended = {"ended_at": "2027-01-14T09:00:00.000Z"}
    second = 1_800_000_000.0 - 4 * 86_400 + 3600
    assert reports.last_success_at(folders[4], {"verdict": Verdict.FAIL, "batch": ended}) == second
    assert reports.last_success_at(folders[4], {"verdict": Verdict.PASS, "batch": ended}) == second + 3 * 86_400
    assert reports.last_success_at(folders[0], {"verdict": Verdict.FAIL, "batch": ended}) is None
