"""
Serve the page of a batch on loopback, made anew from its ledger while it runs; only to who was told the address.
"""

import asyncio
import hmac
import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from runner import batch, report
from runner.batch import Folder
from runner.errors import RunnerError, UsageError
from runner.ledger import Ledger
from runner.page.document import render
from runner.timings import IMAGES

HOST: Final = "127.0.0.1"

LEAST_S: Final = 1.0
"""A page is shown for so long before it is made anew, however many look."""

SHARE: Final = 5
"""And for so many times as long as it took to make: the batch itself needs the machine more."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Watching:
    """
    Serve the batch in *folder* at `url` while the ``async with`` block runs. Nothing of the batch is changed.

    The address holds a token: other users of this machine reach the port too, and must not read outputs. Names other
    than the loopback's are refused, so that no web page can read them through a name of its own.

    Raises, on entering:
        UsageError: the *port* can't be had; 0 is any free one.
    """

    def __init__(self, folder: Folder, *, port: int = 0) -> None:
        self._folder = folder
        self._port = port
        self._token = secrets.token_urlsafe(16)
        self._page: bytes = b""
        self._stale_at = 0.0
        self._turn = asyncio.Lock()
        app = web.Application()
        app.router.add_get("/{token}/", self._answer_page)
        app.router.add_get("/{token}/artifacts/{path:.+}", self._answer_file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self._port}/{self._token}/"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UsageError(
                f"can't listen on {HOST} port {self._port}: {reason}", fix="choose another port, or 0 for any free one"
            ) from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer_page(self, request: web.Request) -> web.Response:
        self._check(request)
        async with self._turn:
            now = time.monotonic()
            if now >= self._stale_at:
                try:
                    self._page = await asyncio.to_thread(made, self._folder)
                except RunnerError as error:
                    return web.Response(text=f"{error.message}\n", status=503, headers=_HEADERS)
                after = time.monotonic()
                self._stale_at = after + max(LEAST_S, SHARE * (after - now))
        return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=_HEADERS)

    async def _answer_file(self, request: web.Request) -> web.FileResponse:
        self._check(request)
        root = self._folder.path / "artifacts"
        path = await asyncio.to_thread(_inside, root, request.match_info["path"])
        if path is None:
            raise web.HTTPNotFound
        headers = _HEADERS | {"Content-Security-Policy": "default-src 'none'; sandbox"}
        if path.suffix.lower() not in IMAGES:  # what a model made is looked at by a program of the user's choice
            headers |= {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        return web.FileResponse(path, headers=headers)

    def _check(self, request: web.Request) -> None:
        names = {f"{HOST}:{self._port}", f"localhost:{self._port}"}
        told = request.match_info["token"].encode("utf-8", "surrogateescape")
        if request.host not in names or not hmac.compare_digest(told, self._token.encode()):
            raise web.HTTPNotFound


def made(folder: Folder) -> bytes:
    """The page of the batch in *folder* as of now, with what reads it anew."""
    with Ledger.read_only(folder.ledger) as ledger:
        otherwise = "running" if batch.is_running(folder) else "unfinished"
        health = report.fold(ledger, report.told(ledger, folder, verdict=otherwise))
        return render(ledger, folder, health, now=time.time(), live=True)


def _inside(root: Path, name: str) -> Path | None:
    """The file *name* in *root*; None where there is none, or it leads out of it."""
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None
