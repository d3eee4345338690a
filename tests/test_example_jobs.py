"""The job files that come with the project: each is valid, plans what it says, and runs as its comments promise."""

import base64
import importlib.util
import re
import shutil
import struct
import subprocess
import zlib
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from terminal import DEADLINE_S, ROOT, lines, runner, serving, write

from runner.check import open_job_file

JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
RUNS = {
    "grid": {"people": 6, "sizes": 8},
    "hello": {"queued": 1, "held": 1, "streamed": 1},
    "horses": {"photos": 12},
    "nightly": {"captions": 3},
    "pipeline": {"captions": 4, "images": 12, "sheet": 1},
}
LATER = ("images", "sheet")
"""Jobs whose rows are another job's runs."""


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_file_is_valid_and_named_after_itself(path: Path) -> None:
    """Without an account, as in CI: all that may be missing is what its variables hold."""
    job_file = open_job_file(path, env={})
    assert job_file.name == path.stem
    assert job_file.description
    odd = [
        one.message for one in job_file.warnings if not re.fullmatch(r"environment variable .* is not set", one.message)
    ]
    assert odd == []


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_an_editor_finds_the_schema(path: Path) -> None:
    """The first line says where it is, as seen from the file."""
    said = re.match(r"# yaml-language-server: \$schema=(.+)\n", path.read_text())
    assert said is not None
    assert (path.parent / said[1]).resolve() == ROOT / "schemas/job.schema.json"


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_file_plans_so_many_runs(path: Path, tmp_path: Path) -> None:
    """From whatever folder it is asked for."""
    planned = runner("plan", path, "--format", "json", cwd=tmp_path)
    assert planned.code == 0, planned.err
    jobs = planned.json["jobs"]
    assert {name: job["runs"] for name, job in jobs.items()} == RUNS[path.stem]
    assert planned.json["runs"] == sum(RUNS[path.stem].values())
    known = [job for name, job in jobs.items() if name not in LATER]  # of the others nobody knows the rows yet
    assert all(set(job["first"]) >= {"input"} and len(job["keys"]) == min(3, job["runs"]) for job in known)


