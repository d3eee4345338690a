"""What becomes of outputs: judged by success_when, made into files, and told in results."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from job_files import opened, runs

from runner.artifacts import ArtifactError, Artifacts, Wanted
from runner.events import Ending, FileClaim
from runner.outputs import Outputs, without
from runner.secret import Masker, Secret
from runner.states import RETRYABLE, Outcome
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


# Lists


IMAGES = {"n": 2, "images": [LONG + "a", LONG + "b"]}
EACH = {"path": "{{ run.index }}-{{ item_index }}.png", "for": "output.images", "base64": "{{ item }}"}


async def test_each_item_of_a_list_is_a_file(tmp_path: Path) -> None:
    """The output then names them in their places."""
    artifacts = FakeArtifacts()
    job = {"artifacts": [EACH | {"max_size": "1 KiB"}, {"path": "all.json", "json": "{{ output.n }}"}]}
    found = await finished(tmp_path, job, completed(IMAGES), artifacts)
    assert artifacts.wanted == [
        Wanted("0-0.png", "base64", LONG + "a", most_bytes=1024, of="artifacts.0: item 0: "),
        Wanted("0-1.png", "base64", LONG + "b", most_bytes=1024, of="artifacts.0: item 1: "),
        Wanted("all.json", "json", 2),
    ]
    assert found.output == {
        "n": 2,
        "images": [{"file": f"artifacts/0-{n}.png", "sha256": f"sha-{n}"} for n in range(2)],
    }
    assert found.artifacts == ("artifacts/0-0.png", "artifacts/0-1.png", "artifacts/all.json")


async def test_items_may_be_mappings_and_give_their_own_names(tmp_path: Path) -> None:
    """Only the image leaves the item; what is beside it stays."""
    images = [{"id": "cat", "b64": LONG + "a"}, {"id": "dog", "b64": LONG + "b", "score": 0.5}]
    each = {"path": "{{ item.id }}.png", "for": "output", "base64": "{{ item.b64 }}"}
    found = await finished(tmp_path, {"artifacts": [each]}, completed(images))
    assert found.output == [
        {"id": "cat", "b64": {"file": "artifacts/cat.png", "sha256": "sha-0"}},
        {"id": "dog", "b64": {"file": "artifacts/dog.png", "sha256": "sha-1"}, "score": 0.5},
    ]


async def test_a_list_may_be_any_expression(tmp_path: Path) -> None:
    """What it leaves out stays in the output."""
    job = {"artifacts": [EACH | {"for": "output.images | reject('equalto', 'no') | list"}]}
    output = {"images": ["no", LONG + "b", "no"]}
    found = await finished(tmp_path, job, completed(output))
    assert found.output == {"images": ["no", {"file": "artifacts/0-0.png", "sha256": "sha-0"}, "no"]}


async def test_an_empty_list_makes_no_files(tmp_path: Path) -> None:
    """And is no failure: `success_when` may ask for more."""
    found = await finished(tmp_path, {"artifacts": [EACH]}, completed({"images": []}))
    assert (found.outcome, found.artifacts, found.output) == (Outcome.COMPLETED, (), {"images": []})


@pytest.mark.parametrize(
    ("output", "each", "message"),
    [
        pytest.param({"images": LONG}, EACH, f"artifacts.0.for: expected a list, found '{LONG[:57]}…'", id="a text"),
        pytest.param(
            {"images": {"a": LONG}}, EACH, "artifacts.0.for: expected a list, found a mapping", id="a mapping"
        ),
        pytest.param({"images": None}, EACH, "artifacts.0.for: expected a list, found null", id="null"),
        pytest.param({}, EACH, "artifacts.0.for: there is no 'images' here; there are no keys", id="not there"),
        pytest.param(
            {"images": [{"a": 1}, {}]},
            EACH | {"json": "{{ item.a }}", "base64": None},
            "artifacts.0.json: item 1: there is no 'a' here; there are no keys",
            id="an item without its part",
        ),
        pytest.param(
            {"images": [{"a": "x"}, {"a": "../x"}]},
            {"path": "{{ item.a }}", "for": "output.images", "json": "{{ item }}"},
            "artifacts.0.path: item 1: an artifact's path can't leave its folder: '..' leads out of it: '../x'",
            id="an item with a path of its own",
        ),
        pytest.param(
            {"images": [1] * 10_001},
            EACH,
            "artifacts.0.for: a list of 10001 items, and 10000 is the most",
            id="too many",
        ),
    ],
)
async def test_what_is_no_list_fails_the_run_alone(
    tmp_path: Path, output: JsonValue, each: dict[str, Any], message: str
) -> None:
    """A model's output is what it is: the message says what was found, and where."""
    artifacts = FakeArtifacts()
    found = await finished(tmp_path, {"artifacts": [each]}, completed(output), artifacts)
    assert (found.outcome, found.output, artifacts.wanted) == (Outcome.ARTIFACT_FAILED, output, [])
    assert found.error == {"type": None, "message": message, "traceback": None}


