"""Say what a batch came to as JUnit XML, which CI shows: a suite for each job, one for the verdict and thresholds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.judge import said
from runner.ledger import Ledger
from runner.records import record
from runner.shards_timings import timings_of
from runner.states import State, Verdict
from runner.timings import EndedRun, Timings
from runner.values import JsonObject

MOST_CASES = 10_000
"""Of a larger batch only runs that did not succeed are cases, the first so many of each job: no CI shows a million."""

MOST_CHARACTERS = 10_000
"""A longer error is cut: it is whole in results.jsonl."""


@record(frozen=True, slots=True)
class _Case:
    """One case: *kind* is failure, error or skipped, None for one that is well; *why* in a line, *text* at length."""

    name: str
    time_s: float | None = None
    kind: str | None = None
    type: str = ""
    why: str = ""
    text: str = ""


@dataclass(slots=True)
class _Suite:
    name: str
    cases: list[_Case]
    time_s: float = 0.0
    more: dict[str, int] = field(default_factory=dict)  # by kind ("" is well): runs that are no case of their own

    def count(self, *kinds: str | None) -> int:
        """Cases of one of *kinds*, or of any, and the runs that are none."""
        found = sum(not kinds or case.kind in kinds for case in self.cases)
        return found + sum(number for kind, number in self.more.items() if not kinds or (kind or None) in kinds)


def document(ledger: Ledger, health: JsonObject) -> bytes:
    """
    The file for the batch that *health*, the object of health.json, was folded of; *ledger* is where it was read.

    A run that failed is a failure, a cancelled one an error, a skipped one skipped. Runs that are pending are one error
    of their job. `tests`, `failures`, `errors` and `skipped` count all runs, also of a batch that has too many for a
    case each. The first suite has a case for the verdict, which fails unless the batch passes, and one a threshold.
    """
    batch = health["batch"]
    timings = timings_of(ledger)
    has_all = batch["runs"] <= MOST_CASES
    suites = [_judged(health)]
    suites += [_job(timings, name, job, batch["name"], has_all=has_all) for name, job in health["jobs"].items()]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', _open("testsuites", f"{batch['name']} {batch['id']}", suites)]
    for suite in suites:
        lines.append(_open("testsuite", suite.name, [suite], timestamp=batch["started_at"][:19]))
        lines += (_written(suite.name, case) for case in suite.cases)
        if suite.more:
            told = f"{sum(suite.more.values())} more runs are counted here, and in results.jsonl one by one"
            lines.append(f"<system-out>{told}</system-out>")
        lines.append("</testsuite>")
    return "\n".join([*lines, "</testsuites>", ""]).encode()


def _judged(health: JsonObject) -> _Suite:
    """The verdict, and each threshold."""
    verdict = health["verdict"]
    is_well = verdict == Verdict.PASS
    why = "; ".join(f"{name}: {job['stopped']}" for name, job in health["jobs"].items() if job["stopped"])
    cases = [_Case("verdict", None, None if is_well else "failure", verdict, f"{verdict}: {why}" if why else verdict)]
    for one in health["thresholds"]:
        of = f"{one['job']}: " if one.get("job") else ""
        kind = None if one["pass"] else "failure"
        cases.append(_Case(f"{of}{one['name']} {one['bound']}", None, kind, "threshold", f"{of}{said(one)}"))
    return _Suite(health["batch"]["name"], cases)


def _job(timings: Timings, name: str, job: JsonObject, batch: str, *, has_all: bool) -> _Suite:
    states = None if has_all else (State.FAILED, State.CANCELLED, State.SKIPPED)
    runs = list(timings.settled_runs(name, MOST_CASES, states))
    suite = _Suite(f"{batch}.{name}", [_run(run) for run in runs])
    suite.time_s = sum(run.execution_time_ms or 0 for run in runs) / 1000
    for state, kind in _KINDS.items():
        if left := job[state] - sum(run.state is state for run in runs):
            suite.more[kind] = left
    if pending := job["pending"]:
        waiting = "1 run is pending" if pending == 1 else f"{pending} runs are pending"
        suite.cases.append(_Case("pending", None, "error", "pending", waiting))
    return suite


def _run(run: EndedRun) -> _Case:
    kind, name = _KINDS[run.state] or None, f"{run.index} {run.key}"
    time_s = None if run.execution_time_ms is None else run.execution_time_ms / 1000
    error = run.error or {}
    message = error.get("message") or run.message or ""
    where = f"worker {run.worker_id}\n" if run.worker_id else ""
    text = f"{where}{error.get('traceback') or message}"[:MOST_CHARACTERS]
    return _Case(name, time_s, kind, run.outcome or run.state, str(message).strip().split("\n")[0][:200], text)


_KINDS = {State.SUCCEEDED: "", State.FAILED: "failure", State.CANCELLED: "error", State.SKIPPED: "skipped"}


def _open(tag: str, name: str, suites: list[_Suite], **more: str) -> str:
    counts: dict[str, object] = {
        "name": name,
        "tests": sum(suite.count() for suite in suites),
        "failures": sum(suite.count("failure") for suite in suites),
        "errors": sum(suite.count("error") for suite in suites),
    }
    if tag == "testsuite":
        counts["skipped"] = sum(suite.count("skipped") for suite in suites)
    return f"<{tag}{_attributes(counts | {'time': _s(sum(suite.time_s for suite in suites))} | more)}>"


def _written(suite: str, case: _Case) -> str:
    attributes: dict[str, object] = {"name": case.name, "classname": suite}
    if case.time_s is not None:
        attributes["time"] = _s(case.time_s)
    if case.kind is None:
        return f"<testcase{_attributes(attributes)}/>"
    type_ = {} if case.kind == "skipped" else {"type": case.type}
    why = f"<{case.kind}{_attributes(type_ | {'message': case.why})}>{_text(case.text)}</{case.kind}>"
    return f"<testcase{_attributes(attributes)}>{why}</testcase>"


def _s(time_s: float) -> str:
    return f"{time_s:.3f}"


def _attributes(named: Mapping[str, object]) -> str:
    return "".join(f' {name}="{_text(str(value))}"' for name, value in named.items())


_NEVER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write."""

_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def _text(foreign: str) -> str:
    """*foreign* as text and attributes may have it: nothing in it is markup, and what XML can't say is U+FFFD."""
    return _NEVER.sub("\ufffd", foreign).translate(_ESCAPES)
