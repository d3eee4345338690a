"""Local files in inputs: from below the job file's folder, and known again in results."""

import base64
import hashlib
import os
import re
from pathlib import Path

import pytest
from job_files import opened, runs

from runner import files, values
from runner.errors import JobFileError
from runner.files import FileText, file_base64, file_data_uri, shown

PIXEL = bytes(range(256))


def job(template: str, *paths: str) -> dict[str, object]:
    """A job that reads the files at *paths*, a run each."""
    return {"rows": {"inline": [{"path": path} for path in paths]}, "input": {"image": template}}


def test_a_file_goes_into_the_input_as_base64_and_into_results_by_its_name(tmp_path: Path) -> None:
    """Megabytes are sent, and a line of results stays a line."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(PIXEL)
    (run,) = runs(tmp_path, job("{{ row.path | file_base64 }}", "images/a.png"))
    text = base64.b64encode(PIXEL).decode()
    assert run.input == {"image": text}
    assert values.dump(run.input) == values.dump({"image": text})
    digest = hashlib.sha256(PIXEL).hexdigest()
    assert shown(run.input) == {"image": {"file": "images/a.png", "sha256": digest}}


def test_the_key_is_that_of_the_content(tmp_path: Path) -> None:
    """A renamed file is the same run, a changed one another."""
    for name, data in (("a.png", b"1"), ("b.png", b"1"), ("c.png", b"2")):
        (tmp_path / name).write_bytes(data)
    one, other, changed = (runs(tmp_path, job("{{ row.path | file_base64 }}", f"{n}.png"))[0].key for n in "abc")
    assert one == other != changed
    (plain,) = runs(tmp_path, {"input": {"image": base64.b64encode(b"1").decode()}})
    assert plain.key == one


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("a.png", "image/png"), ("A.JPG", "image/jpeg"), ("a.wav", "audio/wav"), ("a", "application/octet-stream")],
)
def test_a_data_uri_names_the_media_type(tmp_path: Path, name: str, media_type: str) -> None:
    """By a table of our own: another machine's would give runs other keys."""
    (tmp_path / name).write_bytes(b"x")
    assert file_data_uri(name, str(tmp_path)) == f"data:{media_type};base64,eA=="


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.jpg", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("a", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.bin", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("a.mp4", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        ("a.m4a", b"\0\0\0\x20ftypM4A ", "audio/mp4"),
        ("a.txt", b"plain", "text/plain"),
        ("a.svg", b"<svg/>", "image/svg+xml"),
        ("a.npy", b"\x93NUMPY", "application/octet-stream"),
    ],
)
def test_the_content_of_a_file_says_more_than_its_name(tmp_path: Path, name: str, data: bytes, media_type: str) -> None:
    """A model that is told of a JPEG and gets a PNG fails, or worse."""
    (tmp_path / name).write_bytes(data)
    assert file_data_uri(name, str(tmp_path)) == f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def test_files_in_lists_and_mappings_are_known_again(tmp_path: Path) -> None:
    """Some handlers take several images."""
    (tmp_path / "a").write_bytes(b"x")
    template = "{{ [row.path | file_base64, {'b': row.path | file_data_uri}] }}"
    (run,) = runs(tmp_path, job(template, "a"))
    part = {"file": "a", "sha256": hashlib.sha256(b"x").hexdigest()}
    assert shown(run.input) == {"image": [part, {"b": part}]}


@pytest.mark.parametrize(
    "template",
    [
        "data:image/png;base64,{{ row.path | file_base64 }}",
        "{{ 'x' ~ (row.path | file_base64) }}",
        "{{ 'x' + (row.path | file_base64) }}",
        "{{ (row.path | file_base64) * 2 }}",
        "{{ '%s' % (row.path | file_base64) }}",
        "{{ [row.path | file_base64] | join }}",
        "{{ row.path | file_base64 | string }}",
    ],
)
def test_a_file_inside_a_text_is_refused(tmp_path: Path, template: str) -> None:
    """Results could not name the file any more, and would hold its megabytes."""
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(JobFileError, match="a file's content is a value of its own"):
        runs(tmp_path, job(template, "a"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.png", "there is no file 'absent.png' below the job file's folder"),
        ("a/b", "there is no file 'a/b' below the job file's folder"),
        ("../outside", "'../outside' is outside the job file's folder"),
        ("..", "'..' is outside the job file's folder"),
        ("link", "'link' is outside the job file's folder"),
        ("linked/outside", "'linked/outside' is outside the job file's folder"),
        ("/etc/hostname", "'/etc/hostname' is outside the job file's folder"),
        ("folder", "'folder' is a folder"),
        (".", "'.' is a folder"),
        ("pipe", "'pipe' is no regular file"),
        ("loop", "'loop' "),
        ("", "expected the path of a file"),
        (None, "expected the path of a file"),
        (["a"], "expected the path of a file"),
        ("a\0b", "a path can't have a NUL character in it"),
        ("x" * 5000, "'xxx"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_may_not_be_sent_says_why(tmp_path: Path, name: object, message: str) -> None:
    """Rows come from anywhere, and a request goes to somebody else's machine."""
    folder = tmp_path / "jobs"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (folder / "a").write_text("x")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        file_base64(name, str(folder))


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    """Data sets are often folders of links."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "jobs").symlink_to(tmp_path)
    assert file_base64("link", str(tmp_path / "jobs")) == "eA=="


def test_the_largest_file_fits_a_request(tmp_path: Path) -> None:
    """One byte more would be refused by RunPod, after it was sent."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(files.MAX_BYTES)
    assert len(file_base64("large", str(tmp_path))) == 10 * 1024 * 1024
    with (tmp_path / "large").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"'large' has more than 7\.5 MiB"):
        file_base64("large", str(tmp_path))


def test_nothing_but_the_content_is_what_it_is() -> None:
    """The mark must not change how a text compares or is looked up."""
    text = FileText.of("abc", file="a", sha256="0")
    assert text == "abc"
    assert {"abc": 1}[text] == 1
    assert shown(["abc", 1, None, {"a": text}]) == ["abc", 1, None, {"a": {"file": "a", "sha256": "0"}}]


def test_a_later_row_without_its_file_is_a_run_with_a_problem(tmp_path: Path) -> None:
    """One missing image of a thousand doesn't stop the night."""
    (tmp_path / "a").write_text("x")
    found = runs(tmp_path, job("{{ row.path | file_base64 }}", "a", "b"))
    assert [run.problem for run in found] == [
        None,
        "input.image: there is no file 'b' below the job file's folder",
    ]


def test_only_inputs_read_files(tmp_path: Path) -> None:
    """An expression that reads files would read them again for every row that is counted."""
    with pytest.raises(JobFileError, match="'file_base64' is for 'input' only"):
        opened(tmp_path, {"rows": {"inline": [{"a": 1}], "where": "('a' | file_base64) == 'x'"}})


def test_a_ledger_keeps_which_texts_came_from_files() -> None:
    """So that a resumed run's line has the reference, and not the megabytes."""
    text = FileText.of("aGk=", file="a.png", sha256="0" * 64)
    value = {"images": ["x", text], "mask": text, "n": 1}
    known = files.marks(value)
    assert known == [[["images", 1], "a.png", "0" * 64], [["mask"], "a.png", "0" * 64]]
    again = files.marked({"images": ["x", "aGk="], "mask": "aGk=", "n": 1}, known)
    assert files.shown(again) == files.shown(value)
    assert files.shown(files.marked("aGk=", files.marks(text))) == {"file": "a.png", "sha256": "0" * 64}
