"""The faults that a user hears of: which of what was done to lives is which, and what came of it."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torture.simulation.life import Life
from torture.simulation.scenario import EDITS, POINTS, TAMPERS

Words = tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """
    One fault of the table. *kinds* are regular expressions: each has to be met by something that lives count, and what
    meets none of any fault is not told.
    """

    name: str
    where: str
    kinds: Words


def _requests(*kinds: str) -> Words:
    """Faults of single requests, and times in which every request meets them."""
    return tuple(rf"(?:{kind} on .+|time of {kind})" for kind in kinds)


FAULTS = (
    Fault("SIGKILL at any moment", "process", ("kill",)),
    Fault("SIGKILL at each named step", "process", tuple(f"kill at {point}" for point in POINTS)),
    Fault("SIGINT or SIGTERM", "process", ("signal",)),
    Fault("a second Ctrl-C", "process", ("second signal",)),
    Fault("runner cancel from another shell", "process", ("runner cancel while it runs",)),
    Fault("process stopped for 30 s", "process", ("process stopped for 30 s",)),
    Fault("process stopped for 40 minutes", "process", ("process stopped for 2400 s",)),
    Fault("laptop asleep for 30 s", "process", ("machine asleep for 30 s",)),
    Fault("laptop asleep for 40 minutes, past retention", "process", ("machine asleep for 2400 s",)),
    Fault("clock steps back", "process", ("calendar stepped back",)),
    Fault("clock steps forward", "process", ("calendar stepped forward",)),
    Fault("power loss at any moment", "disk", ("power loss",)),
    Fault("power loss at each named step", "disk", tuple(f"power loss at {point}" for point in POINTS)),
    Fault("unsynced bytes gone or zeros after power loss", "disk", ("unsynced bytes lost",)),
    Fault("torn last line", "disk", ("(?:kill|power loss) at torn line",)),
    *(
        Fault(
            name,
            "disk",
            tuple(rf"disk {code} on {word}(?:, done all the same)?" for word in ("write", "sync", "commit")),
        )
        for name, code in (("disk full", "ENOSPC"), ("disk read-only", "EROFS"), ("disk I/O error", "EIO"))
    ),
    Fault("disk says no, and did it all the same", "disk", ("disk .+, done all the same",)),
    Fault("disk says no to a rename", "disk", ("disk .+ on rename.*",)),
    Fault("slow fsync", "disk", ("slow fsync",)),
    Fault("job file edited between runs", "disk", tuple(f"job file edited: {edit}" for edit in EDITS)),
    Fault("results or ledger deleted, cut or changed between runs", "disk", tuple(f"tampered: {t}" for t in TAMPERS)),
    Fault("DNS failure", "network", _requests("dns")),
    Fault("connection refused", "network", _requests("refused")),
    Fault("connect timeout", "network", _requests("no_connection")),
    Fault("TLS error", "network", _requests("tls")),
    Fault("connection reset before an answer", "network", _requests("reset")),
    Fault("server disconnects", "network", _requests("disconnected")),
    Fault("read timeout", "network", _requests("silence")),
    Fault("answer to a submit lost after acceptance", "network", ("answer lost after acceptance",)),
    Fault("truncated body", "network", _requests("cut")),
    Fault("slow body", "network", _requests("slow_body")),
    Fault("200 with HTML", "network", _requests("html_200")),
    Fault("200 with broken JSON", "network", _requests("not_json")),
    Fault("500 MB body announced", "network", _requests("too_large")),
    Fault("a body without end (gzip bomb)", "network", _requests("bomb")),
    Fault("redirect", "network", _requests("302")),
    Fault("429 without Retry-After", "service", _requests("429")),
    Fault("429 with Retry-After in seconds", "service", _requests("429_seconds")),
    Fault("429 with Retry-After as a date", "service", _requests("429_date")),
    Fault("408", "service", _requests("408")),
    Fault("500", "service", _requests("500")),
    Fault("502 with HTML", "service", _requests("502_html")),
    Fault("503", "service", _requests("503")),
    Fault("504", "service", _requests("504")),
    Fault("524 with HTML", "service", _requests("524_html")),
    Fault("400 or 422 to a submit", "service", ("400 on submit", "422 on submit")),
    Fault("413 to a submit", "service", ("413 on submit",)),
    Fault("a lone 403", "service", ("403 on .+",)),
    Fault("403 to everything", "service", ("time of forbidden",)),
    Fault("401 half way", "service", ("401 half way",)),
    Fault("402", "service", ("time of 402",)),
    Fault("404 just after submit", "service", ("404 just after submit",)),
    Fault("404 after expiry", "service", ("404 after expiry",)),
    Fault("404 to a job that is there", "service", ("404_once on .+",)),
    Fault("job or result lost by the platform", "service", ("404: lost by the platform", "404: its result was .+")),
    Fault("unknown status word", "service", ("status unknown",)),
    Fault("answer without a status", "service", ("no_status on .+",)),
    Fault("status going backwards", "service", ("stale on .+",)),
    Fault("IN_PROGRESS back to IN_QUEUE", "service", ("IN_PROGRESS, then IN_QUEUE",)),
    Fault("COMPLETED without output", "service", ("job ended: no output",)),
    Fault("COMPLETED with an error beside", "service", ("job ended: error beside",)),
    Fault("output that says error", "service", ("job ended: says error",)),
    Fault("worker died", "service", ("job ended: crashed",)),
    Fault("job over its execution timeout", "service", ("job ended: timed_out", "job ended: too_slow")),
    Fault("stream chunks repeated", "service", ("chunks_twice on stream",)),
    Fault("stream chunks missing", "service", ("chunks_gone on stream",)),
    Fault("cancel racing completion", "service", ("cancel after completion", "cancel overtaken by completion")),
    Fault("queue purged by somebody else", "service", ("queue purged by somebody else", "404: purged")),
    Fault("endpoint paused", "service", ("time of paused",)),
    Fault("endpoint deleted, or unknown for a time", "service", ("time of unknown",)),
    Fault("endpoint scaled to zero", "service", ("time of no workers",)),
    Fault("endpoint deployed anew in the middle", "service", ("endpoints deployed anew",)),
    Fault("answer to finalizing a draft lost", "network", ("answer to finalize of a batch lost",)),
    Fault("answer to appending to a draft lost", "network", ("answer to append of a batch lost",)),
    Fault("answer to making a draft lost", "network", ("answer to create of a batch lost",)),
    Fault("an append answered with an id too few", "service", ("an append answered with an id too few",)),
    Fault("batch pages shifting while read", "service", ("batch page shifted",)),
    Fault("RunPod batch failed, or ended by somebody else", "service", ("RunPod batch (?:FAILED|CANCELLED) by .+",)),
    Fault("draft cancelled by somebody else", "service", ("draft cancelled by somebody else",)),
    Fault("RunPod batch no longer kept", "service", ("404 to a RunPod batch .+",)),
    Fault("mode changed between runs", "disk", ("mode changed to async", "mode changed to batch")),
    Fault("two starts at once", "scheduling", ("second start",)),
    Fault("a start while draining", "scheduling", ("second start while the first drains",)),
    Fault("a missed tick", "scheduling", ("a missed tick",)),
    Fault("a missed tick, past retention", "scheduling", ("a missed tick, longer than a result is kept",)),
    Fault("machine off over midnight", "scheduling", ("machine off over midnight",)),
)


@dataclass
class Survived:
    """What came of one fault: how often it was *tried*, and what became of the runs of the lives that met it."""

    tried: int = 0
    runs: int = 0
    lost: int = 0
    paid_twice: int = 0
    sent_again_knowingly: int = 0
    expired: int = 0


@dataclass
class Table:
    """The table of faults, filled life by life."""

    rows: dict[str, Survived] = field(default_factory=lambda: {fault.name: Survived() for fault in FAULTS})
    counts: Counter[str] = field(default_factory=Counter)
    _met: dict[str, Words] = field(default_factory=dict)

    def add(self, life: Life) -> None:
        """Count what *life* met."""
        self.counts += life.counts
        met: Counter[str] = Counter()
        for kind, count in life.counts.items():
            for name in self._names(kind):
                met[name] += count
        for name, count in met.items():
            row, tally = self.rows[name], life.tally
            row.tried += count
            row.runs += tally["runs"]
            row.lost += tally["lost"]
            row.paid_twice += tally["paid twice"]
            row.sent_again_knowingly += tally["answers lost, sent again knowingly"]
            row.expired += tally["expired while nobody could look"]

    def _names(self, kind: str) -> Words:
        if kind not in self._met:
            found = (one.name for one in FAULTS if any(re.fullmatch(pattern, kind) for pattern in one.kinds))
            self._met[kind] = tuple(found)
        return self._met[kind]

    def missing(self) -> list[str]:
        """What never occurred, and should have."""
        return [
            f"{fault.name}: nothing like '{pattern}' occurred"
            for fault in FAULTS
            for pattern in fault.kinds
            if not any(re.fullmatch(pattern, kind) for kind in self.counts)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """A line for each fault."""
        return [
            {"fault": fault.name, "where": fault.where, "how": "simulation", **vars(self.rows[fault.name])}
            for fault in FAULTS
        ]
