"""Going on with a batch whose job file or data have changed meanwhile."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from terminal import Ran, finish, lines, runner, start, wait_until, write

HANDLER = """
import os, time

def handler(job):
    if job["input"]["text"] == "wait" and not os.path.exists("go"):
        open("waiting", "a").close()
        time.sleep(600)
    return job["input"]["text"].upper()
"""

FILE = """\
version: 1
name: words
vars: {mark: "!"}
endpoints:
  local: {handler: "handler.py:handler"}
jobs:
  shout:
    endpoint: local
    concurrency: 1
    rows: {file: rows.csv}
    input: {text: "{{ row.text }}"}
"""

ROWS = ["a", "b", "wait", "c", "d", "c"]


def rows(folder: Path, *texts: str) -> None:
    """Let the data be *texts*."""
    (folder / "rows.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A batch of six runs that was killed when two of them were settled and the third was in flight."""
    handler = HANDLER.replace('"go"', repr(str(tmp_path / "go"))).replace('"waiting"', repr(str(tmp_path / "waiting")))
    write(tmp_path, {"handler.py": handler, "words.yaml": FILE, "pyproject.toml": ""})
    rows(tmp_path, *ROWS)
    process = start("run", "words.yaml", cwd=tmp_path)
    wait_until((tmp_path / "waiting").exists, "the third run")
    process.send_signal(signal.SIGKILL)
    finish(process)
    (tmp_path / "go").touch()
    return tmp_path


def resumed(folder: Path, *words: str) -> tuple[Ran, list[Any], dict[str, Any]]:
    """Go on: what was said, the outputs in the order of settling, and the counts."""
    ran = runner("run", "words.yaml", "--resume", *words, cwd=folder)
    latest = folder / "batches/words/latest"
    health = json.loads((latest / "health.json").read_text())
    return ran, [line.get("output") for line in lines(latest / "results.jsonl")], health["batch"]


def test_settings_that_make_no_other_input_change_nothing(folder: Path) -> None:
    """Endpoint, retries, limits, comments and layout are not part of what a run is."""
    text = FILE.replace("concurrency: 1", "concurrency: 2\n    retry: {attempts: 2}") + "# a comment\n"
    write(folder, {"words.yaml": text})
    ran, outputs, counts = resumed(folder)
    assert ran.code == 0, ran.err
    assert "started with other inputs" not in ran.err
    assert sorted(outputs) == sorted(text.upper() for text in ROWS)
    assert counts["runs"] == 6


def test_only_what_is_the_same_goes_on_unless_told(folder: Path) -> None:
    """A row that was changed while half of the batch is paid for is told, and is not sent behind anybody's back."""
    rows(folder, "new", "a", "b", "wait", "C!", "d", "c", "more")
    ran, outputs, counts = resumed(folder)
    assert ran.code == 0, ran.err
    said = ran.err.splitlines()
    assert said[0].endswith(
        " was started with other inputs; what was changed or added is left out; --accept-changes takes it in"
    )
    assert said[1] == "  shout: 2 done, 3 to go as before; 1 changed, 2 added, 0 removed"
    assert sorted(outputs) == ["A", "B", "C", "D", "WAIT"]
    assert (counts["runs"], counts["succeeded"], counts["pending"]) == (5, 5, 0)


def test_changes_are_taken_in_when_they_are_accepted(folder: Path) -> None:
    """The manifest says both what the batch was started with and what it goes on with."""
    rows(folder, "new", "a", "b", "wait", "C!", "d", "c", "more")
    ran, outputs, counts = resumed(folder, "--accept-changes")
    assert ran.code == 0, ran.err
    assert "what was changed or added is taken in" in ran.err
    assert sorted(outputs) == ["A", "B", "C", "C!", "D", "MORE", "NEW", "WAIT"]
    assert (counts["runs"], counts["succeeded"]) == (8, 8)
    manifest = json.loads((folder / "batches/words/latest/manifest.json").read_text())
    assert [one["inputs"][0]["rows"] for one in [*manifest["changes"], manifest]] == [6, 8]
    again = runner("resume", "words", cwd=folder)
    assert (again.code, "other inputs" in again.err) == (0, False)


def test_what_was_removed_is_not_sent_and_what_is_done_stays(folder: Path) -> None:
    """Nobody pays for a row that somebody has taken out, and no result is thrown away."""
    rows(folder, "b", "c")
    ran, outputs, counts = resumed(folder)
    assert ran.code == 1
    assert ran.err.splitlines()[1] == "  shout: 1 done, 1 to go as before; 0 changed, 0 added, 4 removed"
    assert sorted(map(str, outputs)) == ["A", "B", "C", "None"], "the run in flight was removed: it is skipped"
    assert (counts["runs"], counts["succeeded"], counts["skipped"]) == (4, 3, 1)


