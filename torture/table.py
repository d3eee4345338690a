"""The table of faults: what each program of `torture` tried, held against the list of what must be tried. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torture.expected import FAULTS, WHERE, Fault

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
"""What stands between these lines of the document is written by a run."""

SHOWN = 5
"""So many problems of a program are told at the end; the rest it has printed itself."""

LEAST_KILLS = 200
"""So many times at least a real process of ours is ended by SIGKILL in a whole run."""


class Unreadable(Exception):
    """Raised when what a program left behind is not what it promised. The message says what is wrong."""


@dataclass(frozen=True)
class Row:
    """
    One fault as one program tried it: *tried* times, over *runs* runs of a job.

    *lost* counts runs whose result was lost, *paid_twice* those that were submitted twice unawares, and
    *sent_again_knowingly* those whose answer was lost and which `on_answer_lost: resubmit` sent again.
    """

    fault: str
    where: str
    how: str
    tried: int
    runs: int
    lost: int
    paid_twice: int
    sent_again_knowingly: int


@dataclass(frozen=True)
class Report:
    """What one program came to. *seconds* is by the clock on the wall."""

    name: str
    rows: Sequence[Row]
    kills: int = 0
    seed: int = 0
    seconds: float = 0.0
    problems: Sequence[str] = field(default_factory=list)


def read(path: Path, name: str) -> Report:
    """
    The report that the program *name* wrote to *path*.

    Raises:
        Unreadable: there is none, or it lacks something, or a number is not one.
    """
    try:
        told = json.loads(path.read_bytes())
        rows = [_row(one) for one in told["rows"]]
        problems = [str(one) for one in told["problems"]]
        return Report(name, rows, int(told["kills"]), int(told["seed"]), float(told["seconds"]), problems)
    except FileNotFoundError:
        raise Unreadable(f"{name} left no report") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{name} left a report that can't be read: {type(error).__name__}: {error}") from None


def _row(told: Mapping[str, object]) -> Row:
    row = Row(**{one.name: told[one.name] for one in fields(Row)})  # type: ignore[arg-type]
    for one in fields(Row):
        value = getattr(row, one.name)
        is_right = isinstance(value, str) if one.type is str else type(value) is int and value >= 0
        if not is_right:
            raise ValueError(f"{one.name} of {row.fault!r} is {value!r}")
    if row.where not in WHERE:
        raise ValueError(f"{row.fault!r} is somewhere else: {row.where!r}")
    return row


def showing(fault: Fault, rows: Iterable[Row]) -> list[Row]:
    """The *rows* that tried *fault*."""
    return [row for row in rows if row.tried and fault.is_shown_by(row.fault)]


def problems(
    reports: Sequence[Report], *, faults: Sequence[Fault] = FAULTS, least_kills: int = LEAST_KILLS
) -> list[str]:
    """All that is wrong with a whole run; nothing, when every fault was tried and survived."""
    rows = [row for report in reports for row in report.rows]
    found = [f"{report.name}: {text}" for report in reports for text in _first(report.problems)]
    for row in rows:
        if row.lost:
            found.append(f"{row.how}: {row.fault}: {row.lost} lost")
        if row.paid_twice:
            found.append(f"{row.how}: {row.fault}: {row.paid_twice} paid twice unawares")
    missing = [fault for fault in faults if fault.untried is None and not showing(fault, rows)]
    found += [f"never tried: {fault.where}: {fault.name}" for fault in missing]
    kills = sum(report.kills for report in reports if report.name != "simulation")
    if kills < least_kills:
        found.append(f"{kills} kills, and {least_kills} were promised")
    return found


def _first(texts: Sequence[str]) -> Iterator[str]:
    yield from texts[:SHOWN]
    if len(texts) > SHOWN:
        yield f"and {len(texts) - SHOWN} more problems"


HEAD = ("fault", "tried by", "times", "runs", "lost", "paid twice", "sent again knowingly")


def lines(reports: Sequence[Report], faults: Sequence[Fault] = FAULTS) -> list[tuple[str, ...]]:
    """
    The lines of the table: for each place a line with its name alone, then one for each fault of the list, then one
    for what was tried beyond it.
    """
    rows = [row for report in reports for row in report.rows if row.tried]
    found: list[tuple[str, ...]] = []
    for where in WHERE:
        found.append((where,))
        here = [fault for fault in faults if fault.where == where]
        for fault in here:
            shown = showing(fault, rows)
            found.append(_line(fault.name, shown) if shown else (fault.name, *_untried(fault)))
        listed = {id(row) for fault in faults for row in showing(fault, rows)}
        beyond = [row for row in rows if row.where == where and id(row) not in listed]
        names = dict.fromkeys(row.fault for row in beyond)
        found += [_line(name, [row for row in beyond if row.fault == name]) for name in names]
    return [line for line, after in zip(found, [*found[1:], ("",)], strict=True) if len(line) > 1 or len(after) > 1]


def _line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    sums = [sum(getattr(row, one) for row in rows) for one in ("tried", "runs", "lost", "paid_twice")]
    again = sum(row.sent_again_knowingly for row in rows)
    return (name, ", ".join(dict.fromkeys(row.how for row in rows)), *map(str, [*sums, again]))


def _untried(fault: Fault) -> tuple[str, ...]:
    reason = "NEVER TRIED" if fault.untried is None else f"not tried: {fault.untried}"
    return (reason, "0", "", "", "", "")


def as_text(reports: Sequence[Report], faults: Sequence[Fault] = FAULTS) -> str:
    """The table for a terminal."""
    found = [HEAD, *lines(reports, faults)]
    wide = [line for line in found if len(line) > 1]
    widths = [min(48, max(len(line[at]) for line in wide)) for at in range(len(HEAD))]

    def shown(line: tuple[str, ...]) -> str:
        if len(line) == 1:
            return f"\n{line[0]}"
        texts = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
        return "  ".join([*texts, *(text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True))])

    return "\n".join(shown(line).rstrip() for line in found)


def as_markdown(
    reports: Sequence[Report], facts: Mapping[str, str], wrong: Sequence[str], faults: Sequence[Fault] = FAULTS
) -> str:
    """The table for the document: *facts* of the run, what each program did, the faults, what is *wrong* with it."""
    told = [f"- {name}: {text}" for name, text in facts.items()]
    told += ["", "| program | seed | SIGKILLs | runs | seconds |", "|---|---|---|---|---|"]
    for report in reports:
        runs = sum(row.runs for row in report.rows)
        told.append(f"| {report.name} | {report.seed} | {report.kills} | {runs} | {report.seconds:.0f} |")
    told += ["", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for line in lines(reports, faults):
        cells = (f"**{line[0]}**", *[""] * (len(HEAD) - 1)) if len(line) == 1 else line
        told.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    told += ["", "Nothing was lost, and nothing was paid for twice unawares." if not wrong else "**This run failed:**"]
    # The rest of each was printed, and names folders that are gone.
    first_lines = [f"- {text.partition(chr(10))[0]}" for text in wrong]
    return "\n".join([*told, *(["", *first_lines] if wrong else [])])


def rewritten(document: str, table: str) -> str:
    """
    *document* with *table* in the place of the one that it has.

    Raises:
        Unreadable: it has no such place.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Unreadable(f"the document has no place for the table, between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
