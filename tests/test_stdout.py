"""What is printed, for programs and for people."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from terminal import ROOT

from runner.stdout import writer


def test_a_program_gets_bytes_as_they_are() -> None:
    """Whatever a model wrote: the lines of results.jsonl are compared and hashed."""
    out = io.BytesIO()
    writer(out)(b"\x1b[31m\xc2\x9b31m\xff\r\n")
    assert out.getvalue() == b"\x1b[31m\xc2\x9b31m\xff\r\n"


def test_a_terminal_gets_nothing_that_it_would_act_on() -> None:
    """U+009B begins an escape sequence, and JSON leaves it as it is."""

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    write = writer(out)
    write('{"output":"a\x9b31mred\x1b]0;title\x07"}\n'.encode())
    write(b"\xff\n")
    assert out.getvalue() == b'{"output":"ared"}\n\\xff\n'


PRINT = """
from runner.errors import UsageError
from runner.stdout import while_read
with while_read():
    for _ in range(100_000):
        print("a line")
"""


def python(script: str, stdout: int) -> subprocess.CompletedProcess[str]:
    """Run *script* with that as its stdout."""
    words = [sys.executable, "-W", "error", "-c", script]
    return subprocess.run(words, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_who_stops_reading_hears_no_complaint() -> None:
    """`| head` is how a long file is looked at."""
    reader, written = os.pipe()
    os.close(reader)
    ran = python(PRINT, written)
    os.close(written)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_said_plainly() -> None:
    """`> file` is how results are kept."""
    script = PRINT.replace("with", "try:\n  with", 1).replace("    ", "      ")
    script += "except UsageError as error:\n  import sys\n  sys.exit(error.render())\n"
    with Path("/dev/full").open("wb") as full:
        ran = python(script, full.fileno())
    assert (ran.returncode, ran.stderr) == (
        1,
        "error: stdout can't be written: No space left on device\n  help: see that its disk has room\n",
    )


def test_printing_on_a_terminal_needs_no_more(tmp_path: Path) -> None:
    """Nothing about a terminal is different for who prints text."""
    main, side = pty.openpty()
    ran = python('from runner.stdout import while_read\nwith while_read():\n    print("hello")\n', side)
    os.close(side)
    assert (ran.returncode, ran.stderr, os.read(main, 100)) == (0, "", b"hello\r\n")
    os.close(main)
