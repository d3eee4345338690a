"""A job in mode batch, killed at one step after the other, beside an endpoint that outlives it: all is paid once."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_days import HANDLER
from terminal import ROOT, Server, finish, lines, runner, serving, start

from torture.killed import DRAFT

RUNS = 16
NTH = {"counts read": 3, "page read": 2, "page not asked for": 2}
"""At which time of a step the kill comes, where it is not the first."""

SEEDED = 5
"""So many of the steps are taken by a test of the suite; ``make torture-batch`` takes all, with many more runs."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """The job file, and its endpoint, which outlives every runner."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "handler.py").write_text(HANDLER)
    job = {
        "endpoint": "local",
        "mode": "batch",
        "concurrency": 8,
        "rows": {"matrix": {"n": list(range(RUNS))}},
        "input": {"of": "{{ vars.of }}", "n": "{{ matrix.n }}"},
        "poll": {"min": "50ms", "max": "100ms"},
    }
    told = {"version": 1, "name": "b", "vars": {"of": ""}, "endpoints": {"local": {"handler": "handler.py:echo"}}}
    (folder / "b.yaml").write_text(json.dumps(told | {"jobs": {"a": job}}))
    with serving(folder / "b.yaml") as server:
        yield folder / "b.yaml", server


def seeded() -> list[str]:
    """The steps of today: which, is drawn by a seed."""
    return sorted(random.Random(7).sample(sorted(DRAFT), SEEDED))


@pytest.mark.parametrize("step", seeded(), ids=lambda step: step.replace(" ", "-"))
def test_a_kill_at_any_step_of_a_draft_pays_for_nothing_twice(
    step: str, served: tuple[Path, Server], tmp_path: Path
) -> None:
    """SIGKILL at a named step, then --resume: each run settles once, and the endpoint ran each once."""
    file, server = served
    before = sum(server.submits().values())
    words = ["run", str(file), "--var", f"of={step}", "--output-dir", str(tmp_path), "--local", server.url, "--quiet"]
    nth = str(NTH.get(step, 1))
    killed = finish(start(step, nth, *words, cwd=ROOT, env=server.env, module="torture.killed"))
    assert killed.code == -9, killed.err
    resumed = runner(*words, "--resume", cwd=tmp_path, env=server.env)
    assert resumed.code == 0, resumed.err
    told = lines(tmp_path / "b/latest/results.jsonl")
    assert sorted(line["output"]["n"] for line in told) == list(range(RUNS))
    assert sum(server.submits().values()) - before == RUNS
    assert set(server.submits().values()) == {1}
