"""Files, schemas and retries as users meet them: real batches on the real local endpoint, full of bad outputs."""

import base64
import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from terminal import lines, runner, write

from runner.batch import Folder

HANDLER = """
from pathlib import Path

def handler(job):
    given = job["input"]["gives"]
    if given == "nothing":
        return {}
    if given == "surrogate":
        return {"image": "data:,\\ud800"}
    if "calls" in job["input"]:
        calls = Path(job["input"]["calls"])
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        return given | {"calls": len(calls.read_text())}
    return given
"""

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


IMAGE = {"image": b64(PNG)}
BOMB = b64(bytes(3_000_000))
EACH = {"path": "lists/{{ run.index }}-{{ item_index }}.{{ ext }}", "for": "output.images", "base64": "{{ item }}"}
BY_TYPE = {"path": "uris/{{ run.index }}.{{ ext }}", "data_uri": "{{ output.image }}", "max_size": "1 KiB"}
NAMED = {"path": "{{ row.path }}", "base64": "{{ output.image }}", "max_size": "1 KiB"}
WITH_N = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}

GIVES: dict[str, list[Any]] = {
    "lists": [
        {"images": [b64(PNG), b64(b'{"a": 1}'), b64(b"hello")]},
        {"images": []},
        {"images": [b64(PNG), "no base64!", b64(PNG)]},
        {"images": b64(PNG)},
        IMAGE,
        {"images": [b64(PNG)] * 50},
    ],
    "uris": [
        {"image": f"data:application/x-msdownload;base64,{b64(PNG)}"},
        {"image": f"data:image/png;base64,{BOMB}"},
        {"image": "data:text/plain," + "%41" * 1_000_000},
        {"image": "data:image/png,%00%01"},
        {"image": "data:image/png;base64"},
        "surrogate",
    ],
    "paths": [IMAGE | {"n": n} for n in range(10)],
    "schemas": [{"n": 1}, {"n": "x" * 1_000_000}, {"m": 1}, [1], {"n": 1, "more": [[]]}, "nothing"],
    "nothing": ["nothing", {"n": 1}],
}
PATHS = ["../x", "/etc/x", "a\0b", "NUL.png", "b/.. /c", "größe", "GRÖSSE", "d/e", "d", "ok"]
JOBS: dict[str, dict[str, Any]] = {
    "lists": {"artifacts": [EACH]},
    "uris": {"artifacts": [BY_TYPE]},
    "paths": {"artifacts": [NAMED]},
    "schemas": {"output_schema": WITH_N},
    "nothing": {"success_when": "output is not defined"},
}

Told = list[dict[str, Any]]


def run(folder: Path, jobs: Mapping[str, Any], *, code: int) -> tuple[Folder, dict[str, Told]]:
    """Run *jobs*; the batch, and the lines of each job in the order of its plan."""
    endpoints = {"local": {"handler": "handler.py:handler", "workers": 3}}
    given = {name: {"endpoint": "local", "input": {"gives": "{{ row.gives }}"}} | job for name, job in jobs.items()}
    text = json.dumps({"version": 1, "name": "t", "endpoints": endpoints, "jobs": given})
    write(folder, {"handler.py": HANDLER, "job.yaml": text})
    ran = runner("run", "job.yaml", "--format", "json", cwd=folder)
    assert (ran.code, ran.err) == (code, "")
    batch = Folder((folder / "batches" / "t" / "latest").resolve())
    found: dict[str, Told] = {name: [] for name in jobs}
    for line in sorted(lines(batch.results), key=lambda line: int(line["index"])):
        found[line["job"]].append(line)
    return batch, found


def said(told: Told) -> list[str]:
    """The outcome of each run, and what is said of it."""
    return [f"{one['outcome']}: {one['error']['message']}" if one["error"] else one["outcome"] for one in told]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, dict[str, Told]]:
    """All of it in one batch: what is bad of one run must do no harm to any other."""
    jobs = {}
    for name, keys in JOBS.items():
        rows = [{"gives": gives} for gives in GIVES[name]]
        if name == "paths":
            paths = [*PATHS[:2], *(f"paths/{path}" for path in PATHS[2:])]
            rows = [row | {"path": path} for row, path in zip(rows, paths, strict=True)]
        jobs[name] = {"rows": {"inline": rows}, "concurrency": 1 if name == "paths" else 3} | keys
    return run(tmp_path_factory.mktemp("outputs"), jobs, code=1)


