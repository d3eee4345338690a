"""Single runs: the slowest, those that failed, those with one value of the matrix, and the files they made."""

from collections.abc import Iterable
from pathlib import Path

from runner.page.figures import Failure, Figures
from runner.page.grid import MatrixAxis
from runner.page.html import Address, Html, Part, below, cut, tag
from runner.page.overview import NAME_BYTES, section
from runner.page.tables import table
from runner.page.words import number, several, share, took
from runner.timings import Artifact
from runner.units import size
from runner.values import JsonObject

MESSAGE_BYTES = 700
TRACEBACK_BYTES = 4_000
FILES_BYTES = 40_000
"""So much of the page the list of files may take: their names can be long."""


def slowest(figures: Figures) -> Html | None:
    """The runs with the longest execution."""
    if not figures.slowest:
        return None
    rows = [
        (
            _run(one.job, one.index),
            tag("code", one.key[:12]),
            cut(one.worker_id or "–", 80),
            one.state.value,
            took(one.delay_time_ms),
            took(one.execution_time_ms),
            number(one.attempts),
        )
        for one in figures.slowest
    ]
    columns = ("Run", "Key", "Worker", "State", "Delay", "Execution", "Attempts")
    return section("slowest", "Slowest runs", table(columns, rows, texts=(0, 1, 2, 3), folds=True))


def failures(figures: Figures) -> Html | None:
    """The runs that did not succeed, those that failed alike together."""
    if not figures.failures:
        return None
    left = f"{several(figures.failures_left, 'more run')} failed in yet other ways." if figures.failures_left else ""
    groups = [_failure(one, at) for at, one in enumerate(figures.failures)]
    return section("failures", "What went wrong", tag("ol", groups, class_="failures"), note=left)


def _failure(one: Failure, at: int) -> Html:
    group = one.group
    first = one.examples[0] if one.examples else None
    alike = f", in {number(group.wordings)} wordings, such as" if group.wordings > 1 else ""
    outcome = f" {first.outcome}" if first is not None and first.outcome else ""
    runs = [f"{_run(group.job, run.index)}{_by(run.worker_id)}" for run in one.examples]
    traceback = _traceback(first.error) if first is not None and first.error else ""
    return tag(
        "li",
        tag(
            "p",
            tag("b", f"{number(group.count)} ×"),
            f"{outcome} in {cut(group.job, NAME_BYTES)}{alike}",
            class_="head",
        ),
        tag("pre", cut(group.message.strip(), MESSAGE_BYTES) or "(no message)"),
        tag("details", tag("summary", "Traceback"), tag("pre", traceback), id=f"traceback-{at}") if traceback else None,
        tag("p", "for example " + "; ".join(runs), class_="note") if runs else None,
    )


def _by(worker_id: str | None) -> str:
    return "" if worker_id is None else f" by {cut(worker_id, 80)}"


def _traceback(error: JsonObject) -> str:
    text = error.get("traceback")
    if not isinstance(text, str) or not text.strip():
        return ""
    shown = cut(text, TRACEBACK_BYTES)
    return shown if shown == text else f"{shown}\n… (cut; runner show has all of it)"


def _run(job: str, index: int) -> str:
    return f"{cut(job, NAME_BYTES)}:{index}"


def matrix(figures: Figures) -> Html | None:
    """The runs by the values of each parameter."""
    if figures.matrix is None:
        return section(
            "matrix", "By parameter", note="Left out: the inputs of this batch are too large to be read again."
        )
    if not figures.matrix:
        return None
    shown = [_axis(one) for one in figures.matrix]
    return section("matrix", "By parameter", tag("div", shown, class_="pair"))


def _axis(one: MatrixAxis) -> Html:
    rows = [
        (
            cut(cell.value, 80),
            number(cell.runs),
            number(cell.succeeded),
            share(cell.succeeded, cell.runs),
            took(cell.execution_ms),
        )
        for cell in one.cells
    ]
    left = tag("p", f"{several(one.left, 'more run')} with other values", class_="note") if one.left else None
    head = tag("h3", f"{cut(one.job, NAME_BYTES)}: {cut(one.name, NAME_BYTES)}")
    return tag(
        "div",
        head,
        table((cut(one.name, 40), "Runs", "Succeeded", "Success", "Execution p50"), rows),
        left,
    )


def files(figures: Figures, folder: Path, there: str) -> Html | None:
    """What outputs became, pictures as pictures; *there* is where the batch folder is, seen from the page."""
    found = figures.files
    if not found.count:
        return None
    budget = [FILES_BYTES]
    pictures = [_picture(one, there) for one in _fitting(found.pictures, folder, budget)]
    others = [_file(one, there) for one in _fitting(found.others, folder, budget)]
    shown = len(pictures) + len(others)
    link = tag("a", "the folder artifacts", href=below(there, "artifacts/"))
    total = f"{several(found.count, 'file')}, {size(found.size_bytes)}"
    note: Part = [f"{total}, in ", link, "." if shown >= found.count else f". The first {number(shown)}:"]
    return section(
        "files",
        "Files",
        tag("p", note, class_="note"),
        tag("ul", pictures, class_="pictures") if pictures else None,
        tag("ul", others, class_="others") if others else None,
    )


def _fitting(found: Iterable[Artifact], folder: Path, budget: list[int]) -> Iterable[Artifact]:
    """Those that are there, and whose names still have room in the page."""
    for one in found:
        taken = 2 * len(below("", one.path).text) + 300
        if taken > budget[0] or not (folder / one.path).is_file():
            continue
        budget[0] -= taken
        yield one


def _picture(one: Artifact, there: str) -> Html:
    where: Address = below(there, one.path)
    name = _run(one.job, one.index)
    picture = tag("img", src=where, alt=name, loading="lazy", decoding="async", width=160, height=120)
    return tag("li", tag("a", picture, tag("span", name), href=where))


def _file(one: Artifact, there: str) -> Html:
    name = one.path.removeprefix("artifacts/")
    return tag("li", tag("a", name, href=below(there, one.path)), f" {size(one.size_bytes)}")
