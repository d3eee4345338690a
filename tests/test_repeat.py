"""A batch is run again as it was: from its manifest, with a word on what differs, and on whether the same comes out."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from reusing import Sums
from terminal import ROOT, environment, runner

from runner.repeat import Compared, differences
from runner.values import JsonObject

MORE = "\n\nOTHER = 1\n"


def repeated(sums: Sums, *words: str | Path) -> list[str]:
    """What ``runner run --repeat`` of the newest batch says before it starts, and then of the outputs."""
    ran = sums.runner("run", "--repeat", "sums", *words)
    assert ran.code == 0, ran.err
    said = [text for text in ran.err.splitlines() if not text.startswith("running sums")]
    return [*said, ran.out.splitlines()[-1]]


def test_a_batch_is_repeated_as_it_was(tmp_path: Path) -> None:
    """With what was chosen of its file, and nothing reused: it is run to see whether the same comes out."""
    sums = Sums.make(tmp_path, 1, 2, 3, vars={"style": "ink"}, job={"input": {"n": 1, "s": "{{ vars.style }}"}})
    sums.passes("--var", "style=oil", "--limit", "2")
    first = sums.batches[0]
    assert repeated(sums) == [
        f"repeating batch {first.id}: nothing differs",
        f"2 of 2 runs gave the same output as in {first.id}",
    ]
    assert sums.calls == [1, 1, 1, 1]
    assert [line["input"]["s"] for line in sums.lines] == ["oil", "oil"]
    new = json.loads(sums.batches[0].manifest.read_bytes())
    assert (new["repeats"], new["overrides"]) == (first.id, {"vars": {"style": "oil"}, "jobs": [], "limit": 2})
    listed = sums.runner("list", "--format", "json").json["batches"]
    assert [one["repeats"] for one in listed] == [first.id, None]
    # Any of them can be repeated, by folder or id.
    ran = sums.runner("run", "--repeat", str(first.path), "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize("is_gone", [False, True], ids=["there", "gone"])
def test_rows_that_were_chosen_are_chosen_again(tmp_path: Path, is_gone: bool) -> None:
    """Also where the job file is read back from the manifest."""
    sums = Sums.make(tmp_path, 1, 2, 3, 4, 5)
    sums.passes("--rows", "1:4", "--where", "row.n != '3'")
    if is_gone:
        (tmp_path / "sums.yaml").unlink()
    assert sums.calls == [2, 4, 5]
    assert repeated(sums)[-1] == f"3 of 3 runs gave the same output as in {sums.batches[1].id}"
    assert sums.calls == [2, 4, 5]


def test_the_manifest_has_the_text_of_the_job_file(tmp_path: Path) -> None:
    """A year later it says what was asked for; no secret is in it."""
    sums = Sums.make(tmp_path, 1)
    text = (tmp_path / "sums.yaml").read_text()
    (tmp_path / "sums.yaml").write_text(text[:-1] + ',\n"description": "password: horse-battery"}\n')
    sums.passes()
    told = json.loads(sums.batches[0].manifest.read_bytes())
    assert told["job_file"]["text"] == text[:-1] + ',\n"description": "password: ' + "*" * 15 + "\n"
    assert told["handlers"]["local"]["handler"] == "handler.py:handler"
    assert len(told["handlers"]["local"]["sha256"]) == 64
    assert told["destinations"] == {"local": {"base_url": "embedded", "endpoint_id": "local"}}


@pytest.mark.parametrize("is_gone", [False, True], ids=["changed", "gone"])
def test_the_job_file_runs_as_it_was_recorded(tmp_path: Path, is_gone: bool) -> None:
    """Whatever has become of it since."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    first = sums.batches[0]
    sums.set_job({"input": {"n": 5}})
    if is_gone:
        (tmp_path / "sums.yaml").unlink()
    word = "is gone" if is_gone else "has changed"
    assert repeated(sums) == [
        f"repeating batch {first.id}, and this differs:",
        f"  {tmp_path}/sums.yaml {word}: it runs as it was recorded",
        f"2 of 2 runs gave the same output as in {first.id}",
    ]
    # And so can what came of that.
    second, text = sums.batches[0], json.loads(first.manifest.read_bytes())["job_file"]["text"]
    assert json.loads(second.manifest.read_bytes())["job_file"]["text"] == text
    assert repeated(sums)[-1] == f"2 of 2 runs gave the same output as in {second.id}"


