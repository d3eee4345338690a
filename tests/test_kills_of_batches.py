"""Real kills, a case of each kind: `make torture` has hundreds. Nothing is lost, nothing is paid twice unawares."""

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from torture import interrupts, killing_mutants, kills, player
from torture.cases import Case, rows
from torture.scene import Account, Broken, Scene, Truth, audit
from torture.stand import Stand, served_for_all

SEED = 1
MOMENTS = 4

KINDS = (
    "accepted, unanswered #1",
    "line synced, row not committed #1",
    "report named",
    "resume: tail adopted, not cut",
    "cancel: cancel decided",
    "random 1",
    "2 starts after nothing",
    "answer lost, reset once the job was accepted, resubmit",
    "key rotated half way (401)",
)
"""One case of each kind."""


pytestmark = pytest.mark.usefixtures("forking")


def every() -> dict[str, Case]:
    """Every case there is, by name."""
    return {case.name: case for case in [*kills.cases(MOMENTS, SEED), *interrupts.cases()]}


def test_one_case_of_each_kind_loses_nothing_and_pays_for_nothing_twice_unawares() -> None:
    """Real processes are killed, interrupted, started twice; their batches are held against the endpoint's own log."""
    cases = [every()[name] for name in KINDS]
    told: list[str] = []
    found = player.report(cases, SEED, again="python -m torture.kills", at_once=1, tell=told.append)
    assert found["problems"] == [], "\n".join(told)
    assert found["kills"] >= 6
    assert {row["fault"]: (row["lost"], row["paid_twice"]) for row in found["rows"]} == dict.fromkeys(
        dict.fromkeys(case.fault for case in cases), (0, 0)
    )
    by_fault = {row["fault"]: row for row in found["rows"]}
    assert by_fault["answer lost, reset once the job was accepted"]["sent_again_knowingly"] > 0
    assert {type(row[name]) for row in found["rows"] for name in ("tried", "runs", "lost", "paid_twice")} == {int}


def test_every_case_has_a_name_of_its_own() -> None:
    """A case is played again by its name."""
    names = [case.name for case in [*kills.cases(200, SEED), *interrupts.cases()]]
    assert len(names) == len(set(names))


def test_a_case_is_the_same_whatever_is_played_beside_it() -> None:
    """All of a case comes from the seed and its name."""
    first, second = ([case.drawn(random.Random(f"7 {case.name}")) for case in kills.cases(20, 7)] for _ in range(2))
    assert first == second


def test_so_many_random_moments_are_planned_as_were_asked_for() -> None:
    """200 kills at random moments are promised, not 200 batches."""
    plays = [case.play for case in kills.cases(200, SEED) if case.name.startswith("random ")]
    assert sum(play.keywords["kills"] for play in plays if isinstance(play, partial)) == 200


def test_a_case_that_nobody_knows_is_refused() -> None:
    """A slip in a name must not pass for a case that found nothing."""
    words = [sys.executable, "-m", "torture.kills", "--case", "accepted, unanswerd #1"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert "no case is called 'accepted, unanswerd #1'" in ran.stderr


def test_the_mutations_of_the_engine_still_change_it(tmp_path: Path) -> None:
    """A mutation whose text is no longer in the engine would show nothing."""
    for name, killing in killing_mutants.KILLING.items():
        assert set(killing.cases) <= every().keys(), name
        if killing.mutation is not None:
            source = Path(killing_mutants.ROOT) / "runner" / killing.mutation.file
            copy = tmp_path / killing.mutation.file
            copy.write_text(source.read_text())
            killing_mutants._break(copy, killing.mutation)
            assert copy.read_text() != source.read_text()


# The oracle itself


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Truth]:
    """A batch that came to its end, and what its endpoint says of it."""
    with served_for_all() as served:
        scene = Scene.make(tmp_path_factory.mktemp("whole") / "case", runs={"queued": 6, "held": 2, "streamed": 2})
        stand = Stand(scene, served, random.Random(1))
        ran = stand.command(stand.words())
        assert ran.code == 0, ran
        return scene, stand.truth


def accepted_twice(truth: Truth) -> Truth:
    """As if the first input had been accepted once more."""
    accepted: dict[str, Any] = {key: list(ids) for key, ids in truth.accepted.items()}
    first = next(iter(accepted))
    return Truth(accepted | {first: [*accepted[first], "stranger"]}, truth.ended)


def never_heard_of(truth: Truth) -> Truth:
    """As if the first input had never come."""
    first = next(iter(truth.accepted))
    return Truth({key: ids for key, ids in truth.accepted.items() if key != first}, truth.ended)


def failed_there(truth: Truth) -> Truth:
    """As if nothing had completed."""
    return Truth(truth.accepted, dict.fromkeys(truth.ended, "FAILED"))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        pytest.param(accepted_twice, "were accepted, and only 0 answers counted as lost", id="accepted twice"),
        pytest.param(never_heard_of, "the endpoint never heard of", id="never heard of"),
        pytest.param(failed_there, "of which the endpoint does not say so", id="failed there"),
    ],
)
def test_the_audit_sees_what_the_endpoint_says_otherwise(
    whole: tuple[Scene, Truth], changed: Callable[[Truth], Truth], says: str
) -> None:
    """An oracle that is content with everything shows nothing."""
    scene, truth = whole
    assert audit(scene, truth, code=0).problems == []
    found = audit(scene, changed(truth), code=0)
    assert any(says in problem for problem in found.problems)


def test_the_audit_sees_a_lost_line_and_a_lost_artifact(whole: tuple[Scene, Truth]) -> None:
    """What is reported as saved is on the disk, as it was."""
    scene, truth = whole
    artifact = next(scene.batch.path.glob("artifacts/queued/*"))
    content = artifact.read_bytes()
    artifact.write_bytes(content[:-1])
    assert audit(scene, truth).lost == 1
    artifact.write_bytes(content)
    told = scene.batch.results.read_bytes()
    scene.batch.results.write_bytes(b"".join(told.splitlines(keepends=True)[:-1]))
    assert audit(scene, truth).lost == 1
    scene.batch.results.write_bytes(told)
    assert audit(scene, truth).lost == 0


def test_rows_add_up_what_cases_of_one_fault_came_to() -> None:
    """The table has one line for each fault, in the order in which they are tried."""
    cases = [
        Case(name, fault, "process", "kills", _nothing) for name, fault in (("a #1", "a"), ("b", "b"), ("a #2", "a"))
    ]
    accounts = [
        Account(runs=10, kills=2, resent=1),
        Account(runs=5, tried=7, lost=1),
        Account(runs=1, kills=1, paid_twice=3),
    ]
    assert rows(cases, accounts) == [
        {"fault": "a", "where": "process", "how": "kills", "tried": 3, "runs": 11, "lost": 0, "paid_twice": 3}
        | {"sent_again_knowingly": 1},
        {"fault": "b", "where": "process", "how": "kills", "tried": 7, "runs": 5, "lost": 1, "paid_twice": 0}
        | {"sent_again_knowingly": 0},
    ]


def _nothing(_: object) -> None:
    """Play nothing."""


def test_a_scene_without_a_batch_says_so(tmp_path: Path) -> None:
    """A case in which nothing was ever made is no case that went well."""
    scene = Scene.make(tmp_path / "case")
    with pytest.raises(Broken, match="there is no batch"):
        audit(scene, Truth({}, {}))
