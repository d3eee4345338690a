"""A batch that goes on with the same data does not read them again to know its plan."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_files import opened

from runner import batch
from runner.drift import is_same, same_plan
from runner.errors import UsageError
from runner.inputs import kinds
from runner.inputs.base import Report, Tape
from runner.manifest import manifest
from runner.options import Options
from runner.plan import Counter, Plan, make_plan
from runner.values import JsonObject

ROWS = {"file": "rows*.jsonl", "where": "row.n != 2", "matrix": {"x": [1, 2]}}
JOB = {"rows": ROWS, "input": {"v": "{{ [row.n, matrix.x] }}"}}


def rows(folder: Path, *numbers: int, name: str = "rows.jsonl") -> None:
    """Let a data file have these rows."""
    (folder / name).write_text("".join(f'{{"n": {number}}}\n' for number in numbers))


@pytest.fixture
def told(tmp_path: Path) -> JsonObject:
    """The manifest of a batch of six runs, as it was written."""
    rows(tmp_path, 1, 2, 3, 4)
    return told_of(tmp_path, JOB)


def told_of(folder: Path, job: dict[str, Any], **options: Any) -> JsonObject:
    """The manifest of a batch that starts now."""
    job_file, chosen = opened(folder, job), Options(folder / "job.yaml", **options)
    plan = make_plan(job_file, limit=chosen.limit)
    (folder / "root").mkdir(exist_ok=True)
    made = manifest(batch.create(folder / "root", now=0.0), chosen, job_file, plan, started_at=0.0)
    found: JsonObject = json.loads(json.dumps(made))
    return found


def again(folder: Path, told: JsonObject, job: dict[str, Any] = JOB, **options: Any) -> Plan | None:
    """What is known of the plan without reading the data."""
    chosen = Options(folder / "job.yaml", **options).chosen
    return same_plan(told, opened(folder, job), chosen, only=(), stdin=None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number for each row that was parsed."""
    found: list[int] = []
    read = kinds.KINDS["jsonl"]

    def counted(tape: Tape, report: Report) -> Iterator[JsonObject]:
        for row in read(tape, report):
            found.append(row["n"])
            yield row

    monkeypatch.setitem(kinds.KINDS, "jsonl", counted)
    return found


def test_the_same_plan_is_known_by_the_digest_of_its_data(tmp_path: Path, told: JsonObject, drawn: list[int]) -> None:
    """It has the same runs, and only its first row was parsed."""
    found = again(tmp_path, told)
    assert found is not None
    assert drawn == [1]
    made = make_plan(opened(tmp_path, JOB))
    assert (found.total, found.inputs) == (made.total, made.inputs)
    assert [*found.jobs["only"].expand(Counter())] == [*made.jobs["only"].expand(Counter())]


def test_a_limit_is_in_what_the_manifest_counted(tmp_path: Path, told: JsonObject) -> None:
    """And another one than the batch was started with is looked at as before."""
    limited = told_of(tmp_path, JOB, limit=3)
    found = again(tmp_path, limited, limit=3)
    assert found is not None
    assert len([*found.jobs["only"].expand(Counter())]) == found.total == 3
    assert again(tmp_path, limited) is None


@pytest.mark.parametrize(
    "job",
    [
        JOB | {"rows": ROWS | {"where": "row.n != 3"}},
        JOB | {"rows": ROWS | {"matrix": {"x": [1, 2, 3]}}},
        JOB | {"rows": ROWS | {"shuffle": 1}},
        JOB | {"input": {"v": "{{ [row.n, matrix.x, 1] }}"}},
        JOB | {"rows": ROWS | {"file": "rows.jsonl"}, "input": {"v": "{{ row.m }}"}},
    ],
)
def test_another_job_is_planned_anew(tmp_path: Path, told: JsonObject, job: dict[str, Any]) -> None:
    """Whatever makes other runs of the same rows."""
    assert again(tmp_path, told, job) is None


def test_other_data_are_read(tmp_path: Path, told: JsonObject) -> None:
    """A changed file, one more that the glob matches, one that is gone."""
    rows(tmp_path, 1, 2, 3, 5)
    assert again(tmp_path, told) is None
    rows(tmp_path, 1, 2, 3, 4)
    assert again(tmp_path, told) is not None
    rows(tmp_path, 7, name="rows2.jsonl")
    assert again(tmp_path, told) is None
    assert not is_same(told, make_plan(opened(tmp_path, JOB)), {})
    (tmp_path / "rows.jsonl").unlink()
    assert again(tmp_path, told) is None


def test_a_batch_of_another_version_or_with_changes_is_planned_anew(tmp_path: Path, told: JsonObject) -> None:
    """What a row is may differ; and a batch that took changes in has runs that are not in its plan."""
    assert again(tmp_path, told | {"versions": told["versions"] | {"runpod-runner": "0.0.1"}}) is None
    assert again(tmp_path, told | {"changes": [told]}) is None


def test_a_shuffled_plan_is_made_anew(tmp_path: Path) -> None:
    """Its order is kept nowhere."""
    rows(tmp_path, 1, 2, 3, 4)
    shuffled = JOB | {"rows": ROWS | {"shuffle": 1}}
    assert again(tmp_path, told_of(tmp_path, shuffled), shuffled) is None


def test_data_that_change_afterwards_are_said(tmp_path: Path, told: JsonObject) -> None:
    """The plan has digested them: nothing else is run in their place."""
    found = again(tmp_path, told)
    assert found is not None
    runs = found.jobs["only"].expand(Counter())
    rows(tmp_path, 1, 2, 3, 4, 5)
    with pytest.raises(UsageError, match="changed while it was being read"):
        list(runs)
