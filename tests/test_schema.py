"""The JSON Schema that editors check with, and what `runner init` writes."""

import json
from pathlib import Path

from terminal import ROOT, lines, runner

from runner.schema import text


def test_the_schema_in_the_repository_is_the_one_of_the_models() -> None:
    """An editor that knows another grammar than the validator would teach mistakes. `make schema` mends it."""
    assert (ROOT / "schemas/job.schema.json").read_text() == text()


def test_every_key_explains_itself() -> None:
    """Hover text is the documentation that people read."""
    found = json.loads(text())
    parts = [found, *found["$defs"].values()]
    silent = [
        key
        for part in parts
        for key, value in part.get("properties", {}).items()
        if "description" not in found["$defs"].get(value.get("$ref", "").rpartition("/")[2], value)
    ]
    assert silent == []


def test_what_init_writes_runs_as_it_is(tmp_path: Path) -> None:
    """It is the first minute with the tool."""
    ran = runner("init", "project", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("next: runner run project/first.yaml\n")
    assert (tmp_path / "project/schemas/job.schema.json").read_text() == text()
    assert runner("validate", "project/first.yaml", cwd=tmp_path).out == "project/first.yaml: ok (1 job, 4 runs)\n"
    assert runner("run", "project/first.yaml", cwd=tmp_path).code == 0
    found = lines(tmp_path / "project/batches/first/latest/results.jsonl")
    assert sorted(one["output"]["words"] for one in found) == [5, 6, 10, 12]


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """The folder may hold somebody's work."""
    (tmp_path / "README.md").write_text("mine")
    ran = runner("init", cwd=tmp_path)
    assert (ran.code, ran.err) == (
        2,
        "error: . has README.md already, and init overwrites nothing\n  help: name an empty folder\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
