"""
Measure the runner against its bars and its peers: ``make bench``, or ``python -m benchmarks --only 1,2 --rounds 3``.

The table goes to stdout; with all bars measured, or with ``--write``, to docs/benchmarks.md as well.
"""

import argparse
import compileall
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import page
from benchmarks.bars import BARS
from benchmarks.ceiling import ceiling
from benchmarks.load import Work as Load
from benchmarks.machine import facts, javascript
from benchmarks.stage import ROOT, Stage

PAGE = ROOT / "docs/benchmarks.md"


def main() -> int:
    """Measure; 1 where a bar is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="N,N", help="only these bars")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds, of the bars that are short (3)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md also with --only")
    parser.add_argument("--without-peers", action="store_true", help="leave RunPod's SDKs out")
    chosen = parser.parse_args()
    numbers = {int(one) for one in chosen.only.split(",")} if chosen.only else {bar.number for bar in BARS}
    began = time.monotonic()
    # As a package that was installed: else each start would compile what was changed since the last one.
    compileall.compile_dir(ROOT / "runner", quiet=1)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as name:
        folder = Path(name)
        sdk = None if chosen.without_peers else javascript(ROOT / ".venv/runpod-sdk")
        stage = Stage(folder, sdk, has_peers=not chosen.without_peers)
        told = page.Told(dict(facts(folder, sdk)))
        for work, load in page.CEILINGS.items():
            told.ceilings[work] = ceiling(Load(**load))
        for bar in BARS:
            if bar.number in numbers:
                print(f"{time.monotonic() - began:4.0f} s  bar {bar.number}: {bar.title}", file=sys.stderr, flush=True)
                told.measured.append((bar.number, bar.title, bar.measure(stage, chosen.rounds)))
    text = page.page(told, seconds=time.monotonic() - began)
    print(text)
    if chosen.write or not chosen.only:
        PAGE.write_text(text)
    return 0 if told.all_met else 1


if __name__ == "__main__":
    sys.exit(main())
