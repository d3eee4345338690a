"""What people do to files between two processes of one batch: they edit the data, they delete, cut, or overwrite."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner.ledger import Ledger
from torture.cases import FEW, Case
from torture.scene import lines
from torture.stand import Stand

HOW = "edits"


def _kill_half_way(stand: Stand) -> None:
    process = stand.start(stand.words())
    stand.wait_settled(process, stand.scene.total // 2)
    stand.kill(process)
    time.sleep(0.5)  # what it had sent is accepted by then
    stand.account.kills, stand.account.tried = 0, 1


def rows_added(stand: Stand) -> None:
    """Rows are added: they are left out until somebody says that they are meant."""
    _kill_half_way(stand)
    more = {job: count + 2 for job, count in stand.scene.runs.items()}
    for job, count in stand.scene.runs.items():
        with (stand.scene.folder / f"{job}.csv").open("a") as file:
            file.writelines(f"{n},{stand.scene.input(job, n)['fails']}\n" for n in range(count, count + 2))
    ran = stand.command(stand.words("--resume"))
    if "is left out; --accept-changes takes it in" not in ran.err:
        stand.account.problems.append(f"nobody said that rows were added: {ran}")
    stand.audit(ran)
    larger = replace(stand.scene, runs=more)
    known = {hashed for _, _, hashed in stand.scene.inputs()}
    if stand.truth.accepted.keys() - known:
        stand.account.problems.append("added rows were sent unasked")
    stand.scene = larger
    words = ["resume", stand.scene.name, "--local", stand.served.url, "--accept-changes"]
    stand.audit(stand.command(words))


def row_changed(stand: Stand) -> None:
    """A row is changed and another taken out: neither is sent; put back and taken in, the batch becomes whole."""
    _kill_half_way(stand)
    path = stand.scene.folder / "queued.csv"
    before = path.read_text()
    rows = before.splitlines(keepends=True)
    rows[-2:] = ["1000,0\n"]
    path.write_text("".join(rows))
    ran = stand.command(stand.words("--resume"))
    if "was started with other inputs" not in ran.err or "Traceback" in ran.err:
        stand.account.problems.append(f"nobody said that a row was changed: {ran}")
    known = {hashed for _, _, hashed in stand.scene.inputs()}
    if stand.truth.accepted.keys() - known:
        stand.account.problems.append("a changed row was sent unasked")
    path.write_text(before)
    _take_in(stand)


def input_changed(stand: Stand) -> None:
    """A job's input is another in the job file: what was sent is followed, nothing else; put back, it is taken in."""
    _kill_half_way(stand)
    before = stand.scene.job_file.read_text()
    stand.scene.job_file.write_text(before.replace("{job: queued,", "{job: queued, seed: 7,"))
    ran = stand.command(stand.words("--resume"))
    said = "was started with other inputs" in ran.err or not stand.unfinished
    known = {hashed for _, _, hashed in stand.scene.inputs()}
    if not said or stand.truth.accepted.keys() - known:
        stand.account.problems.append(f"another input was sent unasked, or nobody spoke of it: {ran}")
    stand.scene.job_file.write_text(before)
    _take_in(stand)


def _take_in(stand: Stand) -> None:
    """Go on with the inputs as they were at first."""
    ran = stand.command(["resume", stand.scene.name, "--local", stand.served.url, "--accept-changes"])
    # What was under way, nobody knows how far, or would have been tried again, was not sent with another's input.
    stand.audit(ran, may_end={"answer_lost", "failed", "check_failed"})


def refused_until_restored(stand: Stand, damage: Callable[[Path], object], file: str) -> None:
    """A file of the batch is damaged: that is said, nothing is sent; restored, the batch becomes whole."""
    _kill_half_way(stand)
    folder = stand.scene.batch.path
    copy = stand.scene.folder / "copy"
    stand.command(["status", stand.scene.name])
    shutil.copytree(folder, copy)
    damage(folder / file)
    before = stand.truth.accepted
    ran = stand.command(stand.words("--resume"))
    if ran.code == 0 or "error: " not in ran.err or stand.truth.accepted != before:
        sent = sum(map(len, stand.truth.accepted.values())) - sum(map(len, before.values()))
        stand.account.problems.append(f"with {file} damaged it came to {ran}, and sent {sent} jobs")
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    stand.end()


def artifact_deleted(stand: Stand) -> None:
    """An artifact is deleted: nothing that is settled is sent again for it, and nothing else is touched."""
    _kill_half_way(stand)
    file = next(
        (stand.scene.batch.path / one for line in lines(stand.scene.batch.results) for one in line["artifacts"]), None
    )
    if file is None:
        stand.account.problems.append("there was no artifact to delete")
        return
    content = file.read_bytes()
    file.unlink()
    ran = stand.command(stand.onwards())
    if file.exists():
        stand.account.problems.append("an artifact that was deleted came back")
    file.write_bytes(content)
    stand.audit(ran)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 8 : len(data) - 10] = b"\x55" * (len(data) - 10 - len(data) // 8)
    path.write_bytes(data)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _cut_ledger(path: Path) -> None:
    _cut(path)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _change_last_line(path: Path) -> None:
    with Ledger.read_only(path.with_name("ledger.sqlite")) as ledger:
        place = ledger.last_line()  # one behind it, of which the ledger does not speak yet, would be made anew
    assert place is not None
    data = bytearray(path.read_bytes())
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "results.jsonl deleted": ("results.jsonl", Path.unlink),
    "results.jsonl cut": ("results.jsonl", _cut),
    "results.jsonl edited": ("results.jsonl", _change_last_line),
    "ledger cut": ("ledger.sqlite", _cut_ledger),
    "ledger overwritten": ("ledger.sqlite", _overwrite),
    "ledger emptied": ("ledger.sqlite", lambda path: path.write_bytes(b"")),
    "manifest deleted": ("manifest.json", Path.unlink),
    "manifest cut": ("manifest.json", _cut),
}


def cases() -> Iterator[Case]:
    """Every case of this file."""
    fault = "job file edited between runs, or its data"
    yield Case("input changed", fault, "disk", HOW, input_changed, runs=FEW, ms=20)
    yield Case("rows added", fault, "disk", HOW, rows_added, runs=FEW, ms=20)
    yield Case("rows changed", fault, "disk", HOW, row_changed, runs=FEW, ms=20)
    yield Case("artifact deleted", "artifact deleted between runs", "disk", HOW, artifact_deleted, runs=FEW, ms=20)
    for name, (file, damage) in DAMAGES.items():
        how = partial(refused_until_restored, damage=damage, file=file)
        yield Case(name, f"{name} between runs", "disk", HOW, how, runs=FEW, ms=20)
