"""What a batch will cost, by what earlier ones took."""

import json
from pathlib import Path

import pytest
from terminal import runner, write

from runner.money import Past, past
from runner.values import JsonObject, dump, parse

HANDLER = "def handler(job):\n    return 1\n"
JOB_FILE = """\
version: 1
name: horses
endpoints:
  local: {handler: "handler.py:handler", cost_per_second: 0.001}
  other: {handler: "other.py:handler", cost_per_second: 0.001}
jobs:
  photos: {endpoint: local, rows: {repeat: 4}, input: {n: 1}}
"""
HERE: JsonObject = {"handler": "handler.py:handler", "cost_per_second": 0.001}


@pytest.fixture
def latest(tmp_path: Path) -> Path:
    """A batch of four runs, of which it is said that they took from 1.2 s to 4 s."""
    write(tmp_path, {"handler.py": HANDLER, "other.py": HANDLER, "job.yaml": JOB_FILE})
    assert runner("run", "job.yaml", "--quiet", cwd=tmp_path).code == 0
    folder = (tmp_path / "batches/horses/latest").resolve()
    health = parse((folder / "health.json").read_bytes())
    health["jobs"]["photos"]["execution_time_ms"] |= {"p50": 1200, "p95": 4000}
    (folder / "health.json").write_bytes(dump(health))
    return folder


def test_the_plan_says_what_runs_took_before_and_what_they_cost_at_that(latest: Path, tmp_path: Path) -> None:
    """And of which batch, and how many runs, that is known."""
    ran = runner("plan", "job.yaml", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert (
        f"  execution before: p50 1.2s, p95 4.0s, of 4 runs in batch {latest.name};"
        " about 0.0048 USD if each takes p50, 0.016 USD at p95\n"
    ) in ran.out
    found = json.loads(runner("plan", "job.yaml", "--format", "json", cwd=tmp_path).out)["jobs"]["photos"]["past"]
    assert found == {
        "batch": latest.name,
        "runs": 4,
        "p50_ms": 1200.0,
        "p95_ms": 4000.0,
        "cost_p50_usd": 0.0048,
        "cost_p95_usd": 0.016,
    }


def test_another_endpoint_tells_nothing(latest: Path, tmp_path: Path) -> None:
    """What a handler took on this machine says nothing of a GPU."""
    write(tmp_path, {"job.yaml": JOB_FILE.replace("endpoint: local", "endpoint: other")})
    assert "execution before" not in runner("plan", "job.yaml", cwd=tmp_path).out
    assert past(latest.parent, "photos", HERE) == Past(latest.name, 4, 1200.0, 4000.0)
    assert past(latest.parent, "photos", {"id": "abc", "base_url": "https://api.runpod.ai/v2"}) is None


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"jobs": {"photos": {"execution_time_ms": {"p50": null}}}}'])
def test_a_batch_that_is_cut_short_or_damaged_tells_nothing(latest: Path, tmp_path: Path, damage: bytes) -> None:
    """And is no reason for the plan to fail."""
    (latest / "health.json").write_bytes(damage)
    ran = runner("plan", "job.yaml", cwd=tmp_path)
    assert (ran.code, "execution before" in ran.out) == (0, False)
    assert past(tmp_path / "nowhere", "photos", HERE) is None
