"""
The lease: which process may write to a remote folder, for others to read.

It is a courtesy that keeps two processes apart. What makes it safe that one writes is elsewhere: each segment has a
number and is put only if nobody else has put one of that number (`upload.py`).
"""

import json
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from runner import batch
from runner.errors import BatchBusy, UsageError
from runner.remote.objects import Denied, Exists, Missing, Objects, StoreError
from runner.values import JsonObject, dump

NAME = "lease.json"
RENEW_S = 5.0
EXPIRES_S = 60.0
"""A lease that was not renewed for so long is nobody's: its process is dead, or can't reach the store."""


def read(objects: Objects, folder: str) -> JsonObject | None:
    """
    The lease of *folder*, whoever holds it; None where nobody does.

    Raises:
        StoreError: the store doesn't say.
    """
    try:
        found = json.loads(objects.get(f"{folder}/{NAME}"))
    except Missing:
        return None
    except ValueError:
        return None
    return found if isinstance(found, dict) and "token" in found else None


def until(told: JsonObject) -> float:
    """When the lease *told* of expires, seconds since the epoch."""
    return float(told["renewed_at"]) + EXPIRES_S


def is_held(told: JsonObject, now: float) -> bool:
    """Whether the process that *told* names may be at work."""
    if now >= until(told):
        return False
    # On the machine of old, where its number is gone it is dead, however it died.
    return told.get("machine") != _machine() or batch.lives(int(told["pid"]), told.get("began"))


class Lease:
    """The lease of a folder while it is held: renewed now and then by a thread of its own."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        self.lost_to: JsonObject | None = None
        self._objects = objects
        self._name = f"{folder}/{NAME}"
        now = time.time()
        self._told: JsonObject = {
            "token": self.token,
            "host": platform.node(),
            "pid": os.getpid(),
            "began": batch.began_at(os.getpid()),
            "machine": _machine(),
            "since": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
            "renewed_at": now,
            "batch": None,
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self, *, take_over: bool) -> None:
        """
        Take the lease; with *take_over* also from a process that may be at work.

        Raises:
            BatchBusy: another process holds it.
            UsageError: the store says no.
            StoreError: it can't be reached.
        """
        try:
            self._put(new=True)
        except Exists:
            other = read(self._objects, self.folder)
            is_alive = other is not None and is_held(other, time.time())
            if other is not None and is_alive and not take_over:
                raise BatchBusy(
                    f"{self._objects.url}/{self.folder} is being written to: {said(other)}",
                    fix=f"wait for it; if that process is dead, its lease ends at {_clock(until(other))}, or write"
                    " --take-over",
                ) from None
            self._put()
            if other is not None and is_alive and other["renewed_at"] > time.time() - 2 * RENEW_S:
                self._outlast()
        except (Denied, Missing) as error:
            raise UsageError(
                f"{self._objects.url} can't be written to: {error}",
                fix="see that the bucket is there, and that the credentials that the AWS tools would find here may"
                " read, write and list it"
                if self._objects.url.startswith("s3")
                else "see who may write there",
            ) from None
        self._thread.start()

    def _outlast(self) -> None:
        """Wait until the process that had the lease, which lives, must have seen that it is over."""
        while True:
            time.sleep(RENEW_S + 1)
            found = read(self._objects, self.folder)
            if found is not None and found["token"] == self.token:
                return
            self._put()  # it had looked before we put ours, and renewed its own after it

    def runs(self, batch_id: str) -> None:
        """Say which batch it is held for."""
        self._told["batch"] = batch_id

    def release(self) -> None:
        """Let others have it."""
        self._over.set()
        self._thread.join()
        with suppress(StoreError):  # then it expires
            found = read(self._objects, self.folder)
            if found is not None and found["token"] == self.token:
                self._objects.remove(self._name)

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            with suppress(StoreError):  # who can't reach the store starts nothing; the lease expires by itself
                found = read(self._objects, self.folder)
                if found is not None and found["token"] != self.token:
                    self.lost_to = found
                    return
                self._put()

    def _put(self, *, new: bool = False) -> None:
        self._told["renewed_at"] = time.time()
        self._objects.put(self._name, dump(self._told), new=new)


def said(told: JsonObject) -> str:
    """Who holds the lease *told* of, for a person."""
    return f"process {told.get('pid')} on {told.get('host')}, since {told.get('since')}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


def _machine() -> str:
    """Tells this machine, as it was started, from others; process numbers mean something within it only."""
    words = [platform.node()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(words)
