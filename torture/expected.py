"""The faults that a whole run of `torture` must have tried, each with the rows of its programs that show it."""

import re
from dataclasses import dataclass

WHERE = ("process", "disk", "network", "service", "scheduling")
"""Where a fault is, in the order of the table."""


@dataclass(frozen=True)
class Fault:
    """
    One fault of the list.

    *shown_by* are patterns: a row whose ``fault`` has any of them in it, whatever the case, shows that it was tried.
    *untried* is why it can't be tried here; None where it must be.
    """

    where: str
    name: str
    shown_by: tuple[str, ...] = ()
    untried: str | None = None

    def is_shown_by(self, fault: str) -> bool:
        """Whether a row of this name tried it."""
        return any(re.search(pattern, fault, re.IGNORECASE) for pattern in self.shown_by)


FAULTS = (
    # Our process
    Fault("process", "SIGKILL as a batch begins, at each step", (r"^SIGKILL as a batch begins",)),
    Fault("process", "SIGKILL of a submit, at each step", (r"^SIGKILL of a submit",)),
    Fault("process", "SIGKILL from answer to settled run, at each step", (r"^SIGKILL from answer",)),
    Fault("process", "SIGKILL as a batch ends, at each step", (r"^SIGKILL as a batch ends",)),
    Fault("process", "SIGKILL of a resume, at each step", (r"^SIGKILL of a resume",)),
    Fault("process", "SIGKILL at random moments", (r"random moments", r"^SIGKILL at any moment")),
    Fault("process", "SIGINT once, at each phase", (r"^SIGINT once",)),
    Fault("process", "SIGINT twice, at each phase", (r"^SIGINT twice, at",)),
    Fault("process", "SIGTERM once, at each phase", (r"^SIGTERM once",)),
    Fault("process", "SIGTERM twice, at each phase", (r"^SIGTERM twice",)),
    Fault("process", "SIGHUP, terminal gone, readers gone", (r"^SIGHUP", r"^terminal gone", r"^stdin closed")),
    Fault("process", "SIGINT twice with 200 jobs in flight", (r"^SIGINT twice, 200",)),
    Fault("process", "runner cancel with 200 jobs in flight", (r"^runner cancel .*200",)),
    Fault("process", "out of memory", (r"out of memory",)),
    Fault("process", "workers killed", (r"\bworkers (killed|and (their )?launchers)",)),
    Fault(
        "process",
        "fork",
        untried="nothing of ours forks without exec, so no child holds the lock or the ledger of a dead process;"
        " that the lock is free is tried with the kills",
    ),
    Fault("process", "clock stepping back", (r"clock steps back", r"calendar stepped back")),
    Fault("process", "clock stepping forward", (r"clock steps (forward|back and forward)", r"stepped forward")),
    Fault(
        "process",
        "DST",
        untried="every time in a file is UTC, so a change of summer time is no event; steps of an hour are tried",
    ),
    Fault("process", "asleep for 40 minutes, past retention", (r"asleep (for 40|past retention)", r"stopped for 40")),
    # Disk
    Fault("disk", "power cut", (r"power (loss|cut|gone)",)),
    Fault("disk", "full", (r"^ENOSPC", r"disk full")),
    Fault("disk", "read-only", (r"^EROFS", r"read-only")),
    Fault("disk", "I/O error on write", (r"^EIO on write",)),
    Fault("disk", "I/O error on fsync", (r"^EIO on sync",)),
    Fault("disk", "I/O error on rename", (r"^EIO on rename",)),
    Fault("disk", "slow fsync", (r"slow fsync",)),
    Fault("disk", "torn last record", (r"torn",)),
    Fault("disk", "ledger cut or corrupted", (r"^ledger (cut|corrupted|emptied|overwritten)",)),
    Fault("disk", "job file edited between runs", (r"job file edited",)),
    Fault("disk", "output deleted between runs", (r"(artifact|results\.jsonl) deleted",)),
    # Network
    Fault("network", "DNS failure", (r"\bDNS\b",)),
    Fault("network", "connection refused", (r"connection refused",)),
    Fault("network", "connect timeout", (r"connect timeout",)),
    Fault("network", "TLS error", (r"\bTLS\b",)),
    Fault("network", "reset before the request was read", (r"reset before",)),
    Fault("network", "answer lost after acceptance", (r"answer .*lost",)),
    Fault("network", "truncated body", (r"truncated",)),
    Fault("network", "slow body", (r"slow body",)),
    Fault("network", "200 with HTML", (r"200 with (a page of )?HTML",)),
    Fault("network", "gzip bomb", (r"gzip bomb",)),
    Fault("network", "500 MB body", (r"500 MB",)),
    Fault("network", "proxy of the environment", (r"proxy",)),
    # Service answers
    Fault("service", "429 without Retry-After", (r"^429( without.*)?$",)),
    Fault("service", "429 with Retry-After in seconds", (r"429 with .*seconds",)),
    Fault("service", "429 with Retry-After as a date", (r"429 with .*date",)),
    Fault("service", "500", (r"^500$",)),
    Fault("service", "502", (r"^502",)),
    Fault("service", "503", (r"^503",)),
    Fault("service", "504", (r"^504",)),
    Fault("service", "52x with a page of HTML", (r"^52\d",)),
    Fault("service", "401 half way, a rotated key", (r"\b401\b",)),
    Fault("service", "404 just after the submit", (r"404 just after",)),
    Fault("service", "404 after the result expired", (r"404 after expiry", r"asleep past retention")),
    Fault("service", "unknown status word", (r"unknown status", r"status word")),
    Fault("service", "COMPLETED without output", (r"COMPLETED without output",)),
    Fault("service", "output that says error", (r"output that says error",)),
    Fault("service", "IN_PROGRESS back to IN_QUEUE", (r"back to IN_QUEUE",)),
    Fault("service", "status going backwards", (r"going backwards",)),
    Fault("service", "stream chunks repeated", (r"chunks repeated",)),
    Fault("service", "stream chunks missing", (r"chunks missing",)),
    Fault("service", "cancel racing completion", (r"cancel.* racing completion",)),
    Fault("service", "queue purged by somebody else", (r"purged by somebody",)),
    Fault("service", "endpoint deleted", (r"endpoint deleted",)),
    Fault("service", "endpoint scaled to zero", (r"scaled to zero",)),
    Fault("service", "redeployed in the middle", (r"redeployed", r"deployed anew", r"another takes its place")),
    Fault(
        "service",
        "batch pages shifting while read",
        (r"batch pages shifting",),
    ),
    # Scheduling
    Fault("scheduling", "two crons at once", (r"starts at once",)),
    Fault("scheduling", "a tick while draining", (r"(tick|start) while draining",)),
    Fault("scheduling", "a missed tick", (r"missed tick", r"tick after a kill")),
    Fault("scheduling", "machine off over midnight", (r"over midnight",)),
)
"""The list of faults that the runner must face."""
