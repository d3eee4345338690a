"""
Try every fault, print the table, and write it into docs/reliability.md: ``python -m torture``.

Exits 1 when anything was lost, or paid for twice unawares, or when a fault of the list was never tried.
"""

import argparse
import datetime as dt
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from runner.units import elapsed
from torture import table
from torture.expected import FAULTS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "reliability.md"

PROGRAMS: dict[str, Sequence[str]] = {
    "simulation": ("-m", "torture.simulation", "--seeds", "2000"),
    "kills": ("-m", "torture.kills"),
    "prefixes": ("-m", "torture.prefixes"),
    "disks": ("-m", "torture.disks"),
    "interrupts": ("-m", "torture.interrupts"),
    "load": ("-m", "torture.load"),
    "batches": ("-m", "torture.batches", "--runs", "1200"),
    "workers": ("-m", "torture.workers", "--seeds", "5"),
}
"""What a whole run consists of. Each uses two processors, so they come one after the other."""


def main() -> int:
    """Run the programs of the command line; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--only", choices=PROGRAMS, action="append", help="this program alone; writes no document")
    parser.add_argument("--from-json", type=Path, metavar="DIR", help="read the reports NAME.json in DIR, run nothing")
    parser.add_argument("--json", type=Path, metavar="DIR", help="keep the reports in DIR, for --from-json")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the table is written")
    chosen = parser.parse_args()
    names = [name for name in PROGRAMS if chosen.only is None or name in chosen.only]
    began = time.monotonic()
    if chosen.json:
        chosen.json.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="torture-reports-") as folder:
        at = chosen.from_json or chosen.json or Path(folder)
        ends = [] if chosen.from_json else [run(name, at / f"{name}.json") for name in names]
        reports, unread = gathered(at, names)
    wrong = [*filter(None, ends), *unread]
    rows = [row for report in reports for row in report.rows]
    faults = [one for one in FAULTS if chosen.only is None or table.showing(one, rows)]
    print(f"\n{table.as_text(reports, faults)}\n")
    if chosen.only is None:
        wrong += table.problems(reports)
        facts = told(max(sum(report.seconds for report in reports), time.monotonic() - began), wrong)
        text = table.as_markdown(reports, facts, wrong)
        chosen.document.write_text(table.rewritten(chosen.document.read_text(), text))
    else:
        wrong += table.problems(reports, faults=(), least_kills=0)
    return judged(wrong)


def run(name: str, report: Path) -> str:
    """Run one program to its end; what is wrong with that end, or nothing."""
    print(f"\n== {name}", flush=True)
    code = subprocess.run([sys.executable, *PROGRAMS[name], "--json", str(report)], cwd=ROOT, check=False).returncode
    return f"{name} ended with {code}" if code else ""


def gathered(folder: Path, names: Sequence[str]) -> tuple[list[table.Report], list[str]]:
    """The reports in *folder* of the programs called so, and what is wrong with those that can't be read."""
    reports, wrong = [], []
    for name in names:
        try:
            reports.append(table.read(folder / f"{name}.json", name))
        except table.Unreadable as error:
            wrong.append(str(error))
    return reports, wrong


def judged(wrong: Sequence[str]) -> int:
    """Say what is wrong; the exit code."""
    for text in wrong:
        print(f"WRONG: {text}")
    if not wrong:
        print("nothing was lost, and nothing was paid for twice unawares")
    return 1 if wrong else 0


def told(took_s: float, wrong: Sequence[str]) -> dict[str, str]:
    """What the document says of the run itself."""
    libraries = ("runpod-runner", "aiohttp", "pydantic")
    versions = [f"{name} {version(name)}" for name in libraries]
    versions += [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}", platform.system()]
    return {
        "when": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, at commit {_commit()}",
        "versions": ", ".join(versions),
        "took": f"{elapsed(took_s)} on {os.cpu_count()} processors",
        "verdict": "passed" if not wrong else f"failed, {len(wrong)} problems",
    }


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return (told.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")


if __name__ == "__main__":
    sys.exit(main())
