"""Run the command with a remote folder, and kill it at a step: ``python -m torture.killed_remotely STEP NTH WORDS``."""

import sys
from collections.abc import Sequence

from runner.events import Intended
from runner.remote.lease import Lease
from runner.remote.upload import Upload
from torture.killed import Install, Trigger, answered, around, within

STEPS: dict[str, Install] = {
    "lease taken": around(Lease, "take", after=True),
    "intent here, not there": within(Intended, after=True),
    "artifact there, its line not": around(Upload, "_artifact", after=True),
    "results there, their segment not": around(Upload, "_put"),
    "segment there, nobody told": around(Upload, "_put", after=True),
    "answer to /run here": answered("run"),
    "all settled, the rest not there": around(Upload, "finish"),
    "reports there, contents not": around(Upload, "_contents"),
}
"""Steps at which what is here and what is there differ."""


AT_THE_END = ("all settled, the rest not there", "reports there, contents not")
ONCE = (*AT_THE_END, "lease taken")
"""Steps that a process takes once."""


def main(words: Sequence[str]) -> None:
    """Install the step, and be the command."""
    from runner.__main__ import main as command

    step, nth, *rest = words
    STEPS[step](Trigger(int(nth)))
    sys.argv = ["runner", *rest]
    command()


if __name__ == "__main__":
    main(sys.argv[1:])
