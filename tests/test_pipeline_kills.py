"""The pipeline of `jobs/`, killed at one step after the other: what it comes to has the same bytes in the end."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pipelines import numbers, pipeline
from terminal import ROOT, Server, finish, lines, runner, serving, start

FILE = ROOT / "jobs/pipeline.yaml"
OF_THE_DAY = (
    *("job_id", "worker_id", "attempts", "delay_time_ms", "execution_time_ms", "submitted_at", "settled_at"),
    "reused_from",
)
"""What a line says of when and where it was made."""

KILLS = [
    ("answer to /run here", 2),
    ("row committed", 1),
    ("intent committed", 2),
    ("artifact named", 4),
    ("line half written", 2),
    ("line synced, row not committed", 3),
    ("answer to /run here", 17),
    ("artifact named", 13),
    ("report not named", 1),
]
"""From the first caption to the end of the sheet."""


RETRIES = [
    ("reopening noted", 1),
    ("reopened", 1),
    ("row committed", 1),
    ("artifact named", 2),
    ("superseded lines left", 1),
    ("places closed", 1),
    ("lines named", 1),
]
"""From asking for what failed again to the end of the batch."""

Outcome = tuple[list[Any], dict[str, bytes]]


def outcome(folder: Path, name: str = "pipeline") -> Outcome:
    """The lines and the artifacts of the batch in *folder*, without the order of lines and what only a day has."""
    batch = folder / name / "latest"
    told = [
        {name: value for name, value in line.items() if name not in OF_THE_DAY}
        for line in lines(batch / "results.jsonl")
    ]
    told.sort(key=lambda line: (line["job"], line["index"]))
    made = {str(path.relative_to(batch)): path.read_bytes() for path in batch.glob("artifacts/**/*") if path.is_file()}
    return told, made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What comes of it when nobody kills it."""
    folder = tmp_path_factory.mktemp("whole")
    ran = runner("run", FILE, "--output-dir", folder, cwd=folder)
    assert ran.code == 0, ran.err
    return outcome(folder)


def test_the_whole_has_every_run_and_every_file(whole: Outcome) -> None:
    """Four captions, twelve pictures of them, one sheet of these."""
    told, made = whole
    assert [line["state"] for line in told] == ["succeeded"] * 17
    assert len(made) == 13
    sheet = told[-1]
    assert (sheet["job"], sheet["output"]["pictures"]) == ("sheet", 12)
    assert [one["file"] for one in sheet["input"]["images"]] == [
        line["artifacts"][0] for line in told if line["job"] == "images"
    ]