def test_a_handler_that_has_changed_is_said_and_what_it_changed_is_counted(tmp_path: Path) -> None:
    """That is what one repeats a batch for."""
    sums = Sums.make(tmp_path, 1, 2, 3, 4, 5)
    sums.passes()
    first = sums.batches[0]
    text = (tmp_path / "handler.py").read_text()
    (tmp_path / "handler.py").write_text(text.replace('2 * given["n"]', 'max(3, 2 * given["n"]) % 9'))
    assert repeated(sums) == [
        f"repeating batch {first.id}, and this differs:",
        "  the handler of endpoint 'local' has changed: handler.py:handler",
        f"3 of 5 runs gave the same output as in {first.id}; 2 differ: double:0, double:4",
    ]
    ran = sums.runner("run", "--repeat", first.id, "--format", "json")
    assert ran.json["verdict"] == "pass"
    assert (
        ran.err.splitlines()[-1] == f"3 of 5 runs gave the same output as in {first.id}; 2 differ: double:0, double:4"
    )


def _change(path: Path) -> str:
    path.write_text("n\n1\n3\n")
    return f"{path} has changed"


def _remove(path: Path) -> str:
    path.unlink()
    return f"{path} is gone"


@pytest.mark.parametrize("harm", [_change, _remove])
def test_data_that_are_others_are_refused(tmp_path: Path, harm: Any) -> None:
    """It would be another batch, and be paid for."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    first = sums.batches[0]
    said = harm(tmp_path / "rows.csv")
    ran = sums.runner("run", "--repeat", "latest")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        f"error: batch {first.id} can't be repeated as it was: {said}\n"
        "  help: put back what it read, or run what is there now with --accept-changes\n",
    )
    assert sums.batches == [first]


def test_data_that_are_others_run_once_they_are_accepted(tmp_path: Path) -> None:
    """What is there now is run, and the runs that both have are compared."""
    sums = Sums.make(tmp_path, 1, 2)
    sums.passes()
    first = sums.batches[0]
    _change(tmp_path / "rows.csv")
    assert repeated(sums, "--accept-changes") == [
        f"repeating batch {first.id}, and this differs:",
        f"  {tmp_path}/rows.csv has changed",
        f"1 of 1 runs gave the same output as in {first.id}; 1 did not succeed in both",
    ]


def test_a_file_that_is_new_below_a_glob_is_refused(tmp_path: Path) -> None:
    """The glob is the same, the data are not."""
    sums = Sums.make(tmp_path, 1, 2, job={"rows": {"file": "rows*.csv"}})
    sums.passes()
    shutil.copy(tmp_path / "rows.csv", tmp_path / "rows2.csv")
    ran = sums.runner("run", "--repeat", "sums")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        f"error: batch {sums.batches[0].id} can't be repeated as it was: {tmp_path}/rows2.csv is new",
    )


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    """It is known by all that is in it."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/1.txt").write_text("one")
    sums = Sums.make(tmp_path, job={"rows": {"folder": "texts"}, "input": {"n": 1, "of": "{{ row.path }}"}})
    sums.passes()
    assert repeated(sums)[-1] == f"1 of 1 runs gave the same output as in {sums.batches[1].id}"
    (tmp_path / "texts/2.txt").write_text("two")
    ran = sums.runner("run", "--repeat", "sums")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        f"error: batch {sums.batches[0].id} can't be repeated as it was: {tmp_path}/texts/* has changed",
    )


def test_what_was_piped_in_is_repeated_from_the_copy(tmp_path: Path) -> None:
    """Nobody has to keep it elsewhere."""
    sums = Sums.make(tmp_path, job={"rows": {"file": "-"}})

    def piped(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / ".venv/bin/python"), "-m", "runner", "run", *words]
        given = '{"n": "3"}\n{"n": "4"}\n'
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), input=given, capture_output=True, text=True, check=False
        )

    assert piped("sums.yaml").returncode == 0
    first = sums.batches[0]
    assert repeated(sums) == [
        f"repeating batch {first.id}: nothing differs",
        f"2 of 2 runs gave the same output as in {first.id}",
    ]
    first.stdin.unlink()
    ran = sums.runner("run", "--repeat", first.id)
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        f"error: batch {first.id} can't be repeated as it was: {first.stdin} is gone",
    )
    ran = sums.runner("run", "--repeat", first.id, "--accept-changes")
    assert (ran.code, ran.err) == (
        2,
        f"error: batch {first.id} can't be repeated: {first.stdin} is gone, and its rows came from there\n"
        "  help: put it back from a copy, or run the job file with the rows piped into it\n",
    )


