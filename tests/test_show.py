"""One run, told whole: what `runner show` finds, and how it says it."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from happened import HERE, a_run, a_settled, accepted, an_ending, ended, error, intended
from old_batches import MIXED, a_batch, mixed

from runner.batch import Folder
from runner.commands.show import show
from runner.detail import detail
from runner.errors import UsageError
from runner.events import EMBEDDED, CancelDecided, Destination, Ended, Event
from runner.files import FileText
from runner.states import Outcome


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return a_batch(tmp_path, mixed(), planned=MIXED)


def said(folder: Folder, run: str) -> str:
    """What a person is told of *run*."""
    out = io.StringIO()
    assert show(str(folder.path), run, output_dir=None, out=out) == 0
    return out.getvalue()


def document(folder: Folder, run: str) -> Any:
    """What a program is told of it."""
    out = io.StringIO()
    assert show(str(folder.path), run, output_dir=None, as_json=True, out=out) == 0
    assert out.getvalue().count("\n") == 1
    return json.loads(out.getvalue())


def only(tmp_path: Path, *events: Event, planned: int = 1) -> Folder:
    """A batch of one job to which *events* happened."""
    return a_batch(tmp_path, events, planned={"photos": planned}, verdict=None, took_s=None)


def test_a_failed_run_is_told_whole(folder: Folder) -> None:
    """It is what a person asks for first, and pastes into a report."""
    assert (
        said(folder, "photos:1")
        == f"""\
run 1 of job photos: failed
  batch      {folder.path}
  key        aaaa2
  row        {{"prompt":"ein Pferd","style":"ink"}}
  repeat     0
  input      {{"prompt":"ein Pferd"}}
  settled    1970-01-01T00:01:43.000Z, 3.0s after the first intent

  attempt 1: failed, status FAILED
    endpoint   sdxl, abc123 at https://api.runpod.ai/v2
    job id     aaaa2-job-1
    intended   1970-01-01T00:01:40.000Z
    submitted  1970-01-01T00:01:41.000Z
    ended      1970-01-01T00:01:43.000Z, 2.0s after the submit
    worker     w1

  error      ValueError: no horse
    Traceback:
      here
"""
    )


def test_a_run_that_succeeded_shows_its_output_and_times(folder: Folder) -> None:
    """And nothing of an error."""
    assert (
        said(folder, "aaaa1")
        == f"""\
run 0 of job photos: succeeded (completed)
  batch      {folder.path}
  key        aaaa1
  row        {{"prompt":"a horse"}}
  matrix     {{"seed":1}}
  repeat     0
  input      {{"prompt":"a horse"}}
  settled    1970-01-01T00:01:43.000Z, 3.0s after the first intent

  attempt 1: completed, status COMPLETED
    endpoint   sdxl, abc123 at https://api.runpod.ai/v2
    job id     aaaa1-job-1
    intended   1970-01-01T00:01:40.000Z
    submitted  1970-01-01T00:01:41.000Z
    ended      1970-01-01T00:01:43.000Z, 2.0s after the submit
    worker     w1
    times      delay 19ms, execution 539ms

  output     {{"score":0.75}}
"""
    )


def test_the_document_is_the_line_and_the_attempts(folder: Folder) -> None:
    """Whoever reads results.jsonl knows its fields already."""
    lines = folder.results.read_bytes().splitlines()
    assert document(folder, "captions:0") == {
        "batch": {"id": folder.id, "path": str(folder.path)},
        "run": json.loads(lines[3]),
        "attempts": [
            {
                "attempt": 1,
                "endpoint": "sdxl",
                "endpoint_id": "abc123",
                "base_url": "https://api.runpod.ai/v2",
                "job_id": "cccc4-job-1",
                "intended_at": "1970-01-01T00:01:40.000Z",
                "submitted_at": "1970-01-01T00:01:41.000Z",
                "cancel_decided_at": None,
                "ended_at": "1970-01-01T00:01:43.000Z",
                "outcome": "completed",
                "status": "COMPLETED",
                "worker_id": "w1",
                "delay_time_ms": None,
                "execution_time_ms": None,
                "cost_usd": None,
                "error": None,
            }
        ],
    }


def test_a_run_that_was_skipped_has_no_attempts(folder: Folder) -> None:
    """It was never sent."""
    assert (
        said(folder, "bbbb3")
        == f"""\
