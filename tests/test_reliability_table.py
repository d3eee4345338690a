"""The table of faults says what happened: whoever lost something, paid twice, or never tried a fault, does not pass."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from torture import __main__ as whole
from torture import table
from torture.expected import FAULTS, WHERE, Fault
from torture.table import Report, Row, Unreadable

EXAMPLES = {
    "SIGKILL as a batch begins, at each step": "SIGKILL as a batch begins, each step",
    "SIGKILL at random moments": "random moments of SIGKILL",
    "SIGHUP, terminal gone, readers gone": "SIGHUP once, at each phase",
    "SIGINT twice with 200 jobs in flight": "SIGINT twice, 200 jobs in flight",
    "workers killed": "SIGKILL of workers and their launchers",
    "clock stepping back": "clock steps back",
    "clock stepping forward": "clock steps forward",
    "full": "ENOSPC on write",
    "read-only": "EROFS on create",
    "I/O error on write": "EIO on write",
    "I/O error on fsync": "EIO on sync",
    "I/O error on rename": "EIO on rename",
    "torn last record": "torn last line",
    "ledger cut or corrupted": "ledger corrupted",
    "output deleted between runs": "artifact deleted between runs",
    "429 with Retry-After as a date": "429 with Retry-After as a date",
    "401 half way, a rotated key": "key rotated half way (401)",
    "404 after the result expired": "404 after expiry",
    "unknown status word": "unknown status word",
    "52x with a page of HTML": "520 to 526, pages of the edge",
    "two crons at once": "two starts at once",
}
"""By name, rows of faults whose own names are no rows."""


def row(fault: str = "reset on submit", **other: Any) -> dict[str, Any]:
    """A row as a program writes it."""
    found = {"fault": fault, "where": "network", "how": "simulation", "tried": 3, "runs": 30}
    return found | {"lost": 0, "paid_twice": 0, "sent_again_knowingly": 0} | other


def report(*rows: dict[str, Any], **other: Any) -> dict[str, Any]:
    """A report as a program writes it."""
    return {"rows": list(rows), "kills": 250, "seed": 7, "seconds": 1.5, "problems": []} | other


def complete() -> dict[str, dict[str, Any]]:
    """Reports by program in which every fault of the list was tried, and survived."""
    rows = [row(example(fault), where=fault.where) for fault in FAULTS if fault.untried is None]
    return {name: report(*(rows if name == "simulation" else [])) for name in whole.PROGRAMS}


def example(fault: Fault) -> str:
    """The name of a row that shows *fault*."""
    return EXAMPLES.get(fault.name, fault.name)


def judged(tmp_path: Path, reports: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """What a whole run of these *reports* ends with, what it says, and the document that it leaves."""
    for name, told in reports.items():
        (tmp_path / f"{name}.json").write_text(told if isinstance(told, str) else json.dumps(told))
    document = tmp_path / "reliability.md"
    document.write_text(f"# Title\n{table.BEGIN}\nthat of before\n{table.END}\nmore\n")
    words = ["torture", "--from-json", str(tmp_path), "--document", str(document)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        code = whole.main()
    return code, capsys.readouterr().out, document.read_text()


def test_a_run_in_which_all_was_tried_and_nothing_lost_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the document says so, around the words that people wrote."""
    code, out, document = judged(tmp_path, complete(), capsys)
    assert (code, "WRONG" in out) == (0, False), out
    assert document.startswith(f"# Title\n{table.BEGIN}\n- when: ")
    assert document.endswith(f"\nNothing was lost, and nothing was paid for twice unawares.\n{table.END}\nmore\n")
    assert "that of before" not in document
    assert "- verdict: passed\n" in document


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"lost": 1}, "WRONG: simulation: 418 on submit: 1 lost", id="one lost"),
        pytest.param({"paid_twice": 1}, "WRONG: simulation: 418 on submit: 1 paid twice unawares", id="one paid twice"),
    ],
)
def test_one_lost_or_paid_twice_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, int], said: str
) -> None:
    """However many times all went well."""
    reports = complete()
    reports["simulation"]["rows"].append(row("418 on submit", tried=9999, **change))
    code, out, document = judged(tmp_path, reports, capsys)
    assert (code, said in out.splitlines()) == (1, True)
    assert "**This run failed:**" in document
    assert f"- {said.removeprefix('WRONG: ')}" in document.splitlines()
    counted = " | ".join(str(change.get(name, 0)) for name in ("lost", "paid_twice"))
    assert f"| 418 on submit | simulation | 9999 | 30 | {counted} | 0 |" in document.splitlines()