def test_a_secret_that_was_written_in_the_file_is_not_made_up(tmp_path: Path) -> None:
    """The manifest has stars in its place: nobody must be called there."""
    sums = Sums.make(tmp_path, 1, job={"webhook": "${HOOK:-http://127.0.0.1:9/very-secret-hook}"})
    sums.passes()
    first = sums.batches[0]
    assert "very-secret-hook" not in first.manifest.read_text()
    assert sums.runner("run", "--repeat", first.id).code == 0
    (tmp_path / "sums.yaml").unlink()
    ran = sums.runner("run", "--repeat", first.id)
    assert (ran.code, ran.err) == (
        2,
        f"error: batch {first.id} can't be repeated: its job file has changed or is gone, and the manifest has none of"
        " the secrets that were written in it\n"
        f"  help: put {tmp_path}/sums.yaml back as it was, its text is in the manifest save for these\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "error: there is no job file to run\n  help: write runner run FILE, or runner run --repeat BATCH\n"),
        (
            ["sums.yaml", "--repeat", "sums"],
            "error: --repeat and FILE exclude each other: a batch is repeated as it was\n  help: leave one out\n",
        ),
        (
            ["--repeat", "sums", "--limit", "2"],
            "error: --repeat and --limit exclude each other: a batch is repeated as it was\n  help: leave one out\n",
        ),
    ],
    ids=["nothing", "file", "limit"],
)
def test_either_a_file_is_run_or_a_batch_repeated(tmp_path: Path, words: list[str], said: str) -> None:
    """Which of the two was meant is not guessed."""
    ran = runner("run", *words, cwd=tmp_path)
    assert (ran.code, ran.out, ran.err) == (2, "", said)


def told(**more: Any) -> JsonObject:
    """A manifest, as far as it is compared."""
    return {
        "batch": "20261123T022312Z-7f3a",
        "job_file": {"path": __file__, "sha256": ""},
        "inputs": [],
        "handlers": {},
        "destinations": {"sdxl": {"base_url": "https://api.runpod.ai/v2", "endpoint_id": "abc"}},
        "versions": {"runpod-runner": "1.0", "python": "3.11.2"},
        "git": {"commit": "a" * 40, "dirty": False},
    } | more


def test_what_the_environment_makes_another_is_said() -> None:
    """Where the endpoint leads, what runs us, and the code beside it."""
    now = told(
        destinations={"sdxl": {"base_url": "https://api.runpod.ai/v2", "endpoint_id": "xyz"}},
        versions={"runpod-runner": "1.0", "python": "3.12.1"},
        git={"commit": "b" * 40, "dirty": True},
    )
    assert differences(told(), now)[1:] == [
        "endpoint 'sdxl' was abc at https://api.runpod.ai/v2, and is xyz at https://api.runpod.ai/v2",
        "python was 3.11.2, and is 3.12.1",
        "git was at aaaaaaaaaaaa, and is at bbbbbbbbbbbb, with uncommitted changes",
    ]
    dirty = told(git={"commit": "b" * 40, "dirty": True})
    assert differences(dirty, dirty)[1:] == [
        "git is at bbbbbbbbbbbb, with uncommitted changes, as before: these may be others"
    ]
    assert differences(told(), told(git=None))[1:] == ["git was at aaaaaaaaaaaa, and is at no commit"]


def test_a_secret_in_an_id_makes_no_difference() -> None:
    """Neither can be told from the other, and none may be shown."""
    masked = told(destinations={"sdxl": {"base_url": "https://api.runpod.ai/v2", "endpoint_id": "***"}})
    assert differences(masked, told())[1:] == []


def test_a_manifest_of_an_older_version_is_repeated() -> None:
    """It lacks what was added since."""
    older = told()
    del older["handlers"], older["destinations"]
    assert differences(older, told(handlers={"local": {"handler": "a.py:b", "sha256": "c"}}))[1:] == []


def test_many_runs_that_differ_are_named_by_their_first() -> None:
    """A line is to be read."""
    found = Compared("x", same=5, other=9, differing=["a:1", "a:2", "b:3"], alone=0)
    assert found.say() == "5 of 14 runs gave the same output as in x; 9 differ: a:1, a:2, b:3 and 6 more"
    assert Compared("x", 1, 1, ["a:1"], 0).say() == "1 of 2 runs gave the same output as in x; 1 differs: a:1"
