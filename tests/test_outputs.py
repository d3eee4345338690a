"""What becomes of outputs: judged by success_when, made into files, and told in results."""

from pathlib import Path
from typing import Any, cast

import pytest
from job_files import opened, runs

from runner.artifacts import ArtifactError, Artifacts, Wanted
from runner.events import Ending, FileClaim
from runner.outputs import Outputs, without
from runner.states import Outcome
from runner.values import MISSING, JsonValue
from runner.work import Work

LONG = "A" * 100


class FakeArtifacts:
    """Keeps what was wanted; *refusal* is why nothing is made."""

    def __init__(self, refusal: str | None = None) -> None:
        self.wanted: list[Wanted] = []
        self.refusal = refusal

    async def make(self, key: str, attempt: int, wanted: list[Wanted], *, loopback: bool) -> list[FileClaim]:
        if self.refusal:
            raise ArtifactError(self.refusal)
        self.wanted = wanted
        return [FileClaim(f"artifacts/{one.path}", f"sha-{number}", 1) for number, one in enumerate(wanted)]


async def finished(folder: Path, job: dict[str, Any], ending: Ending, artifacts: FakeArtifacts | None = None) -> Ending:
    """*ending* of the first run of *job*, as the job sees it."""
    job_file = opened(folder, job, vars={"least": 2})
    outputs = Outputs(
        job_file.templates["only"], job_file.vars, cast(Artifacts, artifacts or FakeArtifacts()), loopback=True
    )
    return await outputs.finish(Work(runs(folder, job, vars={"least": 2})[0], attempts=1), ending)


def completed(output: JsonValue = MISSING, **more: Any) -> Ending:
    """What RunPod calls COMPLETED."""
    if output is MISSING:
        error = {"type": None, "message": "RunPod says COMPLETED and gives no output", "traceback": None}
        return Ending(Outcome.COMPLETED_WITHOUT_OUTPUT, MISSING, error, "COMPLETED")
    return Ending(Outcome.COMPLETED, output, None, "COMPLETED", **more)


@pytest.mark.parametrize(
    ("when", "ending", "outcome", "message"),
    [
        pytest.param("output.n >= vars.least", completed({"n": 2}), "completed", None, id="holds"),
        pytest.param(
            "output.n >= vars.least", completed({"n": 1}), "check_failed", "success_when is false", id="is false"
        ),
        pytest.param(
            "output.n > 1",
            completed({"error": "no horse"}),
            "check_failed",
            "success_when: there is no 'n' here; known: 'error'",
            id="meets what is not there",
        ),
        pytest.param(
            "output.n",
            completed({"n": 1}),
            "check_failed",
            "success_when: expected true or false, found 1",
            id="is neither true nor false",
        ),
        pytest.param(
            "execution_time_ms < 1000", completed({}, execution_time_ms=999), "completed", None, id="looks at times"
        ),
        pytest.param("output is not defined", completed(), "completed", None, id="wants no output"),
        pytest.param(
            "output is defined",
            completed(),
            "completed_without_output",
            "RunPod says COMPLETED and gives no output",
            id="misses an output",
        ),
    ],
)
async def test_a_completed_job_is_a_success_when_the_job_file_says_so(
    tmp_path: Path, when: str, ending: Ending, outcome: str, message: str | None
) -> None:
    """Handlers that catch their errors and return them end COMPLETED."""
    found = await finished(tmp_path, {"success_when": when}, ending)
    assert found.outcome == outcome
    assert (found.error["message"] if found.error else None) == message
    assert found.output == ending.output


async def test_what_failed_by_itself_is_not_judged(tmp_path: Path) -> None:
    """An expression about the output can't make a success of it."""
    failed = Ending(Outcome.FAILED, {"n": 5}, {"type": None, "message": "m", "traceback": None}, "FAILED")
    assert await finished(tmp_path, {"success_when": "output.n == 5"}, failed) == failed


