"""What a batch came to: verdict, endpoints, counts, money."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from runner import cost
from runner.clock import iso
from runner.cost import Basis
from runner.health import MILD, is_calm
from runner.page.charts import Told, shares, swatch
from runner.page.html import Html, Part, cut, join, tag
from runner.page.said import RUNNING, bounds, sentence
from runner.page.tables import table
from runner.page.words import number, several, share, took, usd
from runner.units import elapsed
from runner.values import JsonObject

STATES = ("succeeded", "failed", "cancelled", "skipped", "pending")
SHOWN = ("runs", "succeeded", "failed")
COLUMNS = {"retried": "Tried again"}

MOST_JOBS = 100
MOST_ENDPOINTS = 20
NAME_BYTES = 120


def section(name: str, title: str, *parts: Part, note: str = "") -> Html:
    """A part of the page with a heading; *name* is its id."""
    small = tag("p", note, class_="note") if note else None
    return tag("section", tag("h2", title), small, *parts, id=name)


def verdict(health: JsonObject, *, now: float, left_s: float | None = None) -> Html:
    """
    The head of the page: the verdict in a sentence, thresholds, and what people ask first.

    *left_s* is how long a running batch may still take, None where nobody can guess.
    """
    totals, word = health["batch"], health["verdict"]
    held = [
        tag("li", tag("b", "holds" if holds else "broken", class_="yes" if holds else "no"), text)
        for text, holds in bounds(health)
    ]
    return tag(
        "header",
        tag("p", cut(totals["name"], NAME_BYTES), tag("span", _which(health, now), class_="id"), class_="name"),
        tag("h1", tag("span", word, class_=f"verdict {_tone(word)}"), tag("span", sentence(health), class_="said")),
        tag("ul", held, class_="bounds") if held else None,
        tag("div", list(_tiles(health, now, left_s)), class_="tiles"),
    )


def _which(health: JsonObject, now: float) -> str:
    totals = health["batch"]
    parts = [totals["id"]]
    if totals.get("profile") is not None:
        parts.append(f"profile {cut(totals['profile'], NAME_BYTES)}")
    if health["verdict"] == RUNNING:
        parts.append(f"as of {iso(now)[11:19]} UTC")
    return " · ".join(parts)


def _tone(word: str) -> str:
    if word == RUNNING:
        return "live"
    return {"pass": "good", "fail": "bad", "stopped": "bad", "refused": "bad"}.get(word, "open")


def _tiles(health: JsonObject, now: float, left_s: float | None) -> Iterable[Html]:
    totals = health["batch"]
    runs, settled = totals["runs"], totals["runs"] - totals["pending"]
    if totals["pending"]:
        yield _tile("settled", share(settled, runs), f"{number(settled)} of {number(runs)}")
    yield _tile("succeeded", share(totals["succeeded"], settled), f"{number(totals['succeeded'])} of {number(settled)}")
    took_s = _took_s(health, now)
    if took_s is not None:
        rate = settled / took_s if took_s > 0 else 0
        left = f", about {elapsed(left_s)} left" if left_s is not None and health["verdict"] == RUNNING else ""
        yield _tile("took" if totals["ended_at"] else "so far", elapsed(took_s), _rate(rate) + left)
    slowest = [
        job["execution_time_ms"] for job in health["jobs"].values() if job["execution_time_ms"]["max"] is not None
    ]
    if len(slowest) == 1:
        yield _tile("execution p50", took(slowest[0]["p50"]), f"p95 {took(slowest[0]['p95'])}")
    elif slowest:
        most = max(slowest, key=lambda one: one["p95"])
        yield _tile("slowest job, p95", took(most["p95"]), f"its p50 {took(most['p50'])}")
    amount, basis = cost.total(health["jobs"].values())
    if amount is not None:
        is_exact = basis == Basis.EXACT
        untold = sum(job.get("cost_untold", 0) for job in health["jobs"].values())
        note = {Basis.EXACT: "exact, as outputs tell", Basis.EXECUTION: "execution only"}.get(
            basis or Basis.EXECUTION, f"{several(untold, 'attempt')} told none" if untold else "in part execution only"
        )
        if took_s and health["verdict"] == RUNNING:
            note += f"; {usd(amount / took_s * 3600)} USD an hour so far"
        yield _tile("cost" if is_exact else "cost, at least", f"{usd(amount)} USD", note)


def _tile(name: str, value: str, note: str) -> Html:
    return tag("div", tag("span", name, class_="of"), tag("b", value), tag("span", note, class_="note"), class_="tile")


def _took_s(health: JsonObject, now: float) -> float | None:
    """How long the batch took; of one that was cut off nobody knows."""
    totals = health["batch"]
    started = datetime.fromisoformat(totals["started_at"]).timestamp()
    if totals["ended_at"] is not None:
        return datetime.fromisoformat(totals["ended_at"]).timestamp() - started
    return max(0.0, now - started) if health["verdict"] == RUNNING else None


def _rate(per_s: float) -> str:
    if per_s >= 1:
        return f"{number(round(per_s, 1))} runs/s"
    return f"{number(round(per_s * 60, 1))} runs/min" if per_s * 60 >= 1 else f"{number(round(per_s * 3600, 1))} runs/h"


def endpoints(health: JsonObject) -> Html | None:
    """What is to be said of each endpoint, with its counters."""
    found = list(health["endpoints"].items())
    if not found:
        return None
    cards = [
        tag("div", tag("h3", cut(name, NAME_BYTES)), _diagnosis(told["diagnosis"]), _counters(told), class_="card")
        for name, told in found[:MOST_ENDPOINTS]
    ]
    left = f"{len(found) - MOST_ENDPOINTS} more are in health.json." if len(found) > MOST_ENDPOINTS else ""
    return section("endpoints", "Endpoints", tag("div", cards, class_="cards"), note=left)


def _diagnosis(said: str) -> Html:
    """A sentence of `health`: a word for it, what was seen, and the setting that mends it."""
    word, colon, rest = said.partition(": ")
    seen, _, fix = rest.rpartition("; ") if "; " in rest else (rest, "", "")
    found = tag("b", word, class_=f"tag {_gravity(said)}") if colon else None
    return join(
        tag("p", found, cut(seen if colon else said, 1000)),
        tag("p", tag("b", "To do: "), cut(fix, 1000)) if fix else None,
    )


def _gravity(said: str) -> str:
    if said.startswith(("was ", *MILD)):
        return "open"
    return "good" if is_calm(said) else "bad"


def _counters(told: JsonObject) -> list[Html]:
    looks = f"; {several(told['samples'], 'look')}" if told["samples"] else ""
    lines = []
    for kind in ("workers", "jobs"):
        counts = [f"{number(count)} {cut(word, 40)}" for word, count in list(told[kind].items())[:12] if count]
        if told[kind]:
            lines.append(f"{kind}: {', '.join(counts) or 'none'}{looks if kind == 'jobs' else ''}")
    return [tag("p", line, class_="note") for line in lines]


def jobs(health: JsonObject) -> Html:
    """The runs of each job, by state and by outcome."""
    found = list(health["jobs"].items())
    totals = health["batch"]
    # What never happened takes no column: most batches have nothing cancelled, skipped, pending or tried again.
    words = [word for word in ("runs", *STATES, "retried", "reused") if totals.get(word) or word in SHOWN]
    rows: list[Sequence[Part]] = [
        (
            join(tag("span", cut(name, NAME_BYTES), class_="job"), _awaited(job), _states(job)),
            *(number(job[word]) for word in words),
            share(job["succeeded"], job["runs"] - job["pending"]),
        )
        for name, job in found[:MOST_JOBS]
    ]
    columns = ("Job", *(COLUMNS.get(word, word.capitalize()) for word in words), "Success")
    key = tag("ul", [tag("li", swatch(word), word) for word in STATES if totals[word]], class_="legend")
    left = f"{len(found) - MOST_JOBS} more jobs are in health.json." if len(found) > MOST_JOBS else ""
    return section("jobs", "Runs", key, table(columns, rows, folds=True), _outcomes(found[:MOST_JOBS]), note=left)


def _awaited(job: JsonObject) -> Html | None:
    names = job.get("waits_for")
    return tag("span", f"waits for {cut(', '.join(names), NAME_BYTES)}", class_="note") if names else None


def _states(job: JsonObject) -> Html:
    parts = [(word, word, float(job[word])) for word in STATES]
    said = ", ".join(f"{number(job[word])} {word}" for word in STATES if job[word])
    return shares(parts, Told("states", "Runs by state", said))


def _outcomes(found: Iterable[tuple[str, JsonObject]]) -> Html | None:
    rows = [
        (cut(name, NAME_BYTES), outcome, number(count), share(count, job["runs"]))
        for name, job in found
        for outcome, count in sorted(job["outcomes"].items(), key=lambda one: -one[1])
        if outcome != "completed"
    ]
    if not rows:
        return None
    return tag("div", tag("h3", "Other outcomes"), table(("Job", "Outcome", "Runs", "Share"), rows, texts=(0, 1)))


def money(health: JsonObject) -> Html | None:
    """What each job cost, and what a success did."""
    found = [(name, job) for name, job in health["jobs"].items() if job["cost_usd"] is not None]
    if not found:
        return None
    rows = [
        (
            cut(name, NAME_BYTES),
            usd(job["cost_usd"]),
            usd(job["cost_usd"] / job["succeeded"] if job["succeeded"] else None),
            usd(1000 * job["cost_usd"] / job["runs"] if job["runs"] and not job["pending"] else None),
        )
        for name, job in found[:MOST_JOBS]
    ]
    columns = ("Job", "USD", "USD a success", "USD per 1,000 runs")
    return section("money", "Money", table(columns, rows, folds=True), note=" ".join(_trust(health, found)))


def _trust(health: JsonObject, found: Sequence[tuple[str, JsonObject]]) -> Iterable[str]:
    """How far the amounts of the jobs *found* may be trusted."""
    kinds = {job.get("cost_basis") or Basis.EXECUTION for _, job in found}
    untold = sum(job.get("cost_untold", 0) for _, job in found)
    if kinds == {Basis.EXACT}:
        yield "Exact: every attempt told what it cost."
    elif kinds == {Basis.EXECUTION}:
        yield "Execution only, so a lower bound of the bill: workers are also paid for while they start and while they"
        yield "idle."
    else:
        yield "Attempts that told what they cost count with that, the others with their execution only: a lower bound."
    if untold:
        yield f"{several(untold, 'attempt')} told no cost that can be meant; log.jsonl has the first."
    unknown = len(health["jobs"]) - len(found)
    if unknown:
        yield f"{number(unknown)} of {number(len(health['jobs']))} jobs run at endpoints without 'cost_per_second'."