@pytest.mark.parametrize("left_out", [fault for fault in FAULTS if fault.untried is None], ids=lambda one: one.name)
def test_a_fault_that_was_never_tried_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left_out: Fault
) -> None:
    """Each of the list: a table that leaves one out would promise more than was seen."""
    reports = complete()
    for told in reports.values():
        for one in told["rows"]:
            if left_out.is_shown_by(one["fault"]):
                one["tried"] = 0
    code, out, document = judged(tmp_path, reports, capsys)
    assert (code, f"WRONG: never tried: {left_out.where}: {left_out.name}" in out.splitlines()) == (1, True)
    assert f"| {left_out.name} | NEVER TRIED | 0 |  |  |  |  |" in document.splitlines()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        pytest.param(report(problems=["a traceback"]), "workers: a traceback", id="a problem"),
        pytest.param("{", "workers left a report that can't be read: JSONDecodeError: ", id="half a report"),
        pytest.param({"rows": []}, "workers left a report that can't be read: KeyError: 'problems'", id="less"),
        pytest.param(
            report(row(lost=-1)),
            "workers left a report that can't be read: ValueError: lost of 'reset on submit' is -1",
            id="less than nothing",
        ),
        pytest.param(
            report(row(where="moon")),
            "workers left a report that can't be read: ValueError: 'reset on submit' is somewhere else: 'moon'",
            id="elsewhere",
        ),
    ],
)
def test_a_program_that_did_not_go_well_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], told: Any, said: str
) -> None:
    """Whatever its numbers say."""
    code, out, _ = judged(tmp_path, complete() | {"workers": told}, capsys)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith(f"WRONG: {said}")]


def test_a_program_that_left_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may have died."""
    reports = complete()
    del reports["disks"]
    code, out, _ = judged(tmp_path, reports, capsys)
    assert (code, "WRONG: disks left no report" in out.splitlines()) == (1, True)


def test_a_program_that_ends_badly_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also when its report says nothing of it."""
    monkeypatch.setitem(whole.PROGRAMS, "kills", ("-c", "raise SystemExit(7)"))
    assert whole.run("kills", tmp_path / "kills.json") == "kills ended with 7"
    monkeypatch.setitem(whole.PROGRAMS, "kills", ("-c", ""))
    assert whole.run("kills", tmp_path / "kills.json") == ""


def test_too_few_kills_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hundred are promised, and simulated ones are none."""
    reports = complete()
    for name, told in reports.items():
        told["kills"] = {"kills": 199, "simulation": 9999}.get(name, 0)
    code, out, _ = judged(tmp_path, reports, capsys)
    assert (code, "WRONG: 199 kills, and 200 were promised" in out.splitlines()) == (1, True)


def test_what_is_not_tried_here_stands_in_the_table_with_its_reason() -> None:
    """Left out silently, it would look as if it had been survived."""
    fault = Fault("network", "proxy", untried="there is none")
    assert table.lines([], [fault]) == [("network",), ("proxy", "not tried: there is none", "0", "", "", "", "")]
    assert table.problems([], faults=[fault], least_kills=0) == []


def test_what_was_tried_beyond_the_list_is_told_as_well() -> None:
    """And the same fault tried by two programs is one line, added up."""
    tried = [
        Report("kills", [Row("odd", "process", "kills", 2, 20, 0, 0, 1)]),
        Report("simulation", [Row("odd", "process", "simulation", 3, 30, 0, 0, 4)]),
    ]
    assert table.lines(tried, []) == [("process",), ("odd", "kills, simulation", "5", "50", "0", "0", "5")]
    assert table.as_text(tried, []) == (
        "fault  tried by           times  runs  lost  paid twice  sent again knowingly\n"
        "\n"
        "process\n"
        "odd    kills, simulation      5    50     0           0                     5"
    )


def test_a_document_without_a_place_is_left_alone() -> None:
    """Rather than to lose what people wrote."""
    with pytest.raises(Unreadable, match="the document has no place for the table"):
        table.rewritten("# Title\n", "new")


def test_every_fault_of_the_list_is_somewhere() -> None:
    """It is tried by something, or says why not."""
    for fault in FAULTS:
        assert fault.where in WHERE
        assert bool(fault.shown_by) != bool(fault.untried), fault
        assert fault.untried or fault.is_shown_by(example(fault)), fault
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
