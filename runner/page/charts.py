"""Draw figures as SVG, and put words and numbers beside them. Pure; no size of text depends on that of the page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.page.axes import Axis
from runner.page.html import Html, Part, join, tag
from runner.page.timelines import Row, Timeline

WIDE = 1000
"""Units across a drawing, whatever the width of the page."""

HIGH = 160
"""Pixels, and units, of the height of a drawing over time."""


@dataclass(frozen=True, slots=True)
class Series:
    """A row of numbers of one kind: *name* is said to people, *kind* is its class in the style sheet."""

    name: str
    kind: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Told:
    """What a chart is called, what it shows in a sentence for who can't see it, and a note in small print."""

    name: str
    title: str
    desc: str
    note: str = ""


def stacked(told: Told, series: Sequence[Series], across: Axis, up: Axis, table: Html) -> Html:
    """Numbers over time, one series on the other, each bin a step."""
    drawn: list[Part] = []
    below = [0.0] * len(series[0].values)
    for one in series:
        above = [low + value for low, value in zip(below, one.values, strict=True)]
        if any(one.values):
            path = _band([up.place(low) for low in below], [up.place(high) for high in above])
            drawn.append(tag("path", class_=f"fill {one.kind}", d=path))
        below = above
    shown = [one for one in series if any(one.values)]
    return figure(told, _drawing(told, HIGH, _rules(up, HIGH), drawn), legend(shown), across.labels, up.labels, table)


def distribution(
    told: Told, counts: Sequence[int], marks: Mapping[str, float], across: Axis, key: Html, table: Html
) -> Html:
    """How many there were in each of equal parts of *across*, and where the *marks* stand."""
    most = max(counts, default=0) or 1
    part = WIDE / len(counts)
    bars = "".join(
        f"M{_n(part * at + 1)} 100V{_n(min(99, 100 - 96 * count / most))}h{_n(part - 2)}V100z"
        for at, count in enumerate(counts)
        if count
    )
    lines = [
        tag("path", class_=f"mark {name}", d=f"M{_n(min(WIDE - 1, WIDE * across.place(value)))} 0V100")
        for name, value in marks.items()
    ]
    body = _drawing(
        told, 100, tag("path", class_="rule", d=f"M0 100H{WIDE}"), tag("path", class_="fill bar", d=bars), lines
    )
    return figure(told, body, key, across.labels, (), table)


def shares(parts: Sequence[tuple[str, str, float]], told: Told) -> Html:
    """A bar that is made of *parts*: name, class and size of each."""
    total = sum(size for _, _, size in parts) or 1
    drawn, at = [], 0.0
    for name, kind, size in parts:
        if size:
            wide = WIDE * size / total
            title = tag("title", f"{name}: {size:,.4g}")
            drawn.append(tag("rect", title, class_=f"fill {kind}", x=_n(at), y=0, width=_n(wide), height=12))
            at += wide
    return tag(
        "svg",
        tag("title", told.desc),
        drawn,
        class_="shares",
        viewBox=f"0 0 {WIDE} 12",
        preserveAspectRatio="none",
        width="100%",
        height=12,
        role="img",
    )


def timeline(told: Told, drawn: Timeline, name: Callable[[Row], str], across: Axis, key: Html, table: Html) -> Html:
    """A row for each worker: its attempts, or how busy it was."""
    lane = _lane_height(drawn)
    most = max((value for row in drawn.rows if row.worker is not None for value in row.busy), default=0.0)
    rows = [
        tag(
            "div",
            tag("span", name(row), class_="who"),
            _bins(row, most) if drawn.columns else _attempts(row, drawn, lane),
            class_="row",
        )
        for row in drawn.rows
    ]
    body = tag("div", rows, class_="rows", role="img", aria_label=f"{told.title}. {told.desc}")
    return tag(
        "figure",
        _caption(told),
        key,
        body,
        tag("div", tag("span", class_="who"), _across(across.labels), class_="row foot"),
        _numbers(table, told.name),
        class_="chart timeline",
    )


def figure(told: Told, body: Html, key: Html | None, across: Sequence[str], up: Sequence[str], table: Html) -> Html:
    """A drawing with its caption, its labels, and its numbers as a *table* to unfold."""
    labels = tag("div", [tag("span", label) for label in reversed(up)], class_="up", aria_hidden="true") if up else None
    return tag(
        "figure",
        _caption(told),
        key,
        tag("div", labels, tag("div", body, _across(across), class_="area"), class_="frame" if up else "frame bare"),
        _numbers(table, told.name),
        class_="chart",
    )


def legend(series: Iterable[Series]) -> Html:
    """Which colour and pattern is what."""
    return tag("ul", [tag("li", swatch(one.kind), one.name) for one in series], class_="legend")


def swatch(kind: str) -> Html:
    """A small sample of the class *kind*."""
    sample = tag("rect", class_=f"fill {kind}", width=14, height=10, rx=2)
    return tag("svg", sample, class_="swatch", width=14, height=10, aria_hidden="true")


