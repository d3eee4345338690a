"""
Know whose a result of a RunPod batch is: by the id that appending gave, or by a key that the handler echoes. Pure.

A handler echoes when its output is an object that has the key under the same name as its input: ``output[NAME]``. What
failed has no output, so it is known by elimination, and only where that leaves no doubt. The order of requests and of
results says nothing. Guessed, for it is not documented: that ids come in the order in which requests were appended. An
echo that says otherwise is believed, and no id of that batch is from then on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from runner.answers import RemoteJob
from runner.batch_answers import Child
from runner.ledger import Sent
from runner.values import MISSING, JsonValue, dump

TOLD_ERRORS = 3
"""So many different errors are told where nobody knows whose is whose."""


def mark(key: str, attempt: int) -> str:
    """What is put into the input of an attempt: no other request, of any draft, has the same."""
    return f"{key}.{attempt}"


def marked(given: JsonValue, name: str, value: str) -> JsonValue | None:
    """The input *given* with *value* under *name*; None where it can't have it."""
    if not isinstance(given, dict) or name in given:
        return None
    return {**given, name: value}


@dataclass(frozen=True, slots=True)
class Rest:
    """
    A run whose result was not told: what it came to by elimination, None when nobody can say; and why that is so, empty
    where there is no doubt. *is_failed*: it is sure to have failed, though nobody can say how. *is_silent*: nothing was
    said of it, nor of any that could be it, but that they were dropped.
    """

    sent: Sent
    job: RemoteJob | None
    why: str
    is_failed: bool = False
    is_silent: bool = False


class Whose:
    """
    The runs of one RunPod batch whose results are still to come. *name* is the job's ``batch_key``, None for none.
    *told* are the ids of the requests that were told before, by an earlier process; None for one known by elimination.

    Attributes:
        echoes: How many results had the key of a run of ours.
        mute: The id of a request that was completed, and had it not, nor was known by its id; None while there is none.
    """

    def __init__(self, sent: Iterable[Sent], name: str | None, told: Iterable[str | None] = ()) -> None:
        self.echoes = 0
        self.mute: str | None = None
        self._name = name
        self._by_id: dict[str, Sent] = {}
        self._by_mark: dict[str, Sent] = {}
        ids = list(told)
        self._told = {one for one in ids if one is not None}
        self._eliminated = ids.count(None)  # they are on the pages still, and nobody knows which they are
        self._unknown: dict[str, RemoteJob] = {}
        self._trusts_ids = True
        for one in sent:
            if one.request_id is not None:
                self._by_id[one.request_id] = one
            if one.request_id is None or name is not None:
                self._by_mark[mark(one.key, one.attempt)] = one

    @property
    def left(self) -> int:
        """How many runs have no result yet."""
        return max(len(self._by_id), len(self._by_mark))

    @property
    def is_accounted(self) -> bool:
        """Whether as many requests ended without telling whose they are as there are runs left."""
        return bool(self._unknown) and len(self._unknown) == self.left + self._eliminated

    def take(self, child: Child) -> Sent | None:
        """Whose *child* is, which is over; None when that is not known, or was told before."""
        request_id = child.job.job_id
        if request_id in self._told:
            return None
        one = self._echoed(child.job.output)
        if one is not None:
            self.echoes += 1
            if one.request_id not in (None, request_id):
                self._trusts_ids = False
        elif self._trusts_ids:
            one = self._by_id.get(request_id)
        if one is None:
            if self._by_mark or not self._trusts_ids:
                if child.job.status == "COMPLETED":
                    self.mute = self.mute or request_id
                self._unknown[request_id] = replace(child.job, output=MISSING)
            return None
        self._forget(one)
        self._unknown.pop(request_id, None)
        if self._name is not None:
            self._told.add(request_id)
        return one

    def rest(self) -> Iterator[Rest]:
        """What became of those that are left, once no more results will come: each once, and none is left then."""
        left = list((self._by_mark or self._by_id).values())
        unknown = list(self._unknown.values())
        self._by_id, self._by_mark, self._unknown = {}, {}, {}
        if len(unknown) != len(left) + self._eliminated or any(one.status == "COMPLETED" for one in unknown):
            is_silent = all(one.status == "CANCELLED" for one in unknown)  # those of a page that shifted are not there
            for sent in left:
                yield Rest(sent, None, self._unmatched(sent), is_silent=is_silent)
            return
        kinds = Counter((one.status, _text(one.error)) for one in unknown)
        if len(kinds) == 1:  # whichever is whose, it came to the same
            for sent, job in zip(left, unknown, strict=False):
                yield Rest(sent, job, "" if len(unknown) == 1 else f"one of {len(unknown)} that ended alike")
            return
        told = "; ".join(f"{text or status} ({times})" for (status, text), times in kinds.most_common(TOLD_ERRORS))
        for sent in left:
            why = f"one of {len(unknown)} requests that failed, and nobody can say which how: {told}"
            yield Rest(sent, None, why, is_failed=True)

    def _unmatched(self, sent: Sent) -> str:
        if sent.request_id is None:
            return f"no result has this run's key at output['{self._name}'], so nobody can say which is its own"
        return "RunPod says that every request has ended, and none of its pages has this one"

    def _echoed(self, output: object) -> Sent | None:
        if self._name is None or not isinstance(output, dict):
            return None
        value = output.get(self._name)
        return self._by_mark.get(value) if isinstance(value, str) else None

    def _forget(self, one: Sent) -> None:
        if one.request_id is not None:
            self._by_id.pop(one.request_id, None)
        self._by_mark.pop(mark(one.key, one.attempt), None)


def _text(error: JsonValue | None) -> str:
    return "" if error is None else error if isinstance(error, str) else dump(error).decode("utf-8", "replace")