run 2 of job photos: skipped
  batch      {folder.path}
  key        bbbb3
  repeat     0
  input      {{"x":1}}
  settled    1970-01-01T00:01:43.000Z
"""
    )


def test_a_run_without_a_row_has_not_been_started(folder: Folder) -> None:
    """Of a million runs most are like this for hours."""
    assert said(folder, "3") == "run 3 of job photos has not been started\n"
    found = document(folder, "3")
    assert (found["run"]["state"], found["run"]["key"], found["attempts"]) == ("pending", None, [])
    assert set(found["run"]) == set(document(folder, "2")["run"])


def test_a_run_under_way_shows_how_far_each_attempt_is(tmp_path: Path) -> None:
    """A live batch is asked about what hangs."""
    run = replace(a_run("aaaa1"), input={"image": FileText.of("AAAA", file="a.png", sha256="00")})
    embedded = Destination("local", EMBEDDED, "local")
    folder = only(
        tmp_path,
        intended(run, to=embedded),
        accepted(run),
        Ended("aaaa1", 1, None, 102.5),
        intended(run, 2, at=103.0),
        accepted(run, 2, at=103.5),
        ended(run, 2, at=104.0),
        intended(run, 3, at=105.0),
        accepted(run, 3, at=105.5),
        CancelDecided("aaaa1", 3, 107.0),
    )
    assert (
        said(folder, "0")
        == f"""\
run 0 of job photos: submitted
  batch      {folder.path}
  key        aaaa1
  repeat     0
  input      {{"image":{{"file":"a.png","sha256":"00"}}}}

  attempt 1: ended with its embedded endpoint
    endpoint   local, embedded
    job id     aaaa1-job-1
    intended   1970-01-01T00:01:40.000Z
    submitted  1970-01-01T00:01:41.000Z
    ended      1970-01-01T00:01:42.500Z, 1.5s after the submit

  attempt 2: failed, status FAILED
    endpoint   sdxl, abc123 at https://api.runpod.ai/v2
    job id     aaaa1-job-2
    intended   1970-01-01T00:01:43.000Z
    submitted  1970-01-01T00:01:43.500Z
    ended      1970-01-01T00:01:44.000Z, 500ms after the submit
    worker     w1
    error      it was failed

  attempt 3: submitted, not seen to end yet
    endpoint   sdxl, abc123 at https://api.runpod.ai/v2
    job id     aaaa1-job-3
    intended   1970-01-01T00:01:45.000Z
    submitted  1970-01-01T00:01:45.500Z
    to cancel  1970-01-01T00:01:47.000Z
