"""The parts of a report's page: no text becomes markup, time is accounted for to the last, memory stays bounded."""

import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.page import axes, words
from runner.page.bins import EXACT, Median, Occupancy, Span, lanes
from runner.page.errors import MOST_PATTERNS, grouped, pattern
from runner.page.html import Html, below, cut, safe, tag, trusted, weight_bytes
from runner.page.phases import Phase, phases
from runner.timings import Attempt


class Read(HTMLParser):
    """What a reader of HTML finds: elements, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text())
def test_no_text_becomes_an_element(text: str) -> None:
    """Outputs, errors, names: a model writes them, and nobody knows what it was fed."""
    page = tag("p", text, title=text)
    assert Read(page.text).elements == ["p"]
    assert "<" not in safe(text)
    assert '"' not in safe(text)


def test_a_text_stands_as_it_was_written() -> None:
    """Who looks for the cause of an error needs its letters, not what a browser makes of them."""
    text = "</style><script>alert(1)</script> & \"quotes\" <img src=x onerror='alert(2)'>"
    assert "".join(Read(tag("p", text).text).texts) == text


def test_marks_that_turn_text_around_are_left_out() -> None:
    """They would show a file name that ends otherwise than it does."""
    assert safe("gpj\u202egnp.exe\x1b[31m\0") == "gpjgnp.exe"


def test_only_an_address_of_ours_can_be_a_link() -> None:
    """A path is quoted whole, so that none becomes a scheme, leaves the folder's name or ends the attribute."""
    with pytest.raises(AssertionError, match="href needs an address"):
        tag("a", "x", href="javascript:alert(1)")
    assert below("", 'javascript:alert(1)"/?#.png').text == "./javascript%3Aalert%281%29%22/%3F%23.png"
    assert below("../up here", "a.png").text == "../up%20here/a.png"


def test_a_style_sheet_can_not_end_its_element() -> None:
    """What is trusted is ours; a slip in it is found when the page is made."""
    with pytest.raises(AssertionError, match="it would end its <style>"):
        trusted("p { } </STYLE>", within="style")


@given(st.text(), st.integers(0, 60))
def test_what_is_cut_takes_no_more_room_than_it_may(text: str, most_bytes: int) -> None:
    """However much of it must be escaped: the size of a page is promised."""
    shown = cut(text, most_bytes)
    assert weight_bytes(shown) <= most_bytes
    assert text.startswith(shown)


def attempt(**more: float | None) -> Attempt:
    """An attempt intended at 100, accepted at 101, ended at 110, that waited 3 s and executed 5 s."""
    told: dict[str, float | None] = {"intended_at": 100.0, "submitted_at": 101.0, "ended_at": 110.0}
    told |= {"delay_time_ms": 3000, "execution_time_ms": 5000} | more
    return Attempt(key="k", number=1, job="photos", worker_id="w1", **told)  # type: ignore[arg-type]


WAIT, QUEUE, EXECUTION, LAG, UNTOLD = Phase


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(
            attempt(), [(WAIT, 100, 101), (QUEUE, 101, 104), (EXECUTION, 104, 109), (LAG, 109, 110)], id="all"
        ),
        pytest.param(attempt(submitted_at=None, ended_at=105.0), [(WAIT, 100, 105)], id="never accepted"),
        pytest.param(attempt(ended_at=None), [(WAIT, 100, 101), (UNTOLD, 101, 120)], id="under way"),
        pytest.param(
            attempt(delay_time_ms=None, execution_time_ms=None), [(WAIT, 100, 101), (UNTOLD, 101, 110)], id="no times"
        ),
        pytest.param(
            attempt(execution_time_ms=None), [(WAIT, 100, 101), (QUEUE, 101, 104), (UNTOLD, 104, 110)], id="delay only"
        ),
        pytest.param(
            attempt(delay_time_ms=None),
            [(WAIT, 100, 101), (UNTOLD, 101, 105), (EXECUTION, 105, 110)],
            id="execution only",
        ),
        pytest.param(
            attempt(submitted_at=110.0), [(WAIT, 100, 102), (QUEUE, 102, 105), (EXECUTION, 105, 110)], id="held submit"
        ),
        pytest.param(attempt(execution_time_ms=60_000), [(EXECUTION, 100, 110)], id="clocks differ"),
    ],
)
def test_each_moment_of_an_attempt_is_in_one_phase(one: Attempt, expected: list[tuple[Phase, float, float]]) -> None:
    """Else the account of time would not add up, and somebody would look for the seconds that are missing."""
    assert phases(one, now=120.0) == expected


times = st.none() | st.integers(-5, 10_000)


@given(st.floats(0, 10), st.none() | st.floats(-5, 20), st.none() | st.floats(-5, 30), times, times)
def test_phases_follow_each_other_without_a_gap(
    begin: float, submitted: float | None, ended: float | None, delay: int | None, execution: int | None
) -> None:
    """Whatever a server says of its times."""
    one = Attempt("k", 1, "photos", None, begin, submitted, ended, delay, execution)
    found = phases(one, now=20.0)
    end = max(begin, 20.0 if ended is None else ended)
    moments = [begin, *(moment for _, start, stop in found for moment in (start, stop)), end]
    assert moments == sorted(moments)
    assert sum(stop - start for _, start, stop in found) == pytest.approx(end - begin)