def test_the_grid_runs_in_the_order_that_its_comments_count(tmp_path: Path) -> None:
    """Rows, then the matrix, what `include` adds last, each repeated in place."""
    ran = runner("run", ROOT / "jobs/grid.yaml", "--output-dir", tmp_path, cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = sorted(lines(tmp_path / "grid/latest/results.jsonl"), key=lambda one: (one["job"], one["index"]))
    assert ["".join(one["output"]) for one in found] == [
        *("Hello, Grace!", "Hola, Grace!", "Hello, Katherine!", "Hola, Katherine!", "Hello, Margaret!"),
        *("Hola, Margaret!", "Hello!", "Hello!", "Hello?", "Hello?", "Hello!Hello!", "Hello!Hello!"),
        *("Hello.Hello.Hello.", "Hello.Hello.Hello."),
    ]


def test_the_pipeline_ends_with_a_sheet_of_all_pictures(tmp_path: Path) -> None:
    """Each of them at its place, pixel by pixel."""
    ran = runner("run", ROOT / "jobs/pipeline.yaml", "--output-dir", tmp_path, cwd=tmp_path)
    assert ran.code == 0, ran.err
    batch = tmp_path / "pipeline/latest"
    names = [f"{name}-{seed}" for name in ("meadow", "dunes", "snow", "moon") for seed in (1, 2, 3)]
    width, height, seen = pixels((batch / "artifacts/sheet.png").read_bytes())
    assert (width, height) == (4 + 3 * 100, 4 + 4 * 68)
    for number, name in enumerate(names):
        left, top = 4 + number % 3 * 100, 4 + number // 3 * 68
        across, down, picture = pixels((batch / f"artifacts/images/{name}.png").read_bytes())
        assert (across, down) == (96, 64)
        for y in range(down):
            start = ((top + y) * width + left) * 3
            assert seen[start : start + 96 * 3] == picture[y * 96 * 3 : (y + 1) * 96 * 3], (name, y)


def pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of a PNG of 8 bits a channel, read by its specification."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (check,) = struct.unpack_from(">I", data, at + 8 + length)
        assert check == zlib.crc32(kind + body), kind
        chunks[kind] = chunks.get(kind, b"") + body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert form == [8, 2, 0, 0, 0]  # RGB, not interlaced
    scanlines = zlib.decompress(chunks[b"IDAT"])
    assert len(scanlines) == height * (1 + 3 * width)
    starts = range(0, len(scanlines), 1 + 3 * width)
    assert {scanlines[start] for start in starts} == {0}  # no filter
    return width, height, b"".join(scanlines[start + 1 : start + 1 + 3 * width] for start in starts)


def test_horses_are_twelve_pictures(tmp_path: Path) -> None:
    """CSV x seeds to PNG files, the results naming them in place of a megabyte of base64."""
    ran = runner("run", ROOT / "jobs/horses.yaml", "--output-dir", tmp_path, cwd=tmp_path)
    assert ran.code == 0, ran.err
    batch = tmp_path / "horses/latest"
    found = sorted(lines(batch / "results.jsonl"), key=lambda one: one["index"])
    names = [name for name in ("meadow", "dunes", "snow", "moon") for _ in range(3)]
    expected = [f"artifacts/images/{n}-{name}-{n % 3 + 1}.png" for n, name in enumerate(names)]
    assert [one["artifacts"] for one in found] == [[path] for path in expected]
    assert sorted(path.relative_to(batch).as_posix() for path in batch.glob("artifacts/**/*.png")) == sorted(expected)
    pictures = set()
    for one, path in zip(found, expected, strict=True):
        data = (batch / path).read_bytes()
        assert one["output"] == {
            "image": {"file": path, "sha256": sha256(data).hexdigest()},
            "width": 96,
            "height": 64,
            "seed": one["matrix"]["seed"],
        }
        width, height, seen = pixels(data)
        assert (width, height) == (96, 64)
        pictures.add(seen)
        if importlib.util.find_spec("PIL") is not None:
            from PIL import Image  # type: ignore[import-not-found, unused-ignore]

            with Image.open(batch / path) as image:
                assert (image.format, image.mode, image.size, image.tobytes()) == ("PNG", "RGB", (96, 64), seen)
    assert len(pictures) == 12


@pytest.fixture(scope="module")
def horse() -> ModuleType:
    """The handler's module."""
    spec = importlib.util.spec_from_file_location("horse", ROOT / "jobs/handlers/horse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_picture_is_a_function_of_prompt_and_seed(horse: ModuleType) -> None:
    """As for a model: who runs it again gets the same horse, and another seed is another one."""

    def drawn(**given: Any) -> bytes:
        image: str = horse.handler({"input": {"prompt": "a horse", "seed": 1} | given})["image"]
        return pixels(base64.b64decode(image, validate=True))[2]

    assert drawn() == drawn() == drawn(style="noon")
    assert len({drawn(), drawn(seed=2), drawn(prompt="a cow"), drawn(style="night")}) == 4


def test_an_unknown_style_fails_with_the_known_ones(horse: ModuleType) -> None:
    """The run's error is all that its author sees."""
    with pytest.raises(ValueError, match="unknown style 'oil', known: dawn, noon, dusk, night"):
        horse.handler({"input": {"prompt": "a horse", "style": "oil", "seed": 1}})


CAPTIONS = """\
version: 1
name: stand-in
endpoints:
  captions: {handler: "captions.py:handler"}
jobs:
  captions: {endpoint: captions, input: {x: 1}}
"""
CAPTION = 'def handler(job):\n    return {"caption": job["input"]["prompt"]}\n'
BROKEN = 'def handler(job):\n    return {"error_code": 7}\n'


def crontab_line() -> str:
    """The command that cron runs, from the comments of nightly.yaml."""
    (line,) = re.findall(r"^#   15 2 \* \* \*  (.+)$", (ROOT / "jobs/nightly.yaml").read_text(), re.MULTILINE)
    assert "%" not in line  # cron would end the line there
    return str(line)


@pytest.mark.parametrize(
    ("handler", "code", "said"),
    [(CAPTION, 0, r""), (BROKEN, 1, r"fail: nightly \S+\n(.*\n)+.*/batches/nightly/\S+\n")],
    ids=["well", "not well"],
)
def test_the_crontab_line_is_silent_when_all_is_well_and_mails_when_not(
    tmp_path: Path, handler: str, code: int, said: str
) -> None:
    """In cron's own empty environment, with a stand-in for the endpoint; what is printed is the mail."""
    write(tmp_path, {"stand-in/stand-in.yaml": CAPTIONS, "stand-in/captions.py": handler, "shop/pyproject.toml": ""})
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "jobs", shop / "jobs")
    (shop / ".venv").symlink_to(ROOT / ".venv")
    with serving(tmp_path / "stand-in/stand-in.yaml") as server:
        job_file = shop / "jobs/nightly.yaml"
        text = job_file.read_text().replace("    id: ", f"    base_url: {server.url}\n    id: ")
        job_file.write_text(text)
        (shop / "nightly.env").write_text(f"RUNPOD_API_KEY={server.token}\nNIGHTLY_ENDPOINT_ID=captions\n")
        command = crontab_line().replace("/srv/shop", str(shop))
        bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
        ran = subprocess.run(
            ["/bin/sh", "-c", command],
            env=bare,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert re.fullmatch(said, ran.stderr), ran.stderr
    found = lines(shop / "batches/nightly/latest/results.jsonl")
    assert sorted(one["row"]["sku"] for one in found) == ["H-001", "H-002", "H-004"]


def test_the_crontab_line_mails_the_place_of_a_variable_that_is_not_set(tmp_path: Path) -> None:
    """The commonest slip of a first night: nightly.env lacks one."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "nightly.env").write_text("RUNPOD_API_KEY=key-of-nobody\n")
    command = crontab_line().replace("/srv/shop", str(tmp_path))
    ran = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "environment variable 'NIGHTLY_ENDPOINT_ID' is not set" in ran.stderr
    assert not (tmp_path / "batches").exists()
