"""The job file of a batch, read back from its manifest."""

from pathlib import Path
from typing import Any

import pytest
from terminal import ROOT

from runner.check import JobFile, open_job_file
from runner.errors import UsageError
from runner.recorded import endpoints, recorded
from runner.values import JsonObject, dump, parse

GOOD = sorted([*(ROOT / "jobs").glob("*.yaml"), *(ROOT / "tests/data/good").glob("*.yaml")])


def told(job_file: JobFile, **more: Any) -> JsonObject:
    """What the manifest says of *job_file*, as it is read from a file."""
    found: JsonObject = parse(
        dump(
            {
                "batch": "20261123T022312Z-7f3a",
                "job_file": {"path": str(job_file.path.absolute()), "sha256": job_file.sha256},
                "spec": job_file.spec.model_dump(mode="json", by_alias=True),
                "vars": job_file.vars,
                "overrides": {"vars": dict(job_file.overrides)},
                "versions": {"runpod-runner": "1.2.3"},
            }
        )
    )
    return found | more


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_every_job_file_is_read_back_as_it_was(path: Path) -> None:
    """Whatever it asks for: what was sent by it has to be ended by it, when the file is gone."""
    before = open_job_file(path, env={})
    after = recorded(told(before))
    assert after.spec == before.spec
    assert after.templates.keys() == before.templates.keys()
    for name, templates in before.templates.items():
        found = after.templates[name]
        assert (found.where is None) == (templates.where is None)
        assert (found.success_when is None) == (templates.success_when is None)
        assert [one.kind for one in found.artifacts] == [one.kind for one in templates.artifacts]
    assert (after.path, after.folder, after.sha256) == (before.path, before.folder, before.sha256)
    assert (after.name, after.vars, after.thresholds) == (before.name, before.vars, before.thresholds)


def test_templates_that_are_read_back_do_the_same() -> None:
    """A job that completed before it could be cancelled is judged as it would have been."""
    before = open_job_file(ROOT / "jobs/hello.yaml", env={}, overrides={"greeting": "Moin"})
    scope = {"row": None, "matrix": None, "vars": before.vars, "repeat": 0}
    made = {name: one.input(scope) for name, one in before.templates.items()}
    assert "Moin" in str(made)
    assert {name: one.input(scope) for name, one in recorded(told(before)).templates.items()} == made


def test_words_of_another_version_are_said_plainly() -> None:
    """It is not the user who has to mend them."""
    manifest = told(open_job_file(ROOT / "jobs/hello.yaml", env={}))
    name = next(iter(manifest["spec"]["jobs"]))
    manifest["spec"]["jobs"][name]["mode"] = "telepathy"
    with pytest.raises(UsageError) as caught:
        recorded(manifest)
    assert caught.value.render() == (
        "error: the manifest of batch 20261123T022312Z-7f3a can't be read back:"
        " Input should be 'async', 'sync', 'stream' or 'batch'\n"
        "  help: use the runner that wrote it, version 1.2.3"
    )


def test_every_endpoint_that_a_batch_was_gone_on_with_is_known() -> None:
    """What was sent by one is followed there, however often the file was changed since."""
    first = told(open_job_file(ROOT / "jobs/hello.yaml", env={}))
    last = told(open_job_file(ROOT / "tests/data/good/remote.yaml", env={}), changes=[first])
    assert [name for name, _ in endpoints(last)] == [*first["spec"]["endpoints"], *last["spec"]["endpoints"]]
