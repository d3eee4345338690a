"""Rows that are the files of a folder: which they are, in which order, and which may be sent."""

import base64
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from job_files import opened, runs, write
from row_sources import never
from terminal import runner

from runner.drift import same_plan
from runner.errors import JobFileError, UsageError
from runner.inputs.folder import FolderFiles, listed
from runner.options import Options
from runner.plan import Counter, make_plan


def put(folder: Path, *names: str) -> None:
    """Files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def told(folder: Path, rows: dict[str, Any]) -> str:
    """What is wrong with *rows*."""
    with pytest.raises(JobFileError) as raised:
        opened(folder, {"rows": rows})
    return "; ".join(problem.message for problem in raised.value.problems)


def test_a_row_is_what_a_template_needs_of_a_file(tmp_path: Path) -> None:
    """The path is the one that `file_base64` takes, and the digest the one that anybody can check."""
    put(tmp_path, "photos/a horse.tar.PNG")
    given = {"image": "{{ row.path | file_base64 }}", "name": "{{ row.stem }}"}
    (run,) = runs(tmp_path, {"rows": {"folder": "photos/"}, "input": given})
    data = b"photos/a horse.tar.PNG"
    assert run.row == {
        "path": "photos/a horse.tar.PNG",
        "name": "a horse.tar.PNG",
        "stem": "a horse.tar",
        "suffix": ".PNG",
        "size_bytes": len(data),
        "sha256": sha256(data).hexdigest(),
    }
    assert run.input == {"image": base64.b64encode(data).decode(), "name": "a horse.tar"}


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*", ["10.png", "2.png", "B.jpg", "a.png", "ä.png"]),
        ("*.png", ["10.png", "2.png", "a.png", "ä.png"]),
        ("?.png", ["2.png", "a.png", "ä.png"]),
        ("[ab].*", ["a.png"]),
        ("*.{png,jpg}", ["10.png", "2.png", "B.jpg", "a.png", "ä.png"]),
        ("**", ["10.png", "2.png", "B.jpg", "a.png", "sub/a.png", "sub/deep/a.png", "sub/deep/b.txt", "ä.png"]),
        ("**/*.png", ["10.png", "2.png", "a.png", "sub/a.png", "sub/deep/a.png", "ä.png"]),
        ("sub/**/*.png", ["sub/a.png", "sub/deep/a.png"]),
        ("**/deep/*", ["sub/deep/a.png", "sub/deep/b.txt"]),
        ("{sub,nowhere}/*", ["sub/a.png"]),
        ("*.PNG", []),
        ("sub", []),
    ],
)
def test_a_glob_says_which_files(tmp_path: Path, glob: str, names: list[str]) -> None:
    """In the order of code points, the same on every machine; what is hidden, or in a hidden folder, is none."""
    put(tmp_path, "2.png", "10.png", "a.png", "B.jpg", "ä.png", "sub/a.png", "sub/deep/a.png", "sub/deep/b.txt")
    put(tmp_path, ".hidden.png", ".git/a.png", "sub/.cache/a.png")
    assert listed(tmp_path, ".", glob) == names


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    """Data sets are often folders of links."""
    put(tmp_path, "store/1.png", "photos/2.png")
    (tmp_path / "photos/1.png").symlink_to(tmp_path / "store/1.png")
    (tmp_path / "photos/all").symlink_to(tmp_path / "store")
    (tmp_path / "photos/self").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/above").symlink_to(tmp_path)
    (tmp_path / "store/back").symlink_to(tmp_path / "photos")
    assert listed(tmp_path, "photos", "**/*.png") == ["1.png", "2.png", "all/1.png"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"folder": "absent"}, "there is no folder 'absent'"),
        ({"folder": "photos/a.png"}, "'photos/a.png' is no folder"),
        ({"folder": ".."}, "'..' is outside the job file's folder: only files below it can be sent"),
        ({"folder": "out"}, "'out' is outside the job file's folder: only files below it can be sent"),
        ({"folder": "/tmp"}, "'/tmp' is outside the job file's folder: only files below it can be sent"),
        ({"folder": "photos", "glob": "*.jpg"}, "no file in 'photos' matches '*.jpg'"),
        ({"folder": "photos", "glob": "../*"}, "the glob '../*' leads out of the folder"),
        ({"folder": "photos", "glob": "/*"}, "the glob '/*' leads out of the folder"),
        (
            {"folder": "linked"},
            "'linked/secret' is a link out of the job file's folder: only what is below it can be sent",
        ),
        (
            {"folder": "deep", "glob": "**/*.png"},
            "'deep/out' is a link out of the job file's folder: only what is below it can be sent",
        ),
        ({"folder": "broken"}, "'broken/link' is a link that leads nowhere"),
        ({"folder": "piped"}, "'piped/pipe' is no regular file"),
        ({"glob": "*.png"}, "'glob' needs a 'folder'"),
        ({"folder": "photos", "file": "a.csv"}, "'file' and 'folder' can't stand together"),
        ({"folder": "photos", "inline": [{"a": 1}]}, "'inline' and 'folder' can't stand together"),
    ],
    ids=str,
)
def test_what_may_not_be_sent_is_told_before_anything_is_read(
    tmp_path: Path, rows: dict[str, Any], message: str
) -> None:
    """A folder of other people's files would be a way to have them sent to somebody else's machine."""
    folder = tmp_path / "jobs"
    put(folder, "photos/a.png", "a.csv", "deep/a.txt")
    (folder / "a.csv").write_text("a\n1\n")
    put(tmp_path, "secret", "more/a.png")
    for name in ("linked", "broken", "piped"):
        (folder / name).mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "deep/out").symlink_to(tmp_path / "more")
    (folder / "linked/secret").symlink_to(tmp_path / "secret")
    (folder / "broken/link").symlink_to("nowhere")
    os.mkfifo(folder / "piped/pipe")
    assert told(folder, rows) == message


def test_a_name_that_no_json_could_hold_is_told(tmp_path: Path) -> None:
    """Linux takes any bytes for a name."""
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/\xff.png")).touch()
    assert told(tmp_path, {"folder": "photos"}) == "the name of the file 'photos/\\udcff.png' is no UTF-8"


@pytest.mark.parametrize("key", ["row.pth", "row.Name", "row.file"])
def test_a_key_that_no_file_has_is_told(tmp_path: Path, key: str) -> None:
    """As of inline rows: what is known beforehand is checked beforehand."""
    put(tmp_path, "photos/a.png")
    with pytest.raises(JobFileError, match=f"the rows have no '{key.partition('.')[2]}'"):
        opened(tmp_path, {"rows": {"folder": "photos"}, "input": {"x": f"{{{{ {key} }}}}"}})


def test_the_manifest_knows_the_files_by_one_digest(tmp_path: Path) -> None:
    """Of what sha256sum prints: a file that is changed, renamed or added is another digest, and another plan."""
    put(tmp_path, "photos/a.png", "photos/b.png", "photos/b.txt")
    jobs = {
        name: {"endpoint": "local", "rows": {"folder": "photos", "glob": glob}, "input": {"x": "{{ row.sha256 }}"}}
        for name, glob in (("all", "*"), ("some", "*.png"))
    }
    plan = make_plan(opened(tmp_path, {}, jobs=jobs))
    printed = "".join(f"{sha256(f'photos/{name}'.encode()).hexdigest()}  {name}\n" for name in ("a.png", "b.png"))
    every, some = plan.inputs
    assert (every.path, every.rows) == (tmp_path / "photos/*", 3)
    assert (some.path, some.rows) == (tmp_path / "photos/*.png", 2)
    assert (some.sha256, some.size_bytes) == (sha256(printed.encode()).hexdigest(), 2 * len("photos/a.png"))
    for change in (
        lambda: put(tmp_path, "photos/c.png"),
        lambda: (tmp_path / "photos/c.png").rename(tmp_path / "photos/d.png"),
        lambda: (tmp_path / "photos/d.png").write_text("another"),
        lambda: (tmp_path / "photos/d.png").unlink(),
    ):
        before = FolderFiles(tmp_path, "photos", "*.png")
        list(before.rows(never))
        known = {file.path.absolute(): file for file in before.files}
        assert FolderFiles(tmp_path, "photos", "*.png").recall(known)
        change()
        assert not FolderFiles(tmp_path, "photos", "*.png").recall(known)


def test_a_file_that_changes_while_a_batch_runs_ends_it_in_order(tmp_path: Path) -> None:
    """What would be sent then is not what the plan counted."""
    put(tmp_path, "photos/a.png", "photos/b.png")
    job = {"rows": {"folder": "photos"}, "input": {"x": "{{ row.path | file_base64 }}"}}
    plan = make_plan(opened(tmp_path, job)).jobs["only"]
    expanded = plan.expand(Counter())
    next(expanded)
    (tmp_path / "photos/b.png").write_text("quite another")
    with pytest.raises(UsageError, match=r"b\.png' changed while it was being read"):
        list(expanded)


def test_where_sees_a_file_and_its_size(tmp_path: Path) -> None:
    """So that what is too large for a request is left out, and told by nobody."""
    put(tmp_path, "photos/a.png", "photos/b.png")
    (tmp_path / "photos/b.png").write_bytes(b"x" * 1000)
    rows = {"folder": "photos", "where": "row.size_bytes < 1000 and row.suffix == '.png'"}
    assert [run.row["name"] for run in runs(tmp_path, {"rows": rows}) if run.row] == ["a.png"]


def test_a_batch_goes_on_and_is_repeated_with_the_same_files_only(tmp_path: Path) -> None:
    """All of them are one input of its manifest: told when one was changed, and not read for nothing when none was."""
    put(tmp_path, "pyproject.toml", "photos/a.png", "photos/b.png")
    job = {"rows": {"folder": "photos"}, "input": {"x": "{{ row.path | file_base64 }}"}}
    path = write(tmp_path, job)
    assert runner("run", path, cwd=tmp_path).code == 0
    told = json.loads((tmp_path / "batches/t/latest/manifest.json").read_text())
    assert [one["path"] for one in told["inputs"]] == [str(tmp_path / "photos/*")]
    job_file, chosen = opened(tmp_path, job), Options(path).chosen
    plan = same_plan(told, job_file, chosen, only=(), stdin=None)
    assert plan is not None
    assert [run.key for run in plan.jobs["only"].expand(Counter())] == [run.key for run in runs(tmp_path, job)]
    again = runner("run", "--repeat", "t", cwd=tmp_path)
    assert again.code == 0, again.err
    (tmp_path / "photos/b.png").write_text("another")
    assert same_plan(told, job_file, chosen, only=(), stdin=None) is None
    refused = runner("run", "--repeat", "t", cwd=tmp_path)
    assert refused.code == 2
    assert f"{tmp_path}/photos/* has changed" in refused.err
