"""Values that must show up nowhere, and a service that tells everybody all that it was sent."""

import base64
import html
import json
import random
import sqlite3
import string
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus

WINDOW = 12
"""So many characters of a canary in a row give it away: no part of one may be left over where a text was cut."""


@dataclass(frozen=True)
class Canary:
    """
    A secret to be planted. Its *core* is made of letters and digits, which most ways to write a text leave as they are.
    """

    name: str
    core: str
    value: str

    @classmethod
    def make(cls, name: str, chance: random.Random, *, around: str) -> "Canary":
        """One with a core of its own in the place of ``{}`` in *around*."""
        core = "".join(chance.choices(string.ascii_letters + string.digits, k=32))
        return cls(name, core, around.format(core))

    def traces(self) -> Iterator[bytes]:
        """Every text that gives it away."""
        raw = self.core.encode()
        yield from (raw[at : at + WINDOW] for at in range(len(raw) - WINDOW + 1))
        for before in range(3):  # in base64 of a text that holds it anywhere
            coded = base64.b64encode(b"\0" * before + raw)[4:-4]
            yield from (coded[at : at + 16] for at in range(0, len(coded) - 15))
        yield raw.hex().encode()
        yield self.core.encode("utf-16-le")

    def is_in(self, data: bytes) -> bool:
        """Whether *data* gives it away."""
        return any(trace in data for trace in self.traces())


def given_away(canaries: list[Canary], data: bytes, where: str) -> list[str]:
    """Which of them *data* gives away, with what is around."""
    found = []
    for canary in canaries:
        for trace in canary.traces():
            at = data.find(trace)
            if at >= 0:
                found.append(f"{canary.name} in {where}: …{data[max(0, at - 150) : at + 40]!r}…")
                break
    return found


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of *folder*, whatever its name, and what each SQLite file has in its tables."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            yield f"{path.relative_to(folder)} (as a name)", str(path.relative_to(folder)).encode()
            yield str(path.relative_to(folder)), data
            if data.startswith(b"SQLite format 3"):
                yield f"{path.relative_to(folder)} (its tables)", _rows(path)


def _rows(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return b"\n".join(repr(row).encode() for name in names for row in db.execute(f'SELECT * FROM "{name}"'))


FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps({"sent": text})),
    "url": lambda text: quote(text, safe=""),
    "url in lower case": lambda text: _lower(text),
    "form": quote_plus,
    "html": html.escape,
    "repr": repr,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}
"""The ways in which services write what they were sent into what they say."""


def _lower(text: str) -> str:
    """*text* as a URL has it, with escapes in lower case and letters as they are."""
    parts = quote(text, safe="").split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


class Mirror:
    """
    RunPod's API on loopback, of which each answer tells all that the service was sent: headers and body.

    The endpoint's id says how it goes wrong; the input's ``form`` in which way it writes what it tells. Jobs of the
    endpoint ``waits`` end once `release` was called.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.jobs: dict[str, str] = {}
        self._streamed: set[str] = set()
        self._may_end = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                _, _, endpoint, operation, *rest = self.path.split("?")[0].split("/")
                text = f"{self.command} {self.path}\n{self.headers}\n{body}"
                status, told = mirror._answer(endpoint, operation, rest[0] if rest else "", text, body)
                data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/" + quote(text))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200  # a batch connects all at once, and who is turned away comes again seconds later

            def handle_error(self, *_: object) -> None:
                """A client that was killed is no error."""

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v2"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._may_end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def release(self) -> None:
        """Let the jobs end that wait."""
        self._may_end.set()

    def _answer(self, endpoint: str, operation: str, job_id: str, text: str, body: str) -> tuple[int, Any]:
        if operation == "health":
            counts = {"jobs": {"inQueue": 0}, "workers": {"ready": 1}}
            return (200, counts) if endpoint != "unwell" else (500, text)
        if operation in ("run", "runsync"):
            self.sent.append(text)
            form = FORMS[json.loads(body)["input"]["form"]]
            job_id = f"{len(self.sent)}-u1"
            self.jobs[job_id] = form(text)
            return self._submitted(endpoint, job_id, form(text))
        return 200, self._status(endpoint, operation, job_id)

    def _submitted(self, endpoint: str, job_id: str, told: str) -> tuple[int, Any]:
        match endpoint:
            case "says-400":
                return 400, told
            case "says-401":
                return 401, {"error": told}
            case "says-500":
                return 500, f"<html>{told}</html>"
            case "says-302":
                return 302, told
            case "says-html":
                return 200, f"<html>{told}</html>"
            case "says-no-id":
                return 200, {"status": "IN_QUEUE", "sent": told}
        return 200, {"id": job_id, "status": "IN_QUEUE"}

    def _status(self, endpoint: str, operation: str, job_id: str) -> Any:
        told = self.jobs[job_id]
        final = {"id": job_id, "delayTime": 1, "executionTime": 2, "workerId": "w1"}
        if operation == "stream":
            chunks = [] if job_id in self._streamed else [{"output": {"chunk": told}}]
            self._streamed.add(job_id)
            return {"status": "COMPLETED", "stream": chunks}
        match endpoint:
            case "waits" if not self._may_end.is_set():
                return {"id": job_id, "status": "IN_PROGRESS"}
            case "fails":
                return final | {"status": "FAILED", "error": told}
            case "fails-in-json":
                error = {"error_type": "E", "error_message": told, "error_traceback": f"Traceback:\n{told}"}
                return final | {"status": "FAILED", "error": json.dumps(error)}
            case "fails-beside":
                return final | {"status": "COMPLETED", "output": {"good": True}, "error": {"told": [told]}}
            case "tells":
                return final | {"status": "COMPLETED", "output": {"told": told}}
        return final | {"status": "COMPLETED", "output": {"good": True}}
