"""
Run a command and say what it cost: ``python -I -S measured.py FILE COMMAND...`` writes that to FILE, as JSON.

A process of its own, and a small one: what the kernel calls a child's peak memory begins with its parent's.
"""

import json
import os
import sys
import time


def main() -> None:
    """Start the command, wait for its end, and tell."""
    _, file, *command = sys.argv
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    told = {
        "began": began,
        "seconds": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    with open(file, "w") as out:  # noqa: PTH123 - pathlib would be half of this process's memory
        json.dump(told, out)


if __name__ == "__main__":
    main()
