"""Make a failing life smaller: leave out whatever it fails without."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torture.simulation.flows import is_needed
from torture.simulation.life import Life, live
from torture.simulation.machine import Machine
from torture.simulation.scenario import Scenario


def minimised(scenario: Scenario, folder: Path, machine: Machine, say: Callable[[str], None]) -> tuple[Scenario, Life]:
    """The smallest scenario found that breaks the same invariant as *scenario*, and its life."""
    life = live(scenario, folder, machine)
    if not life.wrong:
        return scenario, life
    wanted = _kind(life.wrong[0])
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(scenario, life):
            tried = live(smaller, folder, machine)
            if any(_kind(text) == wanted for text in tried.wrong):
                say(f"{len(life.lines)} -> {len(tried.lines)} lines")
                scenario, life, is_smaller = smaller, tried, True
                break
    return scenario, life


def _kind(text: str) -> str:
    """*text* without what is particular to one run."""
    return re.sub(r"[0-9a-f-]*[0-9][0-9a-f.-]*", "#", text)[:80]


def _smaller(scenario: Scenario, life: Life) -> Iterator[Scenario]:
    """Scenarios that lack something of *scenario*, those that lack much first."""
    jobs = scenario.spec["jobs"]
    for number in range(len(scenario.processes)):
        if len(scenario.processes) > 1:
            yield replace(scenario, processes=_without(scenario.processes, number))
    for name in jobs:
        if len(jobs) > 1 and not is_needed(jobs, name):
            yield _with_jobs(scenario, {other: job for other, job in jobs.items() if other != name})
    for name, job in jobs.items():
        rows = job["rows"].get("inline", ())
        for keep in (1, len(rows) // 2, len(rows) - 1):
            if 0 < keep < len(rows):
                yield _with_jobs(scenario, jobs | {name: job | {"rows": job["rows"] | {"inline": rows[:keep]}}})
    for number in range(len(scenario.windows)):
        yield replace(scenario, windows=_without(scenario.windows, number))
    if scenario.purges:
        yield replace(scenario, purges=())
    for step in (max(1, len(life.injected)), max(1, len(life.injected) // 3), 1):
        for start in range(0, len(life.injected), step):
            yield replace(scenario, muted=scenario.muted | set(life.injected[start : start + step]))
    for number, plan in enumerate(scenario.processes):
        fewer = [replace(plan, acts=_without(plan.acts, act)) for act in range(len(plan.acts))]
        if plan.kill is not None:
            fewer.append(replace(plan, kill=None))
        if plan.disk is not None:
            fewer.append(replace(plan, disk=None))
        if plan.edit is not None:
            fewer.append(replace(plan, edit=None))
        if plan.moved:
            fewer.append(replace(plan, moved=False))
        if plan.down_s:
            fewer.append(replace(plan, down_s=0.0))
        for less in fewer:
            yield replace(scenario, processes=(*scenario.processes[:number], less, *scenario.processes[number + 1 :]))
    for name, job in jobs.items():
        for key in sorted(job.keys() - {"endpoint", "rows", "input", "timeouts", "on_answer_lost", "mode", "needs"}):
            fewer_keys = {other: value for other, value in job.items() if other != key}
            yield _with_jobs(scenario, jobs | {name: fewer_keys})
    for field, plain in (("commit_s", 0.001), ("thread_s", 0.0), ("slow", 0.0), ("generators", 0.0)):
        if getattr(scenario, field) != plain:
            changed: dict[str, Any] = {field: plain}
            yield replace(scenario, **changed)


def _without(items: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    return items[:number] + items[number + 1 :]


def _with_jobs(scenario: Scenario, jobs: dict[str, Any]) -> Scenario:
    used = {job["endpoint"] for job in jobs.values()}
    endpoints = {name: one for name, one in scenario.spec["endpoints"].items() if name in used}
    return replace(scenario, spec=scenario.spec | {"jobs": jobs, "endpoints": endpoints})
