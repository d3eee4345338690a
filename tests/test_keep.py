"""How many ended batches are kept: what goes when another one ends, and what never does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, an_ending, carried
from old_batches import MIXED, a_batch, mixed
from terminal import Ran, runner, write

from runner import keep as module
from runner.batch import Folder, newest_first
from runner.errors import RecordError
from runner.spec import Keep
from runner.states import Outcome, Verdict
from runner.values import dump

ECHO = """\
def handler(job):
    if job["input"]["fails"]:
        raise ValueError("no horse")
    return 1
"""

JOB_FILE = """\
version: 1
name: one
endpoints: {local: {handler: "echo.py:handler"}}
vars: {fails: false}
jobs: {job: {endpoint: local, input: {fails: "{{ vars.fails }}"}}}
outputs: {keep: {succeeded: 2, failed: 1}}
"""


def some(outputs: Path, verdicts: Sequence[Verdict | None]) -> list[Folder]:
    """A batch a day with each of these *verdicts*, the oldest first; `latest` is the last."""
    found = []
    for number, verdict in enumerate(verdicts):
        ending = an_ending() if verdict is Verdict.PASS else an_ending(Outcome.FAILED)
        id_ = f"202701{10 + number}T080000Z-0000"
        found.append(a_batch(outputs, carried(a_run(), ending), id_=id_, verdict=verdict))
    return found


def left(outputs: Path) -> list[int]:
    """The days of the batches that are left."""
    return sorted(int(folder.id[6:8]) for folder in newest_first(outputs / "horses"))


P, F, S = Verdict.PASS, Verdict.FAIL, Verdict.STOPPED


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(), [10, 11, 12, 13, 14, 15]),
        (Keep(succeeded=1), [11, 12, 14, 15]),
        (Keep(succeeded=2), [11, 12, 13, 14, 15]),
        (Keep(failed=1), [10, 13, 14, 15]),
        (Keep(succeeded=1, failed=1), [14, 15]),
        (Keep(succeeded=9, failed=9), [10, 11, 12, 13, 14, 15]),
    ],
    ids=str,
)
def test_the_newest_of_each_kind_are_kept(tmp_path: Path, keep: Keep, expected: list[int]) -> None:
    """A month of good nights must not push out the bad one that somebody looks into."""
    batches = some(tmp_path, [P, F, S, P, F, P])
    assert module.apply(keep, batches[-1]) == []
    assert left(tmp_path) == expected


def test_an_unfinished_batch_or_one_that_nobody_can_read_stays(tmp_path: Path) -> None:
    """Its runs may be at RunPod, paid for."""
    a_batch(tmp_path, mixed(), planned=MIXED, id_="20270101T080000Z-0000", verdict=Verdict.INTERRUPTED)
    a_batch(tmp_path, carried(a_run()), id_="20270102T080000Z-0000", verdict=None)
    damaged = a_batch(tmp_path, id_="20270103T080000Z-0000")
    damaged.ledger.write_bytes(b"no ledger")
    batches = some(tmp_path, [P, P])
    assert module.apply(Keep(succeeded=1, failed=1), batches[-1]) == []
    assert left(tmp_path) == [1, 2, 3, 11]


def test_what_is_referred_to_stays(tmp_path: Path) -> None:
    """The one just ended, also when it is an old one; what `latest` leads to; and what a newer one ran again."""
    batches = some(tmp_path, [P, P, P, P, P])
    again = batches[3]
    again.manifest.write_bytes(dump({"name": "horses", "repeats": batches[1].id}))
    assert module.apply(Keep(succeeded=1), batches[0]) == []
    assert left(tmp_path) == [10, 11, 14]


def test_nothing_but_batches_is_touched(tmp_path: Path) -> None:
    """Links, copies under other names and files of people, wherever they lead."""
    batches = some(tmp_path / "elsewhere", [P, P])
    root = tmp_path / "horses"
    root.mkdir()
    ended = some(tmp_path, [P, P])[-1]
    (root / "20270101T080000Z-0000").symlink_to(batches[0].path)
    (root / ".removing-x").symlink_to(batches[0].path)
    (root / "20270102T080000Z-0000").mkdir()
    (root / "before the change").mkdir()
    (root / "notes.txt").touch()
    (root / ".removing-20270103T080000Z-0000").mkdir()
    assert module.apply(Keep(succeeded=1), ended) == []
    assert sorted(path.name for path in root.iterdir()) == [
        ".removing-x",
        "20270101T080000Z-0000",
        "20270102T080000Z-0000",
        "20270111T080000Z-0000",
        "before the change",
        "latest",
        "notes.txt",
    ]
    assert left(tmp_path / "elsewhere") == [10, 11]


def test_a_linked_folder_is_left_and_said(tmp_path: Path) -> None:
    """As `runner clean` does."""
    ended = some(tmp_path / "elsewhere", [P, P])[-1]
    (tmp_path / "horses").symlink_to(tmp_path / "elsewhere/horses")
    linked = Folder(tmp_path / "horses" / ended.id)
    assert module.apply(Keep(succeeded=1), linked) == [
        f"note: {tmp_path}/horses is a link, so no old batch is removed there"
    ]
    assert left(tmp_path / "elsewhere") == [10, 11]


def test_what_can_not_be_removed_is_said_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch has ended as it has; but a disk that fills up must be known of."""

    def refuse(path: Path) -> None:
        raise RecordError(f"{path} can't be removed: Permission denied")

    batches = some(tmp_path, [P, P])
    monkeypatch.setattr(module, "remove", refuse)
    assert module.apply(Keep(succeeded=1), batches[-1]) == [
        f"note: old batches are left: {batches[0].path} can't be removed: Permission denied"
    ]
    assert left(tmp_path) == [10, 11]


def ids(folder: Path) -> list[str]:
    """The batches that the job file of `JOB_FILE` has."""
    return [one.id for one in newest_first(folder / "batches/one")]


def ran(folder: Path, *words: str, **env: Any) -> Ran:
    """``runner run`` of it."""
    return runner("run", "one.yaml", *words, cwd=folder, env=env)


def test_a_batch_that_ends_removes_older_ones_and_says_so_in_its_log(tmp_path: Path) -> None:
    """Silently for cron, with -v for who wants to see it."""
    write(tmp_path, {"one.yaml": JOB_FILE, "echo.py": ECHO})
    for _ in range(2):
        assert ran(tmp_path, "--quiet") == Ran(0, "", "")
    assert ran(tmp_path, "--quiet", "--var", "fails=true").code == 1
    before = ids(tmp_path)
    assert len(before) == 3
    assert ran(tmp_path, "--quiet") == Ran(0, "", "")
    now = ids(tmp_path)
    assert now[1:] == before[:2]
    log = (tmp_path / "batches/one" / now[0] / "log.jsonl").read_text()
    assert f'"batch":"{before[2]}"' in log.replace(": ", ":")
    assert "old batch removed" in log
    said = ran(tmp_path, "-v")
    assert said.code == 0
    assert "old batch removed" in said.err
    assert len(ids(tmp_path)) == 3
    assert (tmp_path / "batches/one/latest").readlink() == Path(ids(tmp_path)[0])


def test_without_it_all_are_kept(tmp_path: Path) -> None:
    """Nothing is ever removed that nobody asked to be."""
    write(tmp_path, {"one.yaml": JOB_FILE.rpartition("outputs")[0], "echo.py": ECHO})
    for _ in range(4):
        assert ran(tmp_path, "--quiet") == Ran(0, "", "")
    assert len(ids(tmp_path)) == 4
