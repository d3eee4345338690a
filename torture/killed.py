"""
Run the command, and kill it at a named step: ``python -m torture.killed STEP NTH WORDS...``.

The steps are put around the package's own functions from outside: no code of it knows of them.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runner import artifacts as artifacts_module
from runner import batch, conduct, durable, ledger, received, runpod, runpod_batches, store
from runner.database import Database
from runner.events import (
    Accepted,
    Appended,
    BatchCancelDecided,
    CancelDecided,
    Claimed,
    DraftDropped,
    Drafted,
    DraftMade,
    DraftOver,
    Ended,
    Finalized,
    Finalizing,
    Intended,
    Settled,
)
from runner.local.accepted import input_hash
from runner.record import Recorder
from runner.values import parse

Install = Callable[["Trigger"], None]

SUBMITTED_LOG = "TORTURE_ACCEPTED_LOG"
"""The variable that names the endpoint's own log."""

SUBMITTED_FROM = "TORTURE_ACCEPTED_FROM"
"""The variable that says at which byte of it this batch begins."""


class Trigger:
    """Kills this process the *nth* time that it is pulled."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def pull(self) -> None:
        """The step is reached."""
        if self.is_last():
            die()

    def is_last(self) -> bool:
        """Count this time; whether it is the one to end at."""
        self._left -= 1
        return self._left == 0


def die() -> NoReturn:
    """End at once, as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


Test = Callable[..., bool]


def around(owner: Any, name: str, *, when: Test | None = None, after: bool = False) -> Install:
    """The step before or *after* a call of *owner*'s function *name*, where its arguments are as *when* wants them."""

    def install(trigger: Trigger) -> None:
        original = getattr(owner, name)

        def replaced(*args: Any, **options: Any) -> Any:
            is_it = when is None or when(*args)
            if is_it and not after:
                trigger.pull()
            found = original(*args, **options)
            if is_it and after:
                trigger.pull()
            return found

        setattr(owner, name, staticmethod(replaced) if _is_static(owner, name) else replaced)

    return install


def _is_static(owner: Any, name: str) -> bool:
    return isinstance(owner, type) and isinstance(owner.__dict__.get(name), staticmethod)


def answered(name: str) -> Install:
    """The step after a call of the client's coroutine *name*: the answer is here, and nobody was told."""

    def install(trigger: Trigger) -> None:
        original = getattr(runpod.RunPod, name)

        async def replaced(*args: Any, **options: Any) -> Any:
            found = await original(*args, **options)
            trigger.pull()
            return found

        setattr(runpod.RunPod, name, replaced)

    return install


def batch_call(name: str, *, after: bool) -> Install:
    """The step before or *after* the answer to a call of the Batch API."""

    def install(trigger: Trigger) -> None:
        original = getattr(runpod_batches.RunPodBatches, name)

        async def replaced(*args: Any, **options: Any) -> Any:
            if not after:
                trigger.pull()
            found = await original(*args, **options)
            if after:
                trigger.pull()
            return found

        setattr(runpod_batches.RunPodBatches, name, replaced)

    return install


def accepted_unanswered(trigger: Trigger) -> None:
    """The step at which the endpoint has accepted a job, and its answer is on its way."""

    def wrap(name: str) -> None:
        original = getattr(runpod.RunPod, name)

        async def replaced(self: Any, body: bytes, **options: Any) -> Any:
            if not trigger.is_last():
                return await original(self, body, **options)
            sending = asyncio.ensure_future(original(self, body, **options))
            wanted = input_hash(parse(body)["input"]).encode()
            with Path(os.environ[SUBMITTED_LOG]).open("rb") as log:
                log.seek(int(os.environ[SUBMITTED_FROM]))
                seen = b""
                while wanted not in seen and not sending.done():
                    await asyncio.sleep(0.0005)
                    seen += log.read()
            die()

        setattr(runpod.RunPod, name, replaced)

    wrap("run")
    wrap("runsync")


def has(kind: type) -> Test:
    """Whether the events that a store is to write are of this kind, among others."""
    return lambda _, events: any(isinstance(one, kind) for one in events)


def holds(kind: type) -> Test:
    """The same of what a ledger is to commit."""
    return lambda _, events: any(isinstance(one, kind) for one, _place in events)


