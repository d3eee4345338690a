"""
Files of a batch that are cut, corrupted, deleted or edited while nobody runs it.

Whoever goes on with it either says which file is wrong, sends nothing, and leaves everything as it is, so that a copy
mends it; or the damage was where it matters to nobody, and the batch comes to its end as if there were none.
"""

import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from torture.processes import wait_until
from torture.scene import Account
from torture.stand import Stand

Harm = Callable[[Path, Random], None]

LEDGERS, WALS = 24, 12
"""So many times each kind of harm is done to a ledger, at other bytes; to its WAL."""


def cut(path: Path, chance: Random) -> None:
    """Leave what is before a byte of chance."""
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def scramble(path: Path, chance: Random) -> None:
    """Put other bytes into one place."""
    length = chance.choice((1, 4, 64))
    with path.open("r+b") as file:
        file.seek(at := chance.randrange(max(1, path.stat().st_size - length)))
        old = file.read(length)
        file.seek(at)
        file.write(bytes(byte ^ chance.randrange(1, 256) for byte in old))


def scramble_last(path: Path, chance: Random) -> None:
    """Put other bytes into the last line: the one that whoever goes on looks at."""
    data = bytearray(path.read_bytes())
    start = data.rfind(b"\n", 0, len(data) - 1) + 1
    data[chance.randrange(start, len(data) - 1)] ^= chance.randrange(1, 256)
    path.write_bytes(data)


def blank(path: Path, chance: Random) -> None:
    """Put zeros into a page of it."""
    size = path.stat().st_size
    start = chance.randrange(max(1, size)) // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(4096, size - start)))


def empty(path: Path, _: Random) -> None:
    """Leave none of it."""
    path.write_bytes(b"")


def delete(path: Path, _: Random) -> None:
    """Delete it."""
    path.unlink()


def killed(stand: Stand) -> None:
    """The batch was killed in the middle, and what it wrote is in the WAL."""
    process = stand.start(stand.words())
    wanted = stand.chance.randint(8, stand.scene.total)
    wait_until(lambda: process.poll() is not None or stand.events >= wanted, "so many events")
    stand.kill(process)


def stopped(stand: Stand) -> None:
    """The batch was ended by SIGTERM in the middle, and everything is in the ledger."""
    process = stand.start(stand.words("--drain", "100ms"))
    wanted = stand.chance.randint(8, stand.scene.total)
    wait_until(lambda: process.poll() is not None or stand.events >= wanted, "so many events")
    process.send_signal(signal.SIGTERM)
    stand.finish(process)


BEFORE: dict[str, Callable[[Stand], None]] = {"killed": killed, "stopped": stopped}


def harmed(file: str, harm: Harm, before: str, *, called: str) -> Callable[[Stand], None]:
    """*file* of a batch is harmed by *harm*, and a message about it says *called*."""

    def play(stand: Stand) -> None:
        BEFORE[before](stand)
        path = next(iter(stand.scene.batch.path.glob(file)), None)
        if path is None or not path.stat().st_size:
            return  # it did not come so far, or came to its end
        stand.account.tried += 1
        kept = stand.scene.folder / "kept"
        shutil.copytree(stand.scene.root, kept, symlinks=True)
        accepted = stand.truth.accepted
        harm(path, stand.chance)
        by_name = ["resume", stand.scene.name, "--local", stand.served.url]
        ran = stand.command(by_name if stand.chance.random() < 0.5 else stand.words("--resume"))
        if "error:" not in ran.err:  # it mattered to nobody, or so it seems
            stand.audit(ran)
            return
        wrong = []
        if ran.code not in (1, 2) or called not in ran.err:
            wrong.append(f"it ended with {ran.code}, and does not speak of {called}: {ran.err[-1000:]}")
        if stand.truth.accepted != accepted:
            wrong.append(f"jobs were sent all the same: {ran.err[-1000:]}")
        there, was = ({one.name for one in folder.glob("2*")} for folder in (stand.scene.root, kept))
        if there != was:
            wrong.append(f"a new batch was begun in its place: {ran.err[-1000:]}")
        stand.account.problems += wrong
        shutil.rmtree(stand.scene.root)
        kept.rename(stand.scene.root)
        stand.end()

    return play