def test_what_was_left_out_comes_back_with_the_data(folder: Path) -> None:
    """Who puts the data back gets the whole batch; without that its totals would leave runs out for good."""
    rows(folder, "a", "b", "wait", "c")
    assert resumed(folder)[2]["runs"] == 4
    rows(folder, *ROWS)
    ran = runner("resume", "words", "--accept-changes", cwd=folder)
    assert ran.code == 0, ran.err
    outputs = [line["output"] for line in lines(folder / "batches/words/latest/results.jsonl")]
    assert sorted(outputs) == sorted(text.upper() for text in ROWS)
    counts = json.loads((folder / "batches/words/latest/health.json").read_text())["batch"]
    assert (counts["runs"], counts["succeeded"], counts["pending"]) == (6, 6, 0)


@pytest.mark.parametrize("verb", ["resume", "cancel"])
def test_the_counts_add_up_when_data_come_back_before_the_batch_ends(folder: Path, verb: str) -> None:
    """A run that was left out, and is sent or skipped after all, is one of the batch's."""
    (folder / "go").unlink()
    (folder / "waiting").unlink()
    rows(folder, "a", "b", "wait", "c")
    process = start("run", "words.yaml", "--resume", cwd=folder)
    wait_until((folder / "waiting").exists, "the third run")
    process.send_signal(signal.SIGKILL)
    finish(process)
    (folder / "go").touch()
    rows(folder, *ROWS)
    ran = runner(verb, "words", cwd=folder)
    assert ran.code == 0, ran.err
    counts = json.loads((folder / "batches/words/latest/health.json").read_text())["batch"]
    assert (counts["runs"], counts["pending"]) == (6, 0)
    assert (counts["succeeded"], counts["skipped"]) == ((6, 0) if verb == "resume" else (2, 4))


def test_a_template_that_makes_other_inputs_makes_other_runs(folder: Path) -> None:
    """What was done with the old one is kept; the rest is another experiment, and waits for a word."""
    write(folder, {"words.yaml": FILE.replace("{{ row.text }}", "{{ row.text }}{{ vars.mark }}")})
    ran, _outputs, counts = resumed(folder)
    assert ran.err.splitlines()[1] == "  shout: 0 done, 0 to go as before; 6 changed, 0 added, 0 removed"
    assert (counts["runs"], counts["succeeded"], counts["skipped"]) == (3, 2, 1)
    ran = runner("resume", "words", "--accept-changes", cwd=folder)
    assert ran.code == 1, "the run that was skipped"
    found = [line.get("output") for line in lines(folder / "batches/words/latest/results.jsonl")]
    assert sorted(map(str, found)) == sorted(["A", "B", "None", "A!", "B!", "WAIT!", "C!", "C!", "D!"])


def test_other_options_are_refused(folder: Path) -> None:
    """They choose other runs of the same file; which of the two was meant is not for us to guess."""
    ran = runner("run", "words.yaml", "--resume", "--limit", "3", cwd=folder)
    assert ran.code == 2
    assert ran.err.endswith(
        "can't be gone on with like this: its options were none\n"
        "  help: give the same options, or start a new batch with --fresh\n"
    )


def test_a_job_that_is_gone_with_open_runs_is_asked_for(folder: Path) -> None:
    """What it was sent with is known by the file alone."""
    write(folder, {"words.yaml": FILE.replace("  shout:", "  whisper:")})
    ran = runner("run", "words.yaml", "--resume", cwd=folder)
    assert ran.code == 2
    assert ran.err == (
        "error: job 'shout' is no longer in words.yaml, and runs of it are not settled\n"
        "  help: put it back, then go on\n"
    )


def test_data_that_can_no_longer_be_read_does_not_keep_a_batch_from_being_cancelled(folder: Path) -> None:
    """What runs is paid for by the second."""
    (folder / "rows.csv").unlink()
    ran = runner("cancel", "words", cwd=folder)
    assert ran.code == 0, ran.err
    health = json.loads((folder / "batches/words/latest/health.json").read_text())
    assert (health["verdict"], health["batch"]["succeeded"], health["batch"]["pending"]) == ("stopped", 2, 3)
    assert "3 runs that were never sent stay pending" in ran.err
