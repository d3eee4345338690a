"""Drawing in place on a terminal: a real pty, and a terminal emulator that says what stands on it."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

import pyte
import pytest

from runner import screen as module
from runner.board import Line
from runner.screen import Screen, can_draw

XTERM = {"TERM": "xterm-256color", "XTERM_VERSION": "1"}


class Terminal:
    """A pty of 40 columns and 10 lines, and what an emulator behind it shows: one that folds nothing as it narrows."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.out: TextIO = os.fdopen(theirs, "w")
        self.emulator = pyte.Screen(40, 10)
        self._stream = pyte.ByteStream(self.emulator)
        self.sent = b""
        self.resize(40, 10)

    def resize(self, width: int, height: int) -> None:
        """Let it have another size."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.emulator.resize(height, width)

    def shown(self, drawn: Screen) -> list[str]:
        """What stands on it, once all that was *drawn* has come."""
        give_up = time.monotonic() + 10
        mark = b"\x1b]2;mark\x07"
        drawn._put(mark.decode())
        while mark not in self.sent:
            assert time.monotonic() < give_up
            if select.select([self.ours], [], [], 0.05)[0]:
                self.sent += os.read(self.ours, 65536)
        text, _, self.sent = self.sent.partition(mark)
        self.raw = text
        self._stream.feed(text)
        return [line.rstrip() for line in self.emulator.display if line.strip()]

    def close(self) -> None:
        """Both ends."""
        self.out.close()
        os.close(self.ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal."""
    one = Terminal()
    yield one
    one.close()


def drawing(terminal: Terminal, env: Mapping[str, str] = XTERM) -> Screen:
    """A screen on *terminal*."""
    return Screen(terminal.out, env)


def lines(*texts: str) -> list[Line]:
    """Lines without a tone."""
    return [Line(text) for text in texts]


def test_what_is_drawn_again_takes_the_place_of_what_was_there(terminal: Terminal) -> None:
    """More lines, fewer lines, shorter ones: nothing of the old is left."""
    drawn = drawing(terminal)
    drawn.draw(lines("one", "two"))
    assert terminal.shown(drawn) == ["one", "two"]
    drawn.draw(lines("ONE", "a longer second", "three"))
    assert terminal.shown(drawn) == ["ONE", "a longer second", "three"]
    drawn.draw(lines("1"))
    assert terminal.shown(drawn) == ["1"]
    drawn.end()


def test_what_is_said_stands_above_and_stays(terminal: Terminal) -> None:
    """What a signal does is told while the table goes on."""
    drawn = drawing(terminal)
    drawn.draw(lines("table", "foot"))
    drawn.say("SIGINT: starting nothing more")
    assert terminal.shown(drawn) == ["SIGINT: starting nothing more", "table", "foot"]
    drawn.draw(lines("table", "other foot"))
    assert terminal.shown(drawn) == ["SIGINT: starting nothing more", "table", "other foot"]
    drawn.end()


def test_the_same_again_is_not_sent_again(terminal: Terminal) -> None:
    """Whoever looks on over a slow line, or in tmux, pays for every byte."""
    drawn = drawing(terminal)
    for _ in range(5):
        drawn.draw(lines("table"))
    terminal.shown(drawn)
    assert terminal.raw.count(b"table") == 1
    drawn.end()


def test_the_end_leaves_no_trace(terminal: Terminal) -> None:
    """What stays is what came of the batch."""
    drawn = drawing(terminal)
    drawn.say("before")
    drawn.draw(lines("table", "foot"))
    terminal.shown(drawn)
    drawn.end()
    terminal._stream.feed(os.read(terminal.ours, 65536))
    assert [line.rstrip() for line in terminal.emulator.display if line.strip()] == ["before"]


def test_a_terminal_that_gets_narrower_or_wider_keeps_one_table(terminal: Terminal) -> None:
    """A window that is dragged, a tmux pane that is split."""
    drawn = drawing(terminal)
    drawn.say("before")
    for width in (40, 20, 60, 10, 40):
        terminal.resize(width, 10)
        drawn.draw(lines("x" * (drawn.size()[0] - 1), f"{width}"))
        assert terminal.shown(drawn)[1:] == ["x" * (width - 2), f"{width}"]
    drawn.end()


def test_lines_that_a_terminal_folds_as_it_gets_narrower_are_drawn_over_too(terminal: Terminal) -> None:
    """Most terminals fold what was wider: the cursor has to go up by what it takes now."""
    drawn = drawing(terminal, {"TERM": "tmux-256color"})
    drawn.draw(lines("x" * 39, "y"))
    terminal.shown(drawn)
    terminal.resize(20, 10)
    drawn.draw(lines("z"))
    terminal.shown(drawn)
    assert terminal.raw.startswith(b"\r\x1b[3A")
    drawn.end()


def test_after_others_wrote_below_it_is_drawn_anew(terminal: Terminal) -> None:
    """Ctrl-Z, a few commands, fg: the shell's lines are not ours to draw over."""
    drawn = drawing(terminal)
    drawn.draw(lines("table"))
    terminal.shown(drawn)
    terminal._stream.feed(b"$ fg\r\n")
    drawn.forget()
    drawn.draw(lines("table"))
    assert terminal.shown(drawn) == ["table", "$ fg", "table"]
    drawn.end()


@pytest.mark.parametrize(("env", "is_coloured"), [(XTERM, True), (XTERM | {"NO_COLOR": "1"}, False)])
def test_colours_are_beside_the_words_and_may_be_left_out(
    terminal: Terminal, env: Mapping[str, str], is_coloured: bool
) -> None:
    """NO_COLOR is respected; nothing is said by colour alone."""
    drawn = drawing(terminal, env)
    drawn.draw([Line("job", "dim"), Line("photos", "bad"), Line("endpoint", "open"), Line("plain")])
    assert terminal.shown(drawn) == ["job", "photos", "endpoint", "plain"]
    assert (b"m" in terminal.raw.replace(b"mark", b"")) is is_coloured
    drawn.end()


def test_a_terminal_that_takes_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    """Ctrl-S, or a line that is down: results have to be fetched all the same, for RunPod keeps them half an hour."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    drawn = drawing(terminal)
    began = time.monotonic()
    for number in range(400):
        drawn.draw(lines(*(f"{number} {'x' * 30}" for _ in range(9))))
    assert drawn.is_behind
    drawn.end()
    assert time.monotonic() - began < 5


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    """Closing the window must not end what somebody pays for."""
    terminal = Terminal()
    drawn = drawing(terminal)
    os.close(terminal.ours)
    drawn.draw(lines("table"))
    drawn.end()
    assert not drawn.is_ours
    drawn.draw(lines("again"))
    terminal.out.close()


@pytest.mark.parametrize(
    ("term", "expected"),
    [("xterm", True), ("screen-256color", True), ("tmux", True), ("linux", True), ("dumb", False), ("", False)],
)
def test_what_can_be_drawn_on(terminal: Terminal, term: str, expected: bool) -> None:
    """An editor's shell and a serial line get plain lines."""
    assert can_draw(terminal.out, {"TERM": term}) is expected
    assert not can_draw(terminal.out, {})
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - as a shell redirects
        assert not can_draw(nowhere, {"TERM": term})