async def test_artifacts_are_references_in_the_results(tmp_path: Path) -> None:
    """A result line with megabytes of base64 is of no use to anybody."""
    artifacts = FakeArtifacts()
    job = {
        "input": {"n": "{{ matrix.n }}"},
        "rows": {"matrix": {"n": [7]}},
        "artifacts": [
            {"path": "{{ run.index }}-{{ matrix.n }}.png", "base64": "{{ output.image }}"},
            {"path": "{{ run.key }}.json", "json": {"boxes": "{{ output.boxes }}"}},
        ],
    }
    found = await finished(tmp_path, job, completed({"image": LONG, "boxes": [1, 2], "n": 1}), artifacts)
    key = runs(tmp_path, job)[0].key
    assert artifacts.wanted == [
        Wanted("0-7.png", "base64", LONG),
        Wanted(f"{key}.json", "json", {"boxes": [1, 2]}),
    ]
    assert found.outcome is Outcome.COMPLETED
    assert found.output == {"image": {"file": "artifacts/0-7.png", "sha256": "sha-0"}, "boxes": [1, 2], "n": 1}
    assert found.artifacts == ("artifacts/0-7.png", f"artifacts/{key}.json")


@pytest.mark.parametrize(
    ("artifact", "output", "refusal", "message"),
    [
        pytest.param(
            {"path": "a.png", "base64": "{{ output.image }}"},
            {"image": "!"},
            "this is not base64: character '!' at 1",
            "this is not base64: character '!' at 1",
            id="undecodable",
        ),
        pytest.param(
            {"path": "a.png", "base64": "{{ output.image }}"},
            {"picture": LONG},
            None,
            "artifacts.0.base64: there is no 'image' here; known: 'picture'",
            id="not there",
        ),
        pytest.param(
            {"path": "{{ row.name }}.png", "base64": "{{ output.image }}"},
            {"image": LONG},
            None,
            "artifacts.0.path: an artifact's path can't leave its folder: '..' leads out of it: '../../evil.png'",
            id="outside",
        ),
    ],
)
async def test_an_artifact_that_can_t_be_made_fails_the_run_and_keeps_its_output(
    tmp_path: Path, artifact: dict[str, Any], output: JsonValue, refusal: str | None, message: str
) -> None:
    """The output is paid for, and may be all that is needed to mend it."""
    job = {"rows": {"inline": [{"name": "../../evil"}]}, "artifacts": [artifact]}
    found = await finished(tmp_path, job, completed(output), FakeArtifacts(refusal))
    assert (found.outcome, found.output, found.artifacts) == (Outcome.ARTIFACT_FAILED, output, ())
    assert found.error == {"type": None, "message": message, "traceback": None}


async def test_a_check_comes_before_artifacts(tmp_path: Path) -> None:
    """A file made of a failure would look like a success."""
    artifacts = FakeArtifacts()
    job = {"success_when": "output.ok", "artifacts": [{"path": "a", "text": "{{ output.t }}"}]}
    found = await finished(tmp_path, job, completed({"ok": False, "t": LONG}), artifacts)
    assert (found.outcome, artifacts.wanted) == (Outcome.CHECK_FAILED, [])


def test_only_what_was_taken_is_replaced() -> None:
    """Equal texts elsewhere in the output were not made into a file."""
    taken, other = LONG, "".join(list(LONG))
    claims = [FileClaim("artifacts/a", "s", 100)]
    output = {"images": [taken, other], "url": "https://example.com/a"}
    assert without(output, [Wanted("a", "base64", taken)], claims) == {
        "images": [{"file": "artifacts/a", "sha256": "s"}, other],
        "url": "https://example.com/a",
    }
    assert without(output, [Wanted("a", "url", output["url"])], claims) == output


def test_a_whole_output_can_be_taken() -> None:
    """`text: "{{ output }}"` leaves nothing but the reference."""
    claims = [FileClaim("artifacts/a", "s", 100)]
    assert without(LONG, [Wanted("a", "text", LONG)], claims) == {"file": "artifacts/a", "sha256": "s"}


def test_short_values_that_python_shares_stay() -> None:
    """The empty text and small numbers are one object wherever they stand."""
    claims = [FileClaim("artifacts/a", "s", 0)]
    assert without({"a": "", "b": ""}, [Wanted("a", "text", "")], claims) == {"a": "", "b": ""}
