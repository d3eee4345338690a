"""Time as text, and the machine's clock."""

import pytest

from runner.clock import SystemClock, iso


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.250Z"),
        (1_800_000_000.9999, "2027-01-15T08:00:00.999Z"),
        (4_102_444_800.0, "2100-01-01T00:00:00.000Z"),
    ],
)
def test_times_in_files_are_utc_with_milliseconds(at: float, text: str) -> None:
    """They sort as text, whatever the machine's time zone."""
    assert iso(at) == text


async def test_the_machine_s_clock_yields_and_goes_forward() -> None:
    """A wait that is over already must still let others run."""
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(-1.0)
    assert clock.monotonic() >= before
    assert clock.now() > 1_700_000_000
    assert 0.0 <= clock.chance() < 1.0
