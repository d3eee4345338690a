"""Looking at batches as a user does: one real run, then each command in a process of its own."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import environment, finish, runner, serving, start, wait_until, write

HANDLER = """
import time

def handler(job):
    given = job["input"]
    if given["text"] == "bad":
        raise ValueError("no horse")
    time.sleep(given.get("sleep", 0))
    return {"text": given["text"].upper(), "length": len(given["text"])}
"""

WORDS = """\
version: 1
name: words
endpoints:
  local: {handler: "handler.py:handler"}
jobs:
  upper:
    endpoint: local
    rows: {inline: [{text: horse}, {text: bad}, {text: "=1+1"}]}
    input: {text: "{{ row.text }}"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one batch of three runs, of which one failed."""
    folder = tmp_path_factory.mktemp("words")
    write(folder, {"words.yaml": WORDS, "handler.py": HANDLER})
    assert runner("run", "words.yaml", cwd=folder).code == 1
    return folder


def test_results_are_filtered_and_converted(folder: Path) -> None:
    """Into what the next step reads: a script, a spreadsheet."""
    lines = (folder / "batches/words/latest/results.jsonl").read_text().splitlines(keepends=True)
    ran = runner("results", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (0, "".join(lines), "")
    ran = runner("results", "words", "--state", "failed", "--fields", "index,error.message", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (0, '{"index":1,"error.message":"no horse"}\n', "")
    wish = ("--state", "succeeded", "--where", "output.length < 5", "--fields", "row.text,output", "--format", "csv")
    ran = runner("results", "latest", *wish, "--output", "short.csv", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    with (folder / "short.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["row.text", "output"], ["'=1+1", '{"text":"=1+1","length":4}']]
    ran = runner("results", "--job", "upper", "--outcome", "failed", "--format", "json", cwd=folder)
    assert ran.json == [json.loads(line) for line in lines if '"failed"' in line]


def test_results_end_quietly_when_nobody_reads_on(folder: Path, tmp_path: Path) -> None:
    """`| head` on a file of any length."""
    line = (folder / "batches/words/latest/results.jsonl").read_text().splitlines(keepends=True)[0]
    batch = tmp_path / "batches/words/20270115T080000Z-0000"
    write(batch, {"results.jsonl": line * 5000, "ledger.sqlite": ""})
    command = f"{sys.executable} -m runner results {batch}"
    piped = ["bash", "-c", f"set -o pipefail; {command} 2>err | head -n 1; echo ${{PIPESTATUS[0]}}"]
    ran = subprocess.run(piped, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert ran.stdout == f"{line}0\n"
    assert (tmp_path / "err").read_text().startswith("note: lines of runs that were run again may be among these: ")
    assert (tmp_path / "err").read_text().count("\n") == 1


def test_results_on_a_terminal_are_harmless(tmp_path: Path) -> None:
    """U+009B begins an escape sequence, and JSON does not escape it."""
    handler = 'def handler(job):\n    return "a\\x9b31mred"\n'
    write(tmp_path, {"words.yaml": WORDS, "handler.py": handler})
    assert runner("run", "words.yaml", "--limit", "1", "--quiet", cwd=tmp_path).code == 0
    assert b"\xc2\x9b" in (tmp_path / "batches/words/latest/results.jsonl").read_bytes()
    main, side = pty.openpty()
    words = [sys.executable, "-m", "runner", "results", "--fields", "output"]
    subprocess.run(words, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=side, check=True)
    os.close(side)
    assert os.read(main, 1000) == b'{"output":"ared"}\r\n'
    os.close(main)


def test_one_run_is_shown(folder: Path) -> None:
    """By its index, by the beginning of its key."""
    ran = runner("show", "words", "1", "--format", "json", cwd=folder)
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["run"]["error"]["message"], len(ran.json["attempts"])) == ("no horse", 1)
    by_key = runner("show", "latest", ran.json["run"]["key"][:8], cwd=folder)
    assert (by_key.code, by_key.err) == (0, "")
    assert by_key.out == runner("show", "latest", "upper:1", cwd=folder).out
    assert by_key.out.startswith("run 1 of job upper: failed\n")
    assert "\n    endpoint   local, embedded\n" in by_key.out
    assert "\n  error      ValueError: no horse\n    Traceback (most recent call last):\n" in by_key.out
    ran = runner("show", "latest", "9", cwd=folder)
    assert (ran.code, ran.out) == (2, "")


def test_batches_are_listed_and_cleaned(folder: Path) -> None:
    """The whole way, with what cron does."""
    assert runner("run", "words.yaml", "--limit", "1", "--quiet", cwd=folder).code == 0
    listed = runner("list", "--format", "json", cwd=folder)
    assert (listed.code, listed.err) == (0, "")
    new, old = listed.json["batches"]
    assert [(one["verdict"], one["settled"], one["failed"]) for one in (new, old)] == [("pass", 1, 0), ("fail", 3, 1)]
    text = runner("list", "words", cwd=folder).out.splitlines()
    assert [line.split()[:4] for line in text[1:]] == [
        ["words", new["id"], "pass", "1/1"],
        ["words", old["id"], "fail", "3/3"],
    ]
    ran = runner("clean", "--keep", "1", cwd=folder)
    assert (ran.code, ran.out.split()[:2]) == (2, ["words", old["id"]])
    assert ran.err.endswith(
        " would be removed, and there is no terminal to ask at\n"
        "  help: add --yes to remove them, or --dry-run to only see them\n"
    )
    ran = runner("clean", "--keep", "1", "--older-than", "30", cwd=folder)
    assert (ran.code, ran.err) == (
        2,
        "error: --older-than '30': a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d\n"
        "  help: write --older-than 30d\n",
    )
    ran = runner("clean", "--keep", "1", "--older-than", "30d", "--yes", cwd=folder)
    assert (ran.code, ran.out) == (0, "nothing to remove\n")
    ran = runner("clean", "--keep", "1", "--yes", "--format", "json", cwd=folder)
    assert (ran.code, ran.err, [one["id"] for one in ran.json["removed"]]) == (0, "", [old["id"]])
    assert [one["id"] for one in runner("list", "--format", "json", cwd=folder).json["batches"]] == [new["id"]]


def test_a_live_batch_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    """Looking must disturb nothing, and nothing of it may be removed."""
    slow = WORDS.replace('text: "{{ row.text }}"', 'text: "{{ row.text }}", sleep: "{{ row.sleep | int }}"')
    slow = slow.replace("{text: horse}, {text: bad}", "{text: horse, sleep: 0}, {text: foal, sleep: 60}")
    slow = slow.replace('{text: "=1+1"}', "{text: mare, sleep: 60}")
    write(tmp_path, {"words.yaml": slow, "handler.py": HANDLER})
    assert runner("run", "words.yaml", "--limit", "1", "--quiet", cwd=tmp_path).code == 0
    before = (tmp_path / "batches/words/latest").resolve()
    with serving(tmp_path / "words.yaml") as server:
        batch = start("run", "words.yaml", "--local", server.url, "--drain", "0s", cwd=tmp_path, env=server.env)
        path = tmp_path / "batches/words/latest/results.jsonl"
        wait_until(lambda: path.resolve().parent != before and path.exists(), "the batch")
        wait_until(lambda: path.read_bytes().count(b"\n") == 1, "the first result")
        assert runner("results", "--fields", "row.text", cwd=tmp_path).out == '{"row.text":"horse"}\n'
        listed = runner("list", "--format", "json", cwd=tmp_path).json["batches"]
        assert [(one["verdict"], one["settled"], one["runs"]) for one in listed] == [("running", 1, 3), ("pass", 1, 1)]
        assert runner("show", "words", "1", cwd=tmp_path).out.startswith("run 1 of job upper: subm")
        ran = runner("clean", "words", "--keep", "0", "--unfinished", "--yes", cwd=tmp_path)
        assert (ran.code, ran.out) == (5, "")
        assert ran.err.startswith(f"error: another batch of 'words' is running: process {batch.pid} on ")
        assert before.is_dir()
        batch.send_signal(signal.SIGTERM)
        assert finish(batch).code == 143
