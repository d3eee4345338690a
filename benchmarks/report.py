"""What the fast fake of RunPod's API says of a batch: the other side's story, and how good it could have been."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runner.local.limits import WINDOW_S


class JobRecord(NamedTuple):
    """
    One accepted job. Times are seconds since the server's first request; None: it has not come to that.

    *key* is the input's own ``key`` as text if it is an object with one, else a digest of the input. *seconds* is how
    long it was to take. *ended* is when it was over for everybody who asks; *told* is when the first answer that said
    so was written.
    """

    key: str
    operation: str
    seconds: float
    accepted: float
    started: float | None
    ended: float | None
    told: float | None
    status: str

    @property
    def detection_s(self) -> float | None:
        """How long after its end a client was first told."""
        return None if self.told is None or self.ended is None else self.told - self.ended


@dataclass(frozen=True)
class Report:
    """
    What a server saw.

    *requests* counts by operation everything that came in, refused and spoiled ones included. *refused* counts the 429s
    that the limits gave, by operation; *faults* what went wrong on purpose: ``429``, ``5xx before``, ``5xx after``,
    ``reset before``, ``reset after``. *unknown* counts answers 404. *cpu_s* is the server's own CPU time since the
    first request, which came at *first_request*, on the machine's monotonic clock. *rates* are the limits that it
    kept, requests in 10 s by bucket, None for no limits.
    """

    workers: int
    rates: Mapping[str, int] | None
    requests: Mapping[str, int]
    refused: Mapping[str, int]
    faults: Mapping[str, int]
    unknown: int
    cpu_s: float
    first_request: float | None
    jobs: Sequence[JobRecord]

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> "Report":
        """What the server sent."""
        return cls(**{**shown, "jobs": [JobRecord(*one) for one in shown["jobs"]]})

    @property
    def requests_per_job(self) -> float:
        """Requests of all operations but /health, for each accepted job."""
        asked = sum(number for operation, number in self.requests.items() if operation != "health")
        return asked / max(1, len(self.jobs))

    @property
    def accepted(self) -> Counter[str]:
        """How often each input was accepted: more than once is paid for more than once."""
        return Counter(job.key for job in self.jobs)

    @property
    def duplicates(self) -> int:
        """How many jobs were accepted beyond the first of each input."""
        return len(self.jobs) - len(self.accepted)

    @property
    def detections_s(self) -> list[float]:
        """How long after its end a client was told, for each job that one was told of; sorted."""
        return sorted(found for job in self.jobs if (found := job.detection_s) is not None)

    @property
    def makespan_s(self) -> float:
        """From the first job's acceptance until a client was told of the last one's end."""
        told = [job.told for job in self.jobs if job.told is not None]
        return max(told) - min(job.accepted for job in self.jobs) if told else 0.0

    @property
    def ideal_makespan_s(self) -> float:
        """How long these jobs take if all of them are queued at once, and every end is known at once."""
        return max(self._ends(0.0 for _ in self.jobs), default=0.0)

    @property
    def limit_bound_makespan_s(self) -> float:
        """
        The same if jobs come at the steady rate that the limits allow, and are asked for once each at such a rate.

        A client that spends a whole window's requests at once is ahead of that at the start, never in the long run.
        """
        rates = self.rates
        if rates is None:
            return self.ideal_makespan_s
        seen: Counter[str] = Counter()
        releases = []
        for job in self.jobs:
            rate = rates.get(job.operation)
            releases.append(seen[job.operation] / rate * WINDOW_S if rate else 0.0)
            seen[job.operation] += 1
        ends = sorted(self._ends(iter(releases)))
        looks = rates.get("status") if seen["run"] else None
        return max((max(end, n / looks * WINDOW_S if looks else 0.0) for n, end in enumerate(ends)), default=0.0)

    def _ends(self, releases: Iterator[float]) -> Iterator[float]:
        """When each job ends that comes at its time of *releases*, in the order in which they were accepted."""
        free = [0.0] * self.workers
        for job, release in zip(self.jobs, releases, strict=True):
            end = max(heapq.heappop(free), release) + job.seconds
            heapq.heappush(free, end)
            yield end
