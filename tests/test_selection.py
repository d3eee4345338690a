"""Which lines are meant, and what a mistaken wish gets."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from runner.errors import UsageError
from runner.selection import Names, Where, check_fields
from runner.values import JsonObject

LINES: list[JsonObject] = [
    {"job": "photos", "index": 0, "state": "succeeded", "outcome": "completed", "output": {"score": 0.75}, "row": None},
    {"job": "photos", "index": 1, "state": "failed", "outcome": "timed_out", "row": {"lang": "de"}},
    {"job": "captions", "index": 0, "state": "skipped", "outcome": None, "row": None},
]


def names(**words: Collection[str]) -> Names:
    """The checked names in a batch of two jobs."""
    return Names.checked(**({"jobs": (), "states": (), "outcomes": ()} | words), known_jobs=("photos", "captions"))


def kept(what: Names | Where) -> list[int]:
    """Which of the lines are kept, by number."""
    return [int(text) for text, _ in what.keep((str(number).encode(), line) for number, line in enumerate(LINES))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"jobs": ["photos"]}, [0, 1]),
        ({"states": ["failed", "skipped"]}, [1, 2]),
        ({"outcomes": ["completed"]}, [0]),
        ({"jobs": ["captions"], "outcomes": ["completed"]}, []),
        ({"jobs": ["photos", "captions"], "states": ["succeeded", "skipped"]}, [0, 2]),
    ],
    ids=str,
)
def test_names_of_a_kind_add_up_and_kinds_narrow(words: dict[str, list[str]], expected: list[int]) -> None:
    """As filters do everywhere."""
    assert kept(names(**words)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", [0, 1, 2]),
        ("output is defined and output.score > 0.5", [0]),
        ("row is none", [0, 2]),
        ("job == 'photos' and index >= 1", [1]),
        ("outcome in ['timed_out', 'lost']", [1]),
        ("state != 'skipped'", [0, 1]),
    ],
)
def test_an_expression_keeps_what_it_is_true_for(text: str, expected: list[int]) -> None:
    """Over the fields of a line."""
    assert kept(Where(text)) == expected


STATES = "known: 'succeeded', 'failed', 'cancelled', 'skipped'"
HERE = "ask 'is defined' first, or leave such runs out with --state, --outcome or --job"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (lambda: names(jobs=["photo"]), "unknown job 'photo'\n  help: did you mean 'photos'?"),
        (lambda: names(states=["fail"]), "unknown state 'fail'\n  help: did you mean 'failed'?"),
        (lambda: names(states=["x"]), f"unknown state 'x'\n  help: {STATES}"),
        (
            lambda: names(states=["pending"]),
            "results.jsonl has no run that is pending: a run gets its line when it is settled\n"
            "  help: 'runner status' counts the others, 'runner show' shows one",
        ),
        (lambda: names(outcomes=["timeout"]), "unknown outcome 'timeout'\n  help: did you mean 'timed_out'?"),
        (
            lambda: check_fields(["key", "ouput.x"]),
            "unknown field 'ouput.x' in --fields\n  help: did you mean 'output'?",
        ),
        (
            lambda: Where("{{ index }}"),
            "--where is an expression, not a template\n  help: write it without {{ }}: output.score > 0.5",
        ),
        (lambda: Where("idx > 1"), "--where: unknown name 'idx'\n  help: did you mean 'index'?"),
        (
            lambda: Where("index >"),
            "--where: not an expression: unexpected the end\n  help: write one such as output.score > 0.5",
        ),
        (
            lambda: kept(Where("output.score > 0.5")),
            "--where can't be told for run 1 of job photos: 'output' is undefined\n"
            "  help: begin with 'output is defined and', or leave such runs out with --state, --outcome or --job",
        ),
        (
            lambda: kept(Where("row.lang == 'de'")),
            f"--where can't be told for run 0 of job photos: null has no 'lang'\n  help: {HERE}",
        ),
        (
            lambda: kept(Where("outcome > 3")),
            "--where can't be told for run 0 of job photos: '>' not supported between instances of 'str' and 'int'\n"
            f"  help: {HERE}",
        ),
        (
            lambda: kept(Where("state")),
            "--where is neither true nor false for run 0 of job photos, but 'succeeded'\n"
            "  help: compare it with something, such as output.score > 0.5",
        ),
    ],
    ids=lambda value: value.split("\n")[0] if isinstance(value, str) else "",
)
def test_a_mistaken_wish_is_told_with_its_fix(wish: Callable[[], Any], message: str) -> None:
    """An empty answer would be taken for the truth."""
    with pytest.raises(UsageError) as caught:
        wish()
    assert caught.value.render() == f"error: {message}"


def test_what_a_model_wrote_does_not_reach_the_terminal_with_a_message() -> None:
    """An output may hold what a terminal acts on."""
    line = {"job": "photos", "index": 0, "output": "\x1b[31mred"}
    with pytest.raises(UsageError) as caught:
        list(Where("output").keep([(b"", line)]))
    assert caught.value.message == "--where is neither true nor false for run 0 of job photos, but 'red'"
