"""Cut a worker's output into lines, never more than we can show, never blocking who writes it."""

from collections.abc import Callable

LINE_LIMIT_BYTES = 8 * 1024
RATE_LIMIT_BYTES = 1024 * 1024


class Lines:
    """
    Call *emit* with each whole line, without its end.

    Lines over 8 KiB come in pieces. Of a flood, more than 1 MiB within a second, the rest of that second is left out,
    and a line says so: the pipe is always read, so a handler that prints without end blocks neither itself nor us.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = b""
        self._window_at = 0.0
        self._in_window = 0
        self._left_out = 0

    def feed(self, data: bytes, now: float) -> None:
        """Take what was read at *now*, in seconds on one monotonic clock."""
        if now - self._window_at >= 1.0:
            self._window_at, self._in_window = now, 0
            self._report()
        self._in_window += len(data)
        if self._in_window > RATE_LIMIT_BYTES:
            self._left_out += len(data)
            self._rest = b""
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._show(line)
        while len(self._rest) > LINE_LIMIT_BYTES:
            self._show(self._rest[:LINE_LIMIT_BYTES])
            self._rest = self._rest[LINE_LIMIT_BYTES:]

    def close(self) -> None:
        """Emit what is left."""
        self._report()
        if self._rest:
            self._show(self._rest)
            self._rest = b""

    def _report(self) -> None:
        if self._left_out:
            self._emit(f"... {self._left_out} bytes of output left out")
            self._left_out = 0

    def _show(self, line: bytes) -> None:
        for start in range(0, max(1, len(line)), LINE_LIMIT_BYTES):
            self._emit(line[start : start + LINE_LIMIT_BYTES].decode(errors="replace").rstrip("\r"))
