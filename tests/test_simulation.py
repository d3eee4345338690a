"""The engine in simulated lives: a few seeds of what `make torture-simulation` lives by the thousand."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import ROOT

from torture.mutants import MUTATIONS
from torture.simulation.__main__ import corpus, scratch
from torture.simulation.life import Life, live
from torture.simulation.loop import SimLoop, Stuck
from torture.simulation.machine import Machine, installed
from torture.simulation.scenario import ENDPOINTS, Kill, ProcessPlan, Scenario, Window, draw

SEEDS = range(120)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """The simulated machine."""
    with installed() as found:
        yield found


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where lives leave their batches."""
    with scratch() as found:
        yield found / "life"


@pytest.fixture(scope="module")
def lives(machine: Machine, folder: Path) -> dict[int, Life]:
    """The first seeds, lived once."""
    return {seed: live(draw(seed), folder, machine) for seed in SEEDS}


def told(life: Life) -> str:
    """All that happened in *life*, to be read when an invariant was broken."""
    return "\n".join([f"python -m torture.simulation --seed {life.seed}", *life.lines[-200:], *life.wrong])


@pytest.mark.parametrize("seed", corpus())
def test_a_seed_that_found_something_once_finds_nothing_any_more(seed: int, machine: Machine, folder: Path) -> None:
    """They are lived first: what broke once breaks again."""
    life = live(draw(seed), folder, machine)
    assert not life.wrong, told(life)


def test_no_life_breaks_an_invariant(lives: dict[int, Life]) -> None:
    """Nothing is lost and nothing paid for twice unawares, whatever happens to process, disk, network and service."""
    for life in lives.values():
        assert not life.wrong, told(life)


def test_the_lives_are_not_easy(lives: dict[int, Life]) -> None:
    """A simulation in which nothing happens proves nothing."""
    counts = sum((life.counts for life in lives.values()), Counter[str]())
    tally = sum((life.tally for life in lives.values()), Counter[str]())
    words = Counter(dict.fromkeys(("kill", "power loss", "disk", "signal", "429", "50", "time of"), 0))
    for kind, count in counts.items():
        for word in words:
            words[word] += count if word in kind else 0
    assert min(words.values()) > 0, words
    assert tally["settled"] > 500
    assert tally["answers lost, sent again knowingly"] > 0


def test_a_seed_tells_the_same_story_again(lives: dict[int, Life], machine: Machine, folder: Path) -> None:
    """Byte for byte, so that what was found once can be looked at as often as it takes."""
    for seed in SEEDS[::6]:
        assert live(draw(seed), folder, machine).lines == lives[seed].lines


def test_another_process_tells_the_same_story(lives: dict[int, Life]) -> None:
    """Neither the hashes of texts nor the addresses of objects decide anything."""
    words = [sys.executable, "-m", "torture.simulation", "--seed", "7"]
    ran = subprocess.run(words, cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    log, _, summary = ran.stdout.partition("\n{")
    assert log.splitlines() == lives[7].lines
    assert json.loads("{" + summary)["digest"] == lives[7].digest


def quiet(seed: int = 1, **more: object) -> Scenario:
    """One job of three runs on a good day, unless *more* says otherwise."""
    job = {
        "endpoint": "north",
        "rows": {"inline": [{"n": 0}, {"n": 1}, {"n": 2}]},
        "input": {"n": "{{ row.n }}"},
        "timeouts": {"request": "5s", "run": "10m"},
        "on_answer_lost": "fail",
    }
    spec = {
        "version": 1,
        "name": "sim",
        "endpoints": {"north": {"id": "${SIM_NORTH}", "cost_per_second": 0.001}},
        "jobs": {"job0": job},
        "health": {"every": "15s", "wait": "20s"},
    }
    told = {"spec": spec, "processes": (ProcessPlan("run"),), "aggregates": dict.fromkeys(ENDPOINTS, False)} | more
    return Scenario(seed=seed, **told)  # type: ignore[arg-type]


def test_a_good_day_is_a_good_day(machine: Machine, folder: Path) -> None:
    """Every run is submitted once, and settled."""
    life = live(quiet(), folder, machine)
    assert not life.wrong, told(life)
    assert (life.tally["jobs accepted"], life.tally["settled"], life.tally["runs"]) == (3, 3, 3)


def test_a_kill_undoes_what_comes_after_it(machine: Machine, folder: Path) -> None:
    """The process is gone between two of its steps: its last words are not heard, and its files are as they were."""
    kill = ProcessPlan("run", kill=Kill(point="committed", nth=4))
    life = live(quiet(processes=(kill, ProcessPlan("run"))), folder, machine)
    assert not life.wrong, told(life)
    assert life.counts["kill at committed"] == 1
    assert life.tally["settled"] == 3


def test_an_outage_lasts_as_long_as_it_is_said_to(machine: Machine, folder: Path) -> None:
    """Virtual time passes there as everywhere."""
    windows = (Window("refused", "north", 0.0, 40.0),)
    life = live(quiet(windows=windows, processes=(ProcessPlan("run"), ProcessPlan("run"))), folder, machine)
    assert not life.wrong, told(life)
    accepted = [line for line in life.lines if "accepted as" in line]
    assert all(float(line.split()[0]) >= 40.0 for line in accepted)


def test_a_loop_in_which_nothing_can_happen_any_more_says_so() -> None:
    """Instead of waiting for ever."""
    loop = SimLoop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_every_mutation_still_has_its_text() -> None:
    """One that changes nothing would go unnoticed, and prove nothing."""
    for mutation in MUTATIONS:
        text = (ROOT / "runner" / mutation.file).read_text()
        for before, _ in mutation.edits:
            assert text.count(before) == 1, f"{mutation.name}: {before!r} in {mutation.file}"