@pytest.mark.parametrize(("step", "nth"), KILLS, ids=lambda part: str(part).replace(" ", "-"))
def test_a_kill_changes_nothing_of_what_it_comes_to(step: str, nth: int, whole: Outcome, tmp_path: Path) -> None:
    """SIGKILL at a named step, then --resume."""
    words = ["run", str(FILE), "--output-dir", str(tmp_path), "--quiet"]
    kill(step, nth, *words)
    resumed = runner(*words, "--resume", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert outcome(tmp_path) == whole


def kill(step: str, nth: int, *words: str, env: Mapping[str, str] | None = None) -> None:
    """Run the command and kill it at a step, which it must reach."""
    killed = finish(start(step, str(nth), *words, cwd=ROOT, env=env, module="torture.killed"))
    assert killed.code == -9, killed.err


def half_failed(folder: Path) -> list[str]:
    """The words that go on with a pipeline one of whose first runs has failed, and would not again."""
    block = folder / "block"
    block.touch()
    given = {"n": "{{ row.n }}", "fails_while": "{{ row.fails_while | default('/none', true) }}"}
    jobs: dict[str, dict[str, Any]] = {
        "a": {"rows": numbers(3, fails_while={1: block.name}), "input": given, "endpoint": "one"},
        "b": {
            "endpoint": "one",
            "rows": {"job": "a"},
            "input": {"n": "{{ row.row.n }}"},
            "artifacts": [{"path": "{{ run.index }}.txt", "base64": "{{ output.data }}"}],
        },
        "sheet": {
            "endpoint": "one",
            "rows": {"job": "b", "collect": True},
            "input": {"n": 0, "all": "{{ row.runs | map(attribute='output.n') | list }}"},
            "artifacts": [{"path": "sheet.json", "json": "{{ output.all }}"}],
        },
        "sent": {
            "endpoint": "one",
            "rows": {"job": "sheet"},
            "input": {"all": "{{ row.artifacts[0] | artifact_base64 }}"},
        },
    }
    path = pipeline(folder, jobs, endpoints={"one": {"handler": "echo.py:handler"}})
    ran = runner("run", path, "--output-dir", folder, "--quiet", cwd=folder)
    assert ran.code == 1, ran.err
    block.unlink()
    return ["resume", str(folder / "p/latest"), "--quiet"]


@pytest.fixture(scope="module")
def retried(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What comes of it when what failed is run again, and nobody kills that."""
    folder = tmp_path_factory.mktemp("retried")
    ran = runner(*half_failed(folder), "--retry-failed", cwd=folder)
    assert ran.code == 0, ran.err
    return outcome(folder, "p")


@pytest.mark.parametrize(("step", "nth"), RETRIES, ids=lambda part: str(part).replace(" ", "-"))
def test_a_kill_changes_nothing_of_what_running_again_comes_to(
    step: str, nth: int, retried: Outcome, tmp_path: Path
) -> None:
    """What was collected before is replaced once, and what was made of it, too."""
    words = half_failed(tmp_path)
    kill(step, nth, *words, "--retry-failed")
    again = ["--retry-failed"] if step == "reopening noted" else []  # it had not begun
    resumed = runner(*words, *again, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    found = outcome(tmp_path, "p")
    assert [line["state"] for line in found[0]] == ["succeeded"] * 8
    assert found == retried


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """The job file, and its endpoints, which outlive every runner."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    with serving(folder / "jobs/pipeline.yaml") as server:
        yield folder / "jobs/pipeline.yaml", server


@pytest.mark.parametrize(
    ("step", "nth"), [("id committed", 2), ("artifact named", 3), ("row committed", 3)], ids=lambda part: str(part)
)
def test_each_run_of_a_killed_pipeline_is_paid_for_once(
    step: str, nth: int, served: tuple[Path, Server], whole: Outcome, tmp_path: Path
) -> None:
    """
    Where the endpoint outlives us, what it has taken is followed, whichever job it is of.

    A submit that was on its way at the kill may have been taken or not: its run is `answer_lost`, and paid for again
    only if somebody asks for it.
    """
    file, server = served
    before = server.submits()
    words = ["run", str(file), "--output-dir", str(tmp_path), "--local", server.url, "--quiet"]
    kill(step, nth, *words, env=server.env)
    resumed = runner(*words, "--resume", cwd=tmp_path, env=server.env)
    told = lines(tmp_path / "pipeline/latest/results.jsonl")
    lost = [line for line in told if line["outcome"] == "answer_lost"]
    # Without some pictures the sheet is another one; without most of them there is none.
    is_other_sheet = bool(lost) and any(line["job"] == "sheet" and line["state"] == "succeeded" for line in told)
    assert resumed.code == (1 if lost else 0), resumed.err
    assert {count - before.get(one, 0) for one, count in server.submits().items()} <= {0, 1}
    if lost:
        again = runner(
            "resume", tmp_path / "pipeline/latest", "--retry-failed", "--quiet", cwd=tmp_path, env=server.env
        )
        assert again.code == 0, again.err
    assert outcome(tmp_path) == whole
    paid = [count - before.get(one, 0) for one, count in server.submits().items()]
    assert sum(count > 1 for count in paid) <= len(lost)
    assert sum(count > 0 for count in paid) == 17 + is_other_sheet
