"""Keep the log of what the local endpoint was asked, what it accepted, how that ended: the other side's story."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

from runner import values
from runner.clock import Clock, iso

_CLIENT_LENGTH = 80


class AcceptedLog:
    """
    One JSON line per event, appended and flushed before the answer goes out. All have ``event``, ``at``, ``endpoint``.

    ``accepted``: ``operation``, ``job_id``, ``input``, for every run, runsync and retry, and for every request of a
    finalized batch, whose operation is ``batch``. *input* is the BLAKE2b-128 of the input's canonical JSON.

    ``done``: ``job_id``, ``status``, for every end. A job that was purged or outlived its ttl has the status null; a
    batch's request that was dropped before it ran has CANCELLED.

    ``asked``: ``operation``, ``job_id``, ``status``, ``fault``, ``client``, for every request of a client, when its
    answer is known. *job_id* is the batch's where one is asked for. *status* is the HTTP status of what was carried
    out, null if nothing was, or if the client hung up; *fault* is what went wrong with it on purpose; *client* is its
    User-Agent.

    ``webhook``: ``job_id``, ``status``, for every try to tell of a job's end; *status* is what the receiver answered,
    null if it did not.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        # Unbuffered and in append mode: a line is in the file, whole, as soon as the write returns.
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def accepted(self, endpoint: str, operation: str, job_id: str, input_: values.JsonValue) -> None:
        """Note that a job was queued."""
        self._write("accepted", endpoint, operation=operation, job_id=job_id, input=input_hash(input_))

    def done(self, endpoint: str, job_id: str, status: str | None) -> None:
        """Note that a job ended; *status* None if nobody can ask for it any more."""
        self._write("done", endpoint, job_id=job_id, status=status)

    def asked(
        self, endpoint: str, operation: str, job_id: str | None, *, status: int | None, fault: str | None, client: str
    ) -> None:
        """Note a client's request, and what came of it."""
        # What a client says of itself may be no Unicode; the log is.
        client = client[:_CLIENT_LENGTH].encode(errors="replace").decode()
        self._write("asked", endpoint, operation=operation, job_id=job_id, status=status, fault=fault, client=client)

    def webhook(self, endpoint: str, job_id: str, status: int | None) -> None:
        """Note a try to tell of a job's end."""
        self._write("webhook", endpoint, job_id=job_id, status=status)

    def _write(self, event: str, endpoint: str, **fields: str | int | None) -> None:
        line = {"event": event, "at": iso(self._clock.now()), "endpoint": endpoint, **fields}
        self._file.write(values.dump(line) + b"\n")


def input_hash(value: values.JsonValue) -> str:
    """The BLAKE2b-128, in hex, of a value's canonical JSON."""
    return hashlib.blake2b(values.canonical(value), digest_size=16).hexdigest()
