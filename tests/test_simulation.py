"""The engine in simulated lives: a few seeds of what `make torture-simulation` lives by the thousand."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from terminal import ROOT

from runner.slots import Slots
from torture.mutations import MUTATIONS
from torture.simulation.__main__ import corpus, lived, scratch
from torture.simulation.faults import Table
from torture.simulation.folder import all_hold
from torture.simulation.life import Life, live
from torture.simulation.loop import SimLoop, Stuck
from torture.simulation.machine import Machine, installed
from torture.simulation.scenario import TAMPERS, Kill, ProcessPlan, Window, draw
from torture.simulation.targeted import quiet

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
    """They are lived first: what broke once breaks again. Those below 0 are made by hand."""
    life = lived(seed, folder, machine)
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
    batch = ("answer to finalize of a batch lost", "batch page shifted", "RunPod batch FAILED by somebody else")
    assert min(counts[kind] for kind in batch) > 0, counts


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


@pytest.mark.parametrize("tamper", TAMPERS)
def test_whoever_damages_a_batch_is_told_so(tamper: str, machine: Machine, folder: Path) -> None:
    """Nothing is sent from a folder that is not as it was left; once it is mended, the batch goes on."""
    kill = ProcessPlan("run", kill=Kill(point="line", nth=3))
    life = live(quiet(processes=(kill, ProcessPlan("run", tamper=tamper))), folder, machine)
    assert not life.wrong, told(life)
    assert life.counts[f"tampered: {tamper}"] == 1
    assert life.tally["settled"] == 3


def test_a_missing_grace_is_noticed(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is not visible yet is called lost without it: the oracle knows better."""
    monkeypatch.setattr("runner.follow.GRACE_S", 0.0)
    for seed in SEEDS:
        life = live(draw(seed), folder, machine)
        if life.wrong:
            break
    assert "is called lost, and RunPod knows" in life.wrong[0]


def test_a_forgotten_place_is_noticed(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run more than the concurrency allows is one too many."""

    async def enter(slots: Slots) -> None:
        slots.taken += 1

    monkeypatch.setattr(Slots, "__aenter__", enter)
    one = quiet()
    one.spec["endpoints"]["north"]["concurrency"] = 1
    one.spec["jobs"]["job1"] = deepcopy(one.spec["jobs"]["job0"])
    life = live(one, folder, machine)
    assert "2 runs in flight at once, and the endpoint's concurrency is 1" in life.wrong


def test_the_table_counts_the_lives_that_met_a_fault() -> None:
    """The runs of a life are counted once for each fault that it met, however often."""
    table = Table()
    tally = Counter({"runs": 3, "answers lost, sent again knowingly": 1})
    table.add(Life(1, [], [], [], Counter({"dns on submit": 2, "time of dns": 4, "kill at send": 1}), tally))
    table.add(Life(2, [], [], [], Counter({"dns on status": 1}), Counter({"runs": 5, "lost": 1})))
    rows = {row["fault"]: row for row in table.as_json()}
    assert rows["DNS failure"] == {
        "fault": "DNS failure",
        "where": "network",
        "how": "simulation",
        "tried": 7,
        "runs": 8,
        "lost": 1,
        "paid_twice": 0,
        "sent_again_knowingly": 1,
        "expired": 0,
    }
    assert rows["SIGKILL at each named step"]["tried"] == 1
    assert "SIGKILL at each named step: nothing like 'kill at rename' occurred" in table.missing()
    assert not any(text.startswith("DNS") for text in table.missing())


@pytest.mark.parametrize(
    ("thresholds", "holds"),
    [
        ({"failed": "< 1"}, False),
        ({"failed": "<= 30%", "succeeded": ">= 0.5"}, True),
        ({"answer_lost": "< 1"}, False),
        ({"retried": "<= 1", "skipped": "== 0"}, True),
    ],
)
def test_the_oracle_reads_thresholds_by_itself(thresholds: dict[str, str], holds: bool) -> None:
    """It must not take the engine's word for it."""
    settled = [("k1", "job0", "failed", "answer_lost"), *((f"k{n}", "job0", "succeeded", "completed") for n in "234")]
    assert all_hold(thresholds, settled, 1, 4) is holds


def test_a_report_is_written_for_the_table(tmp_path: Path) -> None:
    """One JSON object, with a row for each fault."""
    words = [sys.executable, "-m", "torture.simulation", "--seeds", "2", "--first", "40", "--processes", "1"]
    words += ["--no-corpus", "--json", str(tmp_path / "told.json")]
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    report = json.loads((tmp_path / "told.json").read_bytes())
    assert (report["seed"], report["seeds"], report["problems"]) == (40, 2, [])
    assert {row["where"] for row in report["rows"]} == {"process", "disk", "network", "service", "scheduling"}


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