def test_each_item_of_a_list_is_a_file_of_its_type(batch: tuple[Folder, dict[str, Told]]) -> None:
    """The line has references; a list that can't be used says which item it is."""
    folder, found = batch
    told = found["lists"]
    assert said(told) == [
        "completed",
        "completed",
        "artifact_failed: artifacts.0: item 1: this is not base64: character '!' at 9",
        f"artifact_failed: artifacts.0.for: expected a list, found '{b64(PNG)[:57]}…'",
        "artifact_failed: artifacts.0.for: there is no 'images' here; did you mean 'image'?",
        "completed",
    ]
    assert told[0]["artifacts"] == [f"artifacts/lists/0-{name}" for name in ("0.png", "1.json", "2.txt")]
    contents = [(folder.path / path).read_bytes() for path in told[0]["artifacts"]]
    assert contents == [PNG, b'{"a": 1}', b"hello"]
    references = [
        {"file": path, "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in zip(told[0]["artifacts"], contents, strict=True)
    ]
    assert told[0]["output"] == {"images": references}
    assert (told[1]["output"], told[1]["artifacts"]) == ({"images": []}, [])
    assert [one["output"] for one in told[2:5]] == GIVES["lists"][2:5]
    assert len({path for path in told[5]["artifacts"] if path.endswith(".png")}) == 50


def test_what_an_image_is_said_to_be_and_how_large_it_is_decides_nothing(
    batch: tuple[Folder, dict[str, Told]],
) -> None:
    """A lying type names no file, and a bomb is not decoded."""
    folder, found = batch
    assert said(found["uris"]) == [
        "completed",
        "artifact_failed: an artifact of 2.9 MiB, and 1.0 KiB is the most",
        "artifact_failed: an artifact of 976.6 KiB, and 1.0 KiB is the most",
        "completed",
        "artifact_failed: expected a data URI, found 'data:image/png;base64'",
        "artifact_failed: this text has a lone surrogate, which no file in UTF-8 can have",
    ]
    assert sorted(path.name for path in (folder.path / "artifacts/uris").iterdir()) == ["0.png", "3.bin"]


def test_a_path_that_leads_elsewhere_or_is_taken_fails_its_run_alone(batch: tuple[Folder, dict[str, Told]]) -> None:
    """On this machine and on any other that the batch may be copied to."""
    folder, found = batch
    away = "artifacts.0.path: an artifact's path can't leave its folder: '..' leads out of it: '../x'"
    device = "artifacts.0.path: 'NUL.png' is a device on Windows, and no file can have its name: 'paths/NUL.png'"
    assert said(found["paths"]) == [
        f"artifact_failed: {away}",
        "artifact_failed: artifacts.0.path: an artifact's path is relative: '/etc/x'",
        "artifact_failed: artifacts.0.path: character U+0000 can't be part of a path: 'paths/a\0b'",
        f"artifact_failed: {device}",
        "artifact_failed: artifacts.0.path: '.. ' is no part of a path: 'paths/b/.. /c'",
        "completed",
        "artifact_failed: artifacts/paths/größe is an artifact of run 5 of job 'paths' already",
        "completed",
        "artifact_failed: 'artifacts/paths/d' can't be a file: is a directory",
        "completed",
    ]
    root = folder.path / "artifacts/paths"
    made = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert made == ["d/e", "größe", "ok"]
    outside = {path.name for path in folder.path.parent.parent.parent.iterdir()}
    assert outside == {"batches", "handler.py", "job.yaml"} | ({"__pycache__"} & outside)


def test_an_output_that_does_not_fit_its_schema_is_no_success(batch: tuple[Folder, dict[str, Told]]) -> None:
    """Its message is short, its output whole."""
    told = batch[1]["schemas"]
    assert said(told) == [
        "completed",
        f"check_failed: output_schema: output.n: expected a whole number, found '{'x' * 57}…'",
        "check_failed: output_schema: output: there is no 'n'",
        "check_failed: output_schema: output: expected a mapping, found a list",
        "completed",
        "completed_without_output: RunPod says COMPLETED and gives no output",
    ]
    assert [one["output"] for one in told[:5]] == GIVES["schemas"][:5]


def test_no_output_is_a_success_where_the_job_file_says_so(batch: tuple[Folder, dict[str, Told]]) -> None:
    """A job that writes to a bucket has nothing to give back."""
    told = batch[1]["nothing"]
    assert said(told) == ["completed", "check_failed: success_when is false"]
    assert (told[0]["state"], "output" in told[0]) == ("succeeded", False)


def test_nothing_half_made_is_left(batch: tuple[Folder, dict[str, Told]]) -> None:
    """Every file belongs to a run that succeeded."""
    folder, found = batch
    known = {path for told in found.values() for one in told for path in one["artifacts"]}
    root = folder.path
    assert {str(path.relative_to(root)) for path in (root / "artifacts").rglob("*") if path.is_file()} == known


def test_a_file_is_shown_with_its_size_and_digest(batch: tuple[Folder, dict[str, Told]]) -> None:
    """So that a copy can be told from what was paid for."""
    folder, _ = batch
    ran = runner("show", folder.path, "lists:0", cwd=folder.path)
    assert ran.code == 0
    sha256 = hashlib.sha256(PNG).hexdigest()
    assert f"\n  artifacts  artifacts/lists/0-0.png, 208 B, sha256 {sha256}\n" in ran.out
    files = runner("show", folder.path, "lists:0", "--format", "json", cwd=folder.path).json["files"]
    assert files[0] == {"path": "artifacts/lists/0-0.png", "sha256": sha256, "size_bytes": 208}
    assert "files" not in runner("show", folder.path, "lists:1", "--format", "json", cwd=folder.path).json


def test_retry_when_decides_what_is_tried_again(tmp_path: Path) -> None:
    """By what the worker said: no list of outcomes can tell a busy one from one that will never do."""
    gives = [{"busy": True, "done_at": 2}, {"busy": False}, {"busy": True, "done_at": 9}, {"idle": True}]
    job = {
        "rows": {"inline": [{"n": n, "gives": one} for n, one in enumerate(gives)]},
        "input": {"gives": "{{ row.gives }}", "calls": f"{tmp_path}/calls-{{{{ row.n }}}}"},
        "success_when": "output.calls == output.done_at | default(0)",
        "retry": {"attempts": 3, "wait_initial": "0s"},
        "retry_when": "output.busy",
    }
    _, found = run(tmp_path, {"job": job}, code=1)
    assert said(found["job"]) == [
        "completed",
        "check_failed: success_when is false",
        "check_failed: success_when is false",
        "check_failed: success_when is false; retry_when: there is no 'busy' here; known: 'idle', 'calls'",
    ]
    assert [one["attempts"] for one in found["job"]] == [2, 1, 3, 1]
    assert [len((tmp_path / f"calls-{n}").read_text()) for n in range(4)] == [2, 1, 3, 1]


INSIDE = "its host is not this machine, and from others only https is fetched"


class Pages(BaseHTTPRequestHandler):
    """Gives what *pages* has at a path: media type and content, a redirect where there is no content."""

    pages: Mapping[str, tuple[str, bytes]] = {
        "/lying": ("application/pdf", PNG),
        "/pcm": ("audio/pcm; rate=16000", b"\xe4\0\xff\x01"),
        "/large": ("image/png", PNG + bytes(2000)),
        "/away": ("http://10.0.0.1/secret", b""),
    }

    def do_GET(self) -> None:
        kind, content = self.pages[self.path]
        self.send_response(200 if content else 302)
        self.send_header("Content-Type" if content else "Location", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_each_url_of_a_list_is_fetched_within_the_limits(tmp_path: Path) -> None:
    """What a server says of its content is believed where the content says nothing, and no URL leads inside."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        lists = [["/lying", "/pcm"], ["/lying", "/large"], ["/lying", "/away"], [], ["/lying"]]
        artifact = {
            "path": "{{ run.index }}-{{ item_index }}.{{ ext }}",
            "for": "output.urls",
            "url": "{{ item }}",
            "max_size": "2 KB",
        }
        rows = [{"gives": {"urls": [url + path for path in paths]}} for paths in lists]
        folder, found = run(tmp_path, {"job": {"rows": {"inline": rows}, "artifacts": [artifact]}}, code=1)
        server.shutdown()
    assert said(found["job"]) == [
        "completed",
        f"artifact_failed: artifacts.0: item 1: {url}/large: it is over 2.0 KiB",
        f"artifact_failed: artifacts.0: item 1: http://10.0.0.1/secret: {INSIDE}",
        "completed",
        "completed",
    ]
    made = {path.name for path in (folder.path / "artifacts").iterdir()}
    assert made == {"0-0.png", "0-1.pcm", "4-0.png"}
    assert [one["output"] for one in found["job"]] == [row["gives"] for row in rows]
