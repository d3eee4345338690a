"""Durations, rates and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("90s", 90), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("1d", 86_400), (" 3 s ", 3)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """Users write 5m where RunPod wants 300000."""
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["30", "s", "1 week", "-5s", "1:30", "", "5m30s", "1e3s", "٣s x"])
def test_what_has_no_unit_is_no_duration(text: str) -> None:
    """A bare number would be seconds to one reader and milliseconds to the next."""
    with pytest.raises(ValueError, match="a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d"):
        units.duration_s(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("950/10s", units.Rate(950, 10)), ("5/s", units.Rate(5, 1)), ("1 / 500ms", units.Rate(1, 0.5))],
)
def test_a_rate_is_a_count_and_a_duration(text: str, rate: units.Rate) -> None:
    """As RunPod's table of limits has it."""
    assert units.rate(text) == rate


@pytest.mark.parametrize("text", ["950", "0/10s", "5/0s", "1.5/s", "10/never", ""])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """A rate of nothing would wait for ever."""
    with pytest.raises(ValueError, match="a rate"):
        units.rate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (1, "1s"), (90, "90s"), (300, "5m"), (7200, "2h"), (86_400, "1d"), (1.5, "1.5s"), (0, "0s")],
)
def test_a_duration_is_shown_in_its_largest_unit(seconds: float, text: str) -> None:
    """A message should say 5m when the file does."""
    assert units.duration(seconds) == text


@given(st.integers(1, 10**7))
def test_a_shown_duration_reads_back(milliseconds: int) -> None:
    """The manifest keeps the resolved job file in users' words, and must mean the same."""
    seconds = milliseconds / 1000
    assert units.duration_s(units.duration(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_a_shown_rate_reads_back() -> None:
    """Messages about limits name them as the file does."""
    assert units.rate(str(units.Rate(950, 10))) == units.Rate(950, 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "440ms"), (1.44, "1.4s"), (12, "12s"), (185, "3m05s"), (7_800, "2h10m")],
    ids=["ms", "short", "s", "m", "h"],
)
def test_elapsed_time_is_short_to_read(seconds: float, text: str) -> None:
    """It stands in a progress line."""
    assert units.elapsed(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (10 * 2**20, "10.0 MiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes_are_in_binary_units(count: int, text: str) -> None:
    """RunPod's limit of 10 MiB is 10.0 MiB here too."""
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *[("1 B", 1), ("500 KB", 500_000), ("20 MiB", 20 * 2**20), ("1GB", 10**9), ("1.5 GiB", 3 * 2**29)],
        *[("0.3 B", 1), ("1.0001 KB", 1001), (" 2 KiB ", 2048), ("0 MiB", 0)],
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size_bytes: int) -> None:
    """MB and MiB are not the same; a part of a byte is a whole one."""
    assert units.size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["20", "20 mb", "20 Mb", "MiB", "1 TB", "-1 B", "1e3 B", "", "1 MiB x"])
def test_what_has_no_unit_is_no_size(text: str) -> None:
    """Bits, bytes and thousands are mixed up easily."""
    with pytest.raises(ValueError, match="a size needs a number and a unit: 500 KB, 20 MiB, 1 GiB"):
        units.size_bytes(text)


@given(st.integers(1, 2**40))
def test_a_size_reads_back_exactly(size_bytes: int) -> None:
    """The manifest keeps it in users' words."""
    assert units.size_bytes(units.size_text(size_bytes)) == size_bytes


def test_a_size_is_written_in_its_largest_unit() -> None:
    """As most people would have written it."""
    written = [units.size_text(size) for size in (20 * 2**20, 2**30, 10**6, 1536, 1500, 1)]
    assert written == ["20 MiB", "1 GiB", "1 MB", "1536 B", "1500 B", "1 B"]