def within(kind: type, *, after: bool) -> Install:
    """The step before or *after* the COMMIT of a transaction that holds an event of this kind."""

    def install(trigger: Trigger) -> None:
        apply, do = ledger.Ledger.apply, Database.do
        is_in = False

        def applied(self: Any, events: Any) -> Any:
            nonlocal is_in
            is_in = any(isinstance(one, kind) for one, _ in events)
            try:
                return apply(self, events)
            finally:
                is_in = False

        def done(self: Any, sql: str, *rest: Any) -> Any:
            is_it = is_in and sql == "COMMIT"
            if is_it and not after:
                trigger.pull()
            found = do(self, sql, *rest)
            if is_it and after:
                trigger.pull()
            return found

        ledger.Ledger.apply, Database.do = applied, done  # type: ignore[method-assign, assignment]

    return install


def torn(module: Any, function: str) -> Install:
    """The step at which half of what *function* of *module* is to write is written, and not up to a line's end."""

    def install(trigger: Trigger) -> None:
        original = getattr(module, function)

        def replaced(file: int, data: bytes) -> Any:
            if trigger.is_last():
                half = bytes(data)[: len(data) // 2]
                os.write(file, half.removesuffix(b"\n"))
                die()
            return original(file, data)

        setattr(module, function, replaced)

    return install


class Os:
    """The module ``os`` for one module alone, so that a call of its own can be replaced there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _own_os(module: Any) -> Any:
    """The module ``os`` that *module* alone has from now on."""
    module.os = Os()
    return module.os


def system(module: Any, call: str, *, after: bool = False) -> Install:
    """The step before or *after* a call of ``os``, made from *module*."""

    def install(trigger: Trigger) -> None:
        own = _own_os(module)
        setattr(own, call, getattr(os, call))
        around(own, call, after=after)(trigger)

    return install


def torn_chunks(trigger: Trigger) -> None:
    """The step at which half of a stream's chunks are in its file."""

    def half(file: int, data: Any) -> int:
        if trigger.is_last():
            os.write(file, bytes(data)[: len(data) // 2])
            die()
        return os.write(file, data)

    _own_os(received).write = half


def replacing(end: str, *, after: bool) -> Install:
    """The step before or *after* a file whose name ends so takes its last name."""
    return around(Path, "replace", when=lambda path, _: path.name.endswith(end), after=after)


SUBMIT: dict[str, Install] = {
    "intent not committed": around(store.Store, "write", when=has(Intended)),
    "intent in its transaction": within(Intended, after=False),
    "intent committed": within(Intended, after=True),
    "intent known to be durable": around(store.Store, "write", when=has(Intended), after=True),
    "accepted, unanswered": accepted_unanswered,
    "answer to /run here": answered("run"),
    "answer to /runsync here": answered("runsync"),
    "id not committed": around(store.Store, "write", when=has(Accepted)),
    "id in its transaction": within(Accepted, after=False),
    "id committed": within(Accepted, after=True),
}
"""Steps of a submit."""

SETTLE: dict[str, Install] = {
    "chunks read": answered("stream"),
    "chunks half appended": torn_chunks,
    "chunks appended": system(received, "write", after=True),
    "stream synced": system(received, "fdatasync", after=True),
    "artifact written, not synced": system(artifacts_module, "fsync"),
    "artifact synced, not claimed": around(Recorder, "claim"),
    "claim not committed": around(store.Store, "write", when=has(Claimed)),
    "claim committed": within(Claimed, after=True),
    "artifact not named": replacing(".part", after=False),
    "artifact named": replacing(".part", after=True),
    "attempt's end not committed": around(store.Store, "write", when=has(Ended)),
    "attempt's end committed": within(Ended, after=True),
    "line not written": around(store, "_write_all"),
    "line half written": torn(store, "_write_all"),
    "line written, not synced": system(store, "fdatasync"),
    "line synced, row not committed": around(ledger.Ledger, "apply", when=holds(Settled)),
    "row in its transaction": within(Settled, after=False),
    "row committed": within(Settled, after=True),
}
"""Steps from an answer to a settled run."""

BEGIN: dict[str, Install] = {
    "batch folder not made": around(batch, "create"),
    "batch folder made": around(batch, "create", after=True),
    "manifest not synced": system(durable, "fsync"),
    "manifest not named": replacing("manifest.json.tmp", after=False),
    "manifest named": replacing("manifest.json.tmp", after=True),
    "ledger without tables": around(Database, "open"),
    "ledger made, not named": replacing("ledger.sqlite.tmp", after=False),
    "ledger named": replacing("ledger.sqlite.tmp", after=True),
    "latest not made": around(batch, "point_latest"),
    "latest aside": around(Path, "symlink_to", after=True),
    "latest made": around(batch, "point_latest", after=True),
}
"""Steps of a batch's beginning."""

FINISH: dict[str, Install] = {
    "superseded lines left": around(store.Store, "drop_superseded"),
    "report not named": replacing("health.json.tmp", after=False),
    "report named": replacing("health.json.tmp", after=True),
    "page not named": replacing("report.html.tmp", after=False),
    "page named": replacing("report.html.tmp", after=True),
    "lock not given back": around(conduct, "Ended"),
}
"""Steps of its end."""

RESUME: dict[str, Install] = {
    "files not mended": around(store.Store, "repair"),
    "tail synced, not adopted": around(store.Store, "_lines"),
    "tail adopted, not cut": around(store.Store, "_cut"),
    "tail cut": around(store.Store, "_cut", after=True),
    "leftovers of artifacts": around(artifacts_module.Artifacts, "clear", after=True),
}
"""Steps of a resume."""

SUPERSEDE: dict[str, Install] = {
    "reopening noted": around(store.Store, "reopen"),
    "reopened": around(store.Store, "reopen", after=True),
    "lines aside, not synced": system(store, "fsync"),
    "lines aside": around(ledger.Ledger, "close_gaps"),
    "places closed": around(ledger.Ledger, "close_gaps", after=True),
    "lines not named": replacing("results.jsonl.new", after=False),
    "lines named": replacing("results.jsonl.new", after=True),
}
"""Steps of ``--retry-failed``."""

CANCEL: dict[str, Install] = {
    "cancel not decided": around(store.Store, "write", when=has(CancelDecided)),
    "cancel decided": within(CancelDecided, after=True),
    "cancel answered": answered("cancel"),
}
"""Steps of a cancel."""

DRAFT: dict[str, Install] = {
    "draft not intended": around(store.Store, "write", when=has(Drafted)),
    "draft intended": within(Drafted, after=True),
    "draft made, id not committed": batch_call("create", after=True),
    "draft's id committed": within(DraftMade, after=True),
    "draft named": batch_call("name", after=True),
    "append not sent": batch_call("append", after=False),
    "appended, ids not committed": batch_call("append", after=True),
    "ids in their transaction": within(Appended, after=False),
    "ids committed": within(Appended, after=True),
    "finalize not intended": around(store.Store, "write", when=has(Finalizing)),
    "finalize intended": within(Finalizing, after=True),
    "finalize not sent": batch_call("finalize", after=False),
    "finalized, not committed": batch_call("finalize", after=True),
    "finalize in its transaction": within(Finalized, after=False),
    "finalize committed": within(Finalized, after=True),
    "counts read": batch_call("counts", after=True),
    "page not asked for": batch_call("page", after=False),
    "page read": batch_call("page", after=True),
    "batch not over": around(store.Store, "write", when=has(DraftOver)),
    "batch over": within(DraftOver, after=True),
}
"""Steps of a RunPod batch, from its draft to its end."""

DROP: dict[str, Install] = {
    "drop not committed": around(store.Store, "write", when=has(DraftDropped)),
    "drop in its transaction": within(DraftDropped, after=False),
    "drop committed": within(DraftDropped, after=True),
    "draft cancelled": batch_call("cancel", after=True),
    "batch's cancel decided": within(BatchCancelDecided, after=True),
}
"""Steps of giving one up."""

STEPS = DRAFT | DROP | SUBMIT | SETTLE | BEGIN | FINISH | RESUME | SUPERSEDE | CANCEL


def main(words: Sequence[str]) -> None:
    """Install the step, and be the command."""
    from runner.__main__ import main as command

    step, nth, *rest = words
    STEPS[step](Trigger(int(nth)))
    sys.argv = ["runner", *rest]
    command()


if __name__ == "__main__":
    main(sys.argv[1:])