"""
    )
    run_ = document(folder, "0")["run"]
    assert (run_["state"], run_["outcome"], run_["attempts"], run_["job_id"]) == ("submitted", None, 3, "aaaa1-job-3")


def test_an_intent_waits_for_its_answer(tmp_path: Path) -> None:
    """Whether the job exists nobody knows yet."""
    assert "\n  attempt 1: submitting, no answer yet\n" in said(only(tmp_path, intended(a_run("aaaa1"))), "aaaa1")


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (None, "  output     null\n"),
        ("", '  output     ""\n'),
        ("two\nlines", "  output\n    two\n    lines\n"),
        ("\x1b[31mred\x1b[0m", "  output     red\n"),
        (["x" * 60, "y" * 60], f'  output\n    [\n      "{"x" * 60}",\n      "{"y" * 60}"\n    ]\n'),
        ("z" * 2500, f"  output\n    {'z' * 2000} … (500 more characters: --format json)\n"),
    ],
    ids=["null", "empty", "lines", "escapes", "long", "very long"],
)
def test_an_output_is_shown_as_it_is_best_read(tmp_path: Path, output: Any, shown: str) -> None:
    """It may be a word, or a book, or hostile; the document has all of it."""
    run = a_run("aaaa1")
    folder = only(tmp_path, intended(run), accepted(run), a_settled(run, ending=an_ending(output=output)))
    assert said(folder, "0").endswith(f"    worker     w1\n\n{shown}")
    assert document(folder, "0")["run"]["output"] == output


def test_artifacts_are_listed(folder: Folder) -> None:
    """A path a line."""
    found = document(folder, "captions:0")
    found["run"]["artifacts"] = ["artifacts/a.png", "artifacts/b c.png"]
    assert detail(found).endswith("\n  output     short\n  artifacts  artifacts/a.png\n             artifacts/b c.png")


def test_a_line_that_is_not_where_it_should_be_is_said(folder: Folder) -> None:
    """The ledger knows all but the output, and shows it."""
    lines = folder.results.read_bytes()
    offset = lines.rindex(b"\n", 0, -1) + 1
    folder.results.write_bytes(b"x" + lines)
    text = said(folder, "captions:0")
    assert text.startswith("run 0 of job captions: succeeded (completed)\n")
    assert text.endswith(
        f"\n\n  the ledger says that its line is at byte {offset} of {folder.results}, and it is not there\n"
    )


WHICH = "its runs are photos:0 to photos:3, captions:0"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("0", "2 jobs have a run 0\n  help: write photos:0 or captions:0"),
        ("4", f"batch {{id}} has no run '4'\n  help: {WHICH}; of a key, 4 characters are needed"),
        ("aaa", f"batch {{id}} has no run 'aaa'\n  help: {WHICH}; of a key, 4 characters are needed"),
        (
            "9999",
            "batch {id} has no run whose key begins with '9999'\n"
            f"  help: {WHICH}; a run that has not been started is known by its index only",
        ),
        (
            "aaaa",
            "several keys begin with 'aaaa': aaaa1 (photos:0), aaaa2 (photos:1)\n  help: write more of the key",
        ),
        ("photos:4", "job 'photos' has no run '4'\n  help: its runs are photos:0 to photos:3"),
        ("captions:x", "job 'captions' has no run 'x'\n  help: its runs are captions:0"),
        ("photo:1", "batch {id} has no job 'photo'\n  help: did you mean 'photos'?"),
        ("photos:" + "9" * 5000, f"job 'photos' has no run '{'9' * 5000}'\n  help: its runs are photos:0 to photos:3"),
    ],
    ids=lambda value: value[:10],
)
def test_a_run_that_is_not_there_is_asked_for_again(folder: Folder, run: str, message: str) -> None:
    """With all that would have been right."""
    with pytest.raises(UsageError) as caught:
        said(folder, run)
    assert caught.value.render() == "error: " + message.replace("{id}", folder.id)


def test_a_whole_key_is_never_ambiguous(tmp_path: Path) -> None:
    """Also when it begins another one; and digits that are no index are a key's."""
    keys: Sequence[str] = ("12345", "123456", "1234567")
    folder = only(tmp_path, *(intended(a_run(key, index=index)) for index, key in enumerate(keys)), planned=3)
    assert document(folder, "12345")["run"]["key"] == "12345"
    assert document(folder, "2")["run"]["key"] == "1234567"
    with pytest.raises(UsageError, match=r"12345 \(photos:0\), 123456 \(photos:1\) and more$"):
        said(folder, "1234")


def test_the_last_error_is_told_once(tmp_path: Path) -> None:
    """In full, below; what came before is told with its attempt."""
    run = a_run("aaaa1")
    ending = an_ending(Outcome.CRASHED, error=error("gone"))
    folder = only(
        tmp_path,
        intended(run, to=HERE),
        accepted(run),
        ended(run),
        intended(run, 2),
        accepted(run, 2),
        a_settled(run, 2, ending),
    )
    text = said(folder, "0")
    assert text.count("it was failed") == text.count("gone") == 1
    assert text.startswith("run 0 of job photos: failed (crashed)\n")