def patterns() -> Html:
    """The patterns that the style sheet fills with, once a page: they tell colours apart for who can't."""
    made = [
        _pattern("queue", 7, "M-1 1l2-2M0 7l7-7M6 8l2-2"),
        _pattern("wait", 5, "M1 1h1.5v1.5h-1.5z"),
        _pattern("lag", 5, "M1 0v5"),
        _pattern("untold", 6, "M0 0l6 6M6 0l-6 6"),
    ]
    return tag("svg", tag("defs", made), class_="patterns", width=0, height=0, aria_hidden="true")


def _pattern(name: str, size: int, lines: str) -> Html:
    return tag(
        "pattern",
        tag("rect", class_=f"ground {name}", width=size, height=size),
        tag("path", class_=f"lines {name}", d=lines),
        id=f"pattern-{name}",
        width=size,
        height=size,
        patternUnits="userSpaceOnUse",
    )


def _caption(told: Told) -> Html:
    note = tag("span", told.note, class_="note") if told.note else None
    return tag("figcaption", tag("b", told.title), note)


def _numbers(table: Html, name: str) -> Html:
    return tag("details", tag("summary", "Numbers"), table, id=f"numbers-{name}", class_="numbers")


def _across(labels: Sequence[str]) -> Html:
    return tag("div", [tag("span", tag("i", label)) for label in labels], class_="across", aria_hidden="true")


def _drawing(told: Told, height: int, *parts: Part) -> Html:
    return tag(
        "svg",
        tag("title", told.title, id=f"title-{told.name}"),
        tag("desc", told.desc, id=f"desc-{told.name}"),
        join(*parts),
        viewBox=f"0 0 {WIDE} {height}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"title-{told.name} desc-{told.name}",
    )


def _rules(up: Axis, height: int) -> Html:
    gaps = max(1, len(up.labels) - 1)
    lines = "".join(f"M0 {_n(height * at / gaps)}H{WIDE}" for at in range(gaps + 1))
    return tag("path", class_="rule", d=lines)


def _band(below: Sequence[float], above: Sequence[float]) -> str:
    """The outline of steps between two heights, each 0..1; bins where they are equal are left out."""
    step = WIDE / len(below)
    found = []
    at = 0
    while at < len(below):
        if above[at] <= below[at]:
            at += 1
            continue
        end = at
        while end < len(below) and above[end] > below[end]:
            end += 1
        there = [f"M{_n(step * at)} {_y(above[at])}"]
        there += [f"V{_y(above[number])}H{_n(step * (number + 1))}" for number in range(at, end)]
        back = [f"V{_y(below[number])}H{_n(step * number)}" for number in range(end - 1, at - 1, -1)]
        found.append("".join([*there, *back, "z"]))
        at = end
    return "".join(found)


def _y(share: float) -> str:
    return _n(HIGH * (1 - share))


def _lane_height(drawn: Timeline) -> int:
    lanes = sum(row.lanes for row in drawn.rows)
    return max(4, min(14, 420 // max(1, lanes)))


ROW = 22
"""Pixels of the height of a row of bins."""


def _bins(row: Row, most: float) -> Html:
    """A worker's row in bins: as high as it was busy, the busiest of all being the whole height."""
    step = WIDE / len(row.busy)
    scale = (ROW - 1) / max(1.0, most if row.worker is not None else max(row.busy))  # several together have their own
    path = "".join(
        f"M{_n(step * at)} {ROW}v-{_n(max(1.0, value * scale))}h{_n(step - 1)}V{ROW}z"
        for at, value in enumerate(row.busy)
        if value > 0.0005
    )
    return _strip(ROW, tag("path", class_="fill execution", d=path) if path else None)


TITLED = 250
"""Of so many bars each says what it is when pointed at; of more, only the table does."""


def _attempts(row: Row, drawn: Timeline, lane: int) -> Html:
    """A worker's row with each attempt, in lanes: what overlaps in time is drawn one below the other."""
    gap = 1 if lane < 8 else 2
    span = drawn.span
    paths: dict[str, list[str]] = {}
    titles: list[Part] = []
    is_titled = sum(len(one.bars) for one in drawn.rows) <= TITLED
    for bar in row.bars:
        y = bar.lane * lane
        for phase, begin, end in bar.stretches:
            left = WIDE * (begin - span.start) / span.length_s
            wide = max(0.8, WIDE * (end - begin) / span.length_s)
            paths.setdefault(phase, []).append(f"M{_n(left)} {y}h{_n(wide)}v{lane - gap}h-{_n(wide)}z")
        if is_titled:
            begin, end = bar.stretches[0][1], bar.stretches[-1][2]
            left, wide = WIDE * (begin - span.start) / span.length_s, WIDE * (end - begin) / span.length_s
            titles.append(
                tag("rect", tag("title", bar.title), class_="over", x=_n(left), y=y, width=_n(wide), height=lane)
            )
    return _strip(
        row.lanes * lane,
        [tag("path", class_=f"fill {phase}", d="".join(pieces)) for phase, pieces in paths.items()],
        titles,
    )


def _strip(height: int, *parts: Part) -> Html:
    return tag(
        "svg",
        join(*parts),
        viewBox=f"0 0 {WIDE} {height}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
    )


def _n(value: float) -> str:
    """A number in a drawing, in as few characters as show it."""
    text = f"{value:.1f}"
    return text.removesuffix(".0")