def test_occupancy_is_what_counting_at_every_moment_would_find() -> None:
    """It is counted in bins as each stretch comes by, so that a million of them need no memory."""
    chance = random.Random(3)
    span, stretches = Span(100.0, 200.0, 10), []
    for _ in range(200):
        begin = chance.uniform(80, 210)
        stretches.append((begin, begin + chance.expovariate(1 / 7)))
    counted = Occupancy(span)
    for begin, end in stretches:
        counted.add(begin, end)
    for number, mean in enumerate(counted.means()):
        low, high = 100.0 + 10 * number, 110.0 + 10 * number
        covered = sum(max(0.0, min(high, end) - max(low, begin)) for begin, end in stretches)
        assert mean == pytest.approx(covered / 10)


@pytest.mark.parametrize("count", [1, 2, 3, EXACT, EXACT + 1, 20_000])
def test_the_median_of_many_is_within_a_hundredth(count: int) -> None:
    """And of few it is exact."""
    chance = random.Random(count)
    values = [round(chance.lognormvariate(6, 1)) for _ in range(count)]
    median = Median()
    for value in values:
        median.add(value)
    middle = sorted(values)[(count + 1) // 2 - 1]
    assert median.value == (middle if count <= EXACT else pytest.approx(middle, rel=0.011, abs=1))


def test_what_overlaps_has_lanes_of_its_own() -> None:
    """And a lane is used again as soon as it is free."""
    assert lanes([(0, 4), (1, 2), (2, 6), (3, 5), (4, 9)]) == [0, 1, 1, 2, 0]


def test_errors_that_differ_by_numbers_and_ids_are_one_group() -> None:
    """Else each of a thousand runs out of memory would be an error of its own."""
    found, left = grouped(
        "photos",
        [
            ("CUDA out of memory: 512 MiB on 0x7f3a11", 3),
            ("CUDA out of memory: 1,024 MiB on 0x9c", 5),
            ("no such file: 2f5dcaa4-f2b8-4e1c-9d0a-7c6e5b3a19f8.png", 1),
        ],
    )
    assert [(one.count, one.wordings, one.message) for one in found] == [
        (8, 2, "CUDA out of memory: 1,024 MiB on 0x9c"),
        (1, 1, "no such file: 2f5dcaa4-f2b8-4e1c-9d0a-7c6e5b3a19f8.png"),
    ]
    assert left == 0
    assert pattern("the added facade") == "the added facade"


def test_errors_without_end_are_counted_all_the_same() -> None:
    """A model that fails in its own words each time must not fill the memory."""
    letters = "abcdefghij"
    messages = [("".join(letters[int(digit)] for digit in str(number)), 1) for number in range(MOST_PATTERNS + 5)]
    found, left = grouped("photos", messages)
    assert (len(found), left) == (MOST_PATTERNS, 5)


@given(st.floats(0.001, 4e6))
def test_an_axis_of_time_has_round_labels_and_ends_soon_after_its_last_value(length_s: float) -> None:
    """What is left empty is lost."""
    axis = axes.times(length_s)
    assert length_s <= axis.high <= max(2 * length_s, 0.003, length_s + 3 * 86_400)
    assert 4 <= len(axis.labels) <= 6
    assert len(set(axis.labels)) == len(axis.labels)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_axis_of_times_holds_all_of_them(one: int, two: int, three: int) -> None:
    """From the least to the most, even where the few are far off."""
    least, middle, most = sorted((one, two, three))
    axis = axes.spread_ms(least, middle, most)
    assert axis.high >= most
    assert axis.low <= max(1, least)
    edges = axis.edges(40)
    assert edges == sorted(set(edges))


@given(st.floats(0, 1e9))
def test_an_axis_of_counts_ends_at_a_round_number(most: float) -> None:
    """Not far above the most."""
    axis = axes.counts(most)
    assert most <= axis.high <= max(1, 2 * most)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.number(10_000), "10,000"),
        (words.number(2.5), "2.50"),
        (words.several(1, "run"), "1 run"),
        (words.several(2000, "run"), "2,000 runs"),
        (words.share(599, 600), "99.8%"),
        (words.share(99_999, 100_000), ">99.9%"),
        (words.share(1, 100_000), "<0.1%"),
        (words.share(0, 600), "0%"),
        (words.share(0, 0), "–"),
        (words.short(5400), "1h30"),
        (words.short(0.5), "500ms"),
        (words.short(90_000), "1d1h"),
        (words.usd(0.0123), "0.0123"),
        (words.usd(None), "–"),
    ],
)
def test_numbers_are_said_as_people_read_them(said: str, expected: str) -> None:
    """All are never said where it was all but one."""
    assert said == expected


def test_markup_is_made_in_one_module_only() -> None:
    """Whoever makes `Html` elsewhere has to see to it that nothing foreign is in it."""
    from terminal import ROOT

    makers = [
        path.name
        for path in sorted((ROOT / "runner/page").glob("*.py"))
        if re.search(rf"\b{Html.__name__}\(", path.read_text()) and path.name != "html.py"
    ]
    assert makers == []
