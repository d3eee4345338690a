"""Know which workers are still cold, on a day when every start is a cold one. Pure."""


class Cold:
    """
    Each worker is cold for *cold_start_s* from when it first asks for a job.

    Times are seconds on any one clock.
    """

    def __init__(self, cold_start_s: float) -> None:
        self._cold_start_s = cold_start_s
        self._warm_at: dict[str, float] = {}

    def until(self, worker_id: str, now: float) -> float:
        """When this worker, which asks for a job, may have one."""
        if not self._cold_start_s:
            return now
        return self._warm_at.setdefault(worker_id, now + self._cold_start_s)

    def ids(self, now: float) -> list[str]:
        """The workers that are cold."""
        return [worker_id for worker_id, at in self._warm_at.items() if at > now]

    def forget(self, worker_id: str) -> None:
        """A worker is gone; if its id comes again, it is cold again."""
        self._warm_at.pop(worker_id, None)