@pytest.mark.parametrize(
    ("path", "png"),
    [
        ("{{ run.index }}.{{ ext }}", "0.png"),
        ("{{ {'png': 'images', 'mp4': 'films'}[ext] }}/{{ run.key }}", "images/K"),
    ],
)
async def test_a_path_that_follows_the_type_is_asked_for_it(tmp_path: Path, path: str, png: str) -> None:
    """Once it is known: a table of types need not have every one of them."""
    artifacts = FakeArtifacts()
    job = {"artifacts": [{"path": path, "base64": "{{ output }}"}]}
    await finished(tmp_path, job, completed(LONG), artifacts)
    (wanted,) = artifacts.wanted
    assert wanted.by_type is not None
    assert wanted.by_type("png") == png.replace("K", runs(tmp_path, job)[0].key)


async def test_a_path_that_only_sounds_like_it_follows_no_type(tmp_path: Path) -> None:
    """It is known, and held against the rules, before anything is decoded."""
    artifacts = FakeArtifacts()
    job = {"artifacts": [{"path": "text.ext/{{ 'ext' }}{{ run.index }}", "base64": "{{ output }}"}]}
    await finished(tmp_path, job, completed(LONG), artifacts)
    assert artifacts.wanted == [Wanted("text.ext/ext0", "base64", LONG)]


async def test_without_an_output_there_is_nothing_to_make_files_of(tmp_path: Path) -> None:
    """Though `success_when` may take the run for a success."""
    job = {"success_when": "output is not defined", "artifacts": [{"path": "a", "text": "{{ output }}"}]}
    found = await finished(tmp_path, job, completed())
    assert (found.outcome, found.output) == (Outcome.ARTIFACT_FAILED, MISSING)


# Schemas


