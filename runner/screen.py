"""Draw lines in place on a terminal, and draw over them: whatever its size becomes, and however slow it is."""

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from runner.board import Line
from runner.cells import columns

PATIENCE_S = 2.0
"""So long a terminal that takes nothing is waited for at the end."""

USUAL = (80, 24)

_SGR = {"dim": "2", "bad": "31", "open": "33"}


def can_draw(out: TextIO, env: Mapping[str, str]) -> bool:
    """Whether *out* is a terminal that can be drawn on: one that moves its cursor."""
    return out.isatty() and env.get("TERM", "dumb") not in ("", "dumb", "unknown")


class Screen:
    """
    Lines at the end of what the terminal *out* shows, drawn again in place.

    A thread writes: a terminal that was stopped by Ctrl-S, or one at the end of a line that is down, takes nothing, and
    must not hold up a batch. Nothing is drawn while our process is in the background, where the shell has the terminal.
    """

    def __init__(self, out: TextIO, env: Mapping[str, str]) -> None:
        self._file = out.fileno()
        self._encoding = out.encoding or "utf-8"
        self._has_colours = not env.get("NO_COLOR")
        # These leave lines as they are, cut or not, when they get narrower; others fold them.
        self._folds = not (env.get("STY") or env.get("XTERM_VERSION") or env.get("TERM") == "linux")
        self._drawn: list[Line] = []
        self._width = 0  # of the terminal when they were drawn
        self._chunks: queue.Queue[bytes | None] = queue.Queue()
        self._is_gone = False
        self._thread = threading.Thread(target=self._write, name="screen", daemon=True)
        self._thread.start()

    def size(self) -> tuple[int, int]:
        """Columns and lines that can be drawn on: the last column stays free, for some terminals wrap behind it."""
        with suppress(OSError):
            found = os.get_terminal_size(self._file)
            return max(2, (found.columns or USUAL[0]) - 1), max(2, (found.lines or USUAL[1]) - 1)
        return USUAL[0] - 1, USUAL[1] - 1

    @property
    def is_ours(self) -> bool:
        """Whether we are in the foreground, and the terminal is there."""
        if self._is_gone:
            return False
        try:
            return os.tcgetpgrp(self._file) == os.getpgrp()
        except OSError:  # it controls nobody here, as under `setsid`: then nobody else draws on it
            return True

    @property
    def is_behind(self) -> bool:
        """Whether the terminal has not taken yet what was drawn before."""
        return not self._chunks.empty()

    def draw(self, lines: Sequence[Line]) -> None:
        """Let *lines*, each within `size`, stand in place of those that were drawn before."""
        if list(lines) == self._drawn and self._width == self.size()[0]:
            return
        self._put(self._to_start() + self._text(lines) + "\x1b[J")
        self._drawn, self._width = list(lines), self.size()[0]

    def say(self, text: str) -> None:
        """Print *text* above what is drawn."""
        self._put(f"{self._to_start()}\x1b[J{text}\n{self._text(self._drawn)}")
        self._width = self.size()[0]

    def forget(self) -> None:
        """Let what is drawn stand as it is, because others have written below it; what comes is drawn below that."""
        self._drawn = []

    def end(self) -> None:
        """Take away what is drawn; wait a moment until it is gone."""
        self._put(f"{self._to_start()}\x1b[J" if self._drawn else "")
        self._drawn = []
        self._chunks.put(None)
        self._thread.join(PATIENCE_S)

    def _to_start(self) -> str:
        rows = len(self._drawn)
        width = self.size()[0] + 1
        if self._folds and width <= self._width:
            rows = sum(max(1, -(-columns(line.text) // width)) for line in self._drawn)
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _text(self, lines: Sequence[Line]) -> str:
        return "".join(f"{self._toned(line)}\x1b[K\n" for line in lines)

    def _toned(self, line: Line) -> str:
        code = _SGR.get(line.tone) if self._has_colours else None
        return f"\x1b[{code}m{line.text}\x1b[0m" if code else line.text

    def _put(self, text: str) -> None:
        if text and not self._is_gone:
            self._chunks.put(text.encode(self._encoding, "replace"))

    def _write(self) -> None:
        """What the thread does, until the end is told or the terminal is gone. That ends nothing that is paid for."""
        while (data := self._chunks.get()) is not None:
            view = memoryview(data)
            while view and not self._is_gone:
                try:
                    view = view[os.write(self._file, view) :]
                except OSError:
                    self._is_gone = True