def artifact_deleted(before: str, stand: Stand) -> None:
    """An artifact is deleted: that is its owner's right, and no reason to pay for it again."""
    BEFORE[before](stand)
    files = sorted(stand.scene.batch.path.glob("artifacts/*/*.txt"))
    settled = {path for line in stand.settled() for path in line["artifacts"]}
    gone = [one for one in files if str(one.relative_to(stand.scene.batch.path)) in settled][:3]
    kept = {one: one.read_bytes() for one in gone}
    stand.account.tried += bool(gone)
    for one in gone:
        one.unlink()
    ran = stand.command(stand.words("--resume"))
    for one, data in kept.items():
        if one.exists():
            stand.account.problems.append(f"{one.name} was made again")
        one.write_bytes(data)
    stand.audit(ran)


def job_file_edited(before: str, stand: Stand) -> None:
    """The job file says other inputs now: that is said, and only what is still the same goes on."""
    BEFORE[before](stand)
    text = stand.scene.job_file.read_text()
    accepted = stand.truth.accepted
    stand.scene.job_file.write_text(text.replace(f"ms: {stand.scene.ms},", f"ms: {stand.scene.ms + 1},"))
    ran = stand.command(["resume", stand.scene.name, "--local", stand.served.url])
    found = Account(cases=1, tried=1, runs=stand.scene.total)
    if len(stand.settled()) < stand.scene.total and "changed" not in ran.err:
        found.problems.append(f"nothing is said of a job file that was edited: {ran}")
    if strangers := set(stand.truth.accepted) - set(accepted):
        found.problems.append(f"{len(strangers)} runs with changed inputs were sent unasked: {ran.err[-800:]}")
    told = {(line["job"], int(line["row"]["n"])) for line in stand.settled()}
    for job, n, hashed in stand.scene.inputs():
        if hashed in accepted and (job, n) not in told:
            found.lost += 1
            found.problems.append(f"{job} {n} was paid for, and has no line: {ran}")
    stand.account.add(found)


def cases() -> Iterator[tuple[str, str, Callable[[Stand], None]]]:
    """The name of each case, the row of the table that it counts in, and the case."""
    harms: dict[str, Harm] = {"cut": cut, "corrupted": scramble, "blanked": blank, "emptied": empty, "deleted": delete}
    ledger = "ledger.sqlite"
    for before in BEFORE:
        for how in ("cut", "corrupted", "blanked"):
            for number in range(LEDGERS // 2):
                name = f"{ledger} {how} #{number}, {before}"
                yield name, f"ledger {_row(how)}", harmed(ledger, harms[how], before, called=ledger)
        for how in ("emptied", "deleted"):
            yield f"{ledger} {how}, {before}", f"ledger {how}", harmed(ledger, harms[how], before, called=ledger)
        for how in ("cut", "corrupted", "deleted", "emptied"):
            file = "results.jsonl"
            name = f"{file} {how}, {before}"
            harm = scramble_last if how == "corrupted" else harms[how]
            yield name, f"{file} {how}", harmed(file, harm, before, called=file)
        for how in ("cut", "corrupted", "deleted"):
            file = "manifest.json"
            name = f"{file} {how}, {before}"
            yield name, f"{file} {_row(how)}", harmed(file, harms[how], before, called=file)
        yield f"artifact deleted, {before}", "artifact deleted", partial(artifact_deleted, before)
        yield f"job file edited, {before}", "job file edited", partial(job_file_edited, before)
    for how in ("cut", "corrupted", "blanked"):
        for number in range(WALS // 2):
            file = f"{ledger}-wal"
            yield (
                f"{file} {how} #{number}",
                f"ledger's WAL {_row(how)}",
                harmed(file, harms[how], "killed", called=ledger),
            )
    for how in ("emptied", "deleted"):
        file = f"{ledger}-wal"
        yield f"{file} {how}", f"ledger's WAL {how}", harmed(file, harms[how], "killed", called=ledger)


def _row(how: str) -> str:
    return "corrupted" if how == "blanked" else how