SCHEMA = {"type": "object", "required": ["image"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("when", "ending", "outcome", "message"),
    [
        pytest.param(None, completed({"image": LONG, "n": 1}), "completed", None, id="fits"),
        pytest.param(
            None,
            completed({"image": LONG, "n": "1"}),
            "check_failed",
            "output_schema: output.n: expected a whole number, found '1'",
            id="does not fit",
        ),
        pytest.param(
            "output.image",
            completed({}),
            "check_failed",
            "output_schema: output: there is no 'image'",
            id="comes first",
        ),
        pytest.param(
            "false", completed({"image": LONG}), "check_failed", "success_when is false", id="is not all that counts"
        ),
        pytest.param("output is not defined", completed(), "completed", None, id="is about an output that is there"),
    ],
)
async def test_an_output_has_to_fit_its_schema(
    tmp_path: Path, when: str | None, ending: Ending, outcome: str, message: str | None
) -> None:
    """Before an expression looks at it, which would only stumble over what is not there."""
    found = await finished(tmp_path, {"success_when": when, "output_schema": SCHEMA}, ending)
    assert (found.outcome, found.error and found.error["message"]) == (outcome, message)
    assert found.output == ending.output


async def test_what_is_said_of_an_output_shows_no_secret(tmp_path: Path) -> None:
    """A handler may give back what it was sent, and the message what it gave."""
    job_file = opened(
        tmp_path, {"output_schema": {"type": "integer"}, "retry_when": "output", "retry": {"attempts": 2}}
    )
    masker = Masker([Secret("hunter2-hunter2", name="key")])
    outputs = Outputs(job_file.templates["only"], {}, cast(Artifacts, FakeArtifacts()), loopback=True, masker=masker)
    work = Work(runs(tmp_path, {})[0], attempts=1)
    found = await outputs.finish(work, completed("hunter2-hunter2"))
    found, _ = outputs.wants_another(work, found)
    assert found.error == {
        "type": None,
        "message": "output_schema: output: expected a whole number, found '***'"
        "; retry_when: expected true or false, found '***'",
        "traceback": None,
    }


# Retries


def wants(folder: Path, when: str | None, ending: Ending, *, attempts: int = 1) -> tuple[Ending, bool | None]:
    """What a job with that `retry_when` says of *ending*."""
    job = {"rows": {"inline": [{"n": 3}]}, "input": {"n": "{{ row.n }}"}}
    job |= {"retry_when": when, "retry": {"attempts": 2}} if when else {}
    job_file = opened(folder, job, vars={"least": 2})
    outputs = Outputs(job_file.templates["only"], job_file.vars, cast(Artifacts, None), loopback=True)
    return outputs.wants_another(Work(runs(folder, job, vars={"least": 2})[0], attempts=attempts), ending)


CHECKED = Ending(
    Outcome.CHECK_FAILED,
    {"busy": True},
    {"type": None, "message": "success_when is false", "traceback": None},
    "COMPLETED",
    execution_time_ms=90,
    delay_time_ms=10,
)
CRASHED = Ending(Outcome.CRASHED, MISSING, {"type": "E", "message": "CUDA out of memory", "traceback": "t"}, "FAILED")


@pytest.mark.parametrize(
    ("when", "ending", "expected"),
    [
        pytest.param("output.busy", CHECKED, True, id="the output"),
        pytest.param("not output.busy", CHECKED, False, id="the output, which says no"),
        pytest.param("outcome == 'check_failed'", CHECKED, True, id="the outcome"),
        pytest.param("outcome in ['crashed', 'lost']", CHECKED, False, id="other outcomes"),
        pytest.param("'out of memory' in error.message", CRASHED, True, id="the error"),
        pytest.param("error.type == 'E' and status == 'FAILED'", CRASHED, True, id="its type, and the status"),
        pytest.param("attempts < 2 and row.n == 3 and vars.least == 2 and repeat == 0", CRASHED, True, id="the run"),
        pytest.param("execution_time_ms < 100 and delay_time_ms < 100", CHECKED, True, id="times"),
        pytest.param("output is not defined", CRASHED, True, id="no output"),
        pytest.param("true", CRASHED, True, id="anything"),
        pytest.param(None, CRASHED, None, id="nothing, so that retry.outcomes decides"),
    ],
)
def test_retry_when_decides_about_another_attempt(
    tmp_path: Path, when: str | None, ending: Ending, expected: bool | None
) -> None:
    """What a service means by its error, no list of outcomes can know."""
    assert wants(tmp_path, when, ending) == (ending, expected)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in RETRYABLE])
def test_what_is_never_tried_again_is_not_asked_about(tmp_path: Path, outcome: Outcome) -> None:
    """A lost answer is `on_answer_lost`'s; the rest would come to the same, or is what was wanted."""
    assert wants(tmp_path, "true", Ending(outcome, {"n": 1})) == (Ending(outcome, {"n": 1}), None)


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("output.bsy", "there is no 'bsy' here; did you mean 'busy'?"),
        ("output.busy | string", "expected true or false, found 'True'"),
    ],
)
def test_an_expression_that_fails_wants_no_attempt_and_says_why(tmp_path: Path, when: str, why: str) -> None:
    """An attempt costs money; a mistake in an expression must not spend it, nor go unseen."""
    found, wanted = wants(tmp_path, when, CHECKED)
    assert wanted is False
    assert found.error == {"type": None, "message": f"success_when is false; retry_when: {why}", "traceback": None}
    found, _ = wants(tmp_path, when, replace(CHECKED, error=None))
    assert found.error == {"type": None, "message": f"retry_when: {why}", "traceback": None}
