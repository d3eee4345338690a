"""The comparison of ways to wait, which docs quote: the same figures everywhere, and ours ahead."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.polling import WORKS, measured, plot, table
from benchmarks.waiting import Simulation, Spaced, Work


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_ours_is_ahead_of_every_other_way(work: Work) -> None:
    """With as many requests a job as ours, every fixed pause and every back-off notices ends later."""
    found = measured(work, jobs=600, seed=1)
    assert {one.delay_s for _, one in found["ours, status-sync"]} == {0.0}
    held = {name: one.requests for name in ("long poll", "ours, status-sync") for _, one in found[name]}
    assert held["ours, status-sync"] <= held["long poll"] <= 2.3
    ours = next(one for setting, one in found["ours, /status"] if setting == "c = 0.05 s")
    for name in ("fixed", "back-off"):
        for setting, other in found[name]:
            assert other.delay_s > ours.delay_s or other.requests > ours.requests, setting


def test_a_fixed_pause_costs_what_the_formula_says() -> None:
    """Delay times requests is half the time in the system: the simulation itself is right."""
    one = Simulation(WORKS[0], 2000, 1).run(60, Spaced(0.5))
    assert one.delay_s == pytest.approx(0.25, abs=0.03)


def test_the_same_seed_gives_the_same_table_and_a_plot_of_it() -> None:
    """Figures that anybody can have again."""
    found = {WORKS[0]: measured(WORKS[0], jobs=100, seed=3)}
    again = {WORKS[0]: measured(WORKS[0], jobs=100, seed=3)}
    assert table(found) == table(again)
    picture = ET.fromstring(plot(found))
    circles = picture.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == sum(len(points) for points in found[WORKS[0]].values()) + 5
