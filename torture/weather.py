"""An endpoint whose weather can be changed while it is used, and a front that spoils answers on their way."""

import asyncio
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from runner.local.fault_text import faults
from runner.local.server import LocalServer, Served
from runner.values import dump, parse
from torture.processes import TOKEN
from torture.scene import Scene

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, while the ``with`` block runs."""

    def __enter__(self) -> "Loop":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Run *what* there, to its end."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()


class Weather:
    """
    The local endpoints of a `Scene`, served from this process.

    Attributes:
        url: Where clients find it.
        log: Its own account of what it was asked and what it accepted.
        mark: In the environment of its workers.
    """

    def __init__(self, folder: Path, loop: Loop, **options: Any) -> None:
        self.log = folder / "accepted.jsonl"
        self.log.touch()
        self.mark = str(folder)
        self._loop = loop
        handler = f"{Scene.make(folder / 'scene').folder / 'handler.py'}"
        served = [Served("plain", f"{handler}:handler", 3), Served("words", f"{handler}:words", 3)]
        self._server = LocalServer(served, token=TOKEN, log=self.log, **options)
        loop.do(self._server.__aenter__())

    @property
    def url(self) -> str:
        """The base URL."""
        return self._server.base_url

    def set(self, *texts: str, seed: int = 0) -> None:
        """From now on have these faults, as `runner.local.fault_text` reads them; none: fine weather."""

        async def change() -> None:
            self._server.set_faults(faults(texts, seed=seed))

        self._loop.do(change())

    def clear_up(self) -> None:
        """Have fine weather again."""
        self.set()

    def purge(self) -> int:
        """Drop every queued job, as somebody else with the same endpoint does; how many there were."""

        async def ask() -> int:
            removed = 0
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with aiohttp.ClientSession(headers=headers) as session:
                for name in ("plain", "words"):
                    async with session.post(f"{self.url}/{name}/purge-queue") as answer:
                        removed += (await answer.json())["removed"]
            return removed

        return self._loop.do(ask())

    def close(self) -> None:
        """End it, and its workers."""
        self._loop.do(self._server.__aexit__(None, None, None))


@contextmanager
def weather(**options: Any) -> Iterator[Weather]:
    """An endpoint while the block runs; *options* are `LocalServer`'s."""
    folder = Path(tempfile.mkdtemp(prefix="torture-weather-"))
    try:
        with Loop() as loop:
            found = Weather(folder, loop, **options)
            try:
                yield found
            finally:
                found.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Asked:
    """A request on its way: the how manieth of its operation it is, from 0, and of all; None where no job is named."""

    operation: str
    number: int
    of_all: int
    job_id: str | None


Instead = Callable[[Asked], web.StreamResponse | None]
Alter = Callable[[Asked, Any], Any]


class Front:
    """
    Stands between runners and an endpoint.

    Attributes:
        instead: The answer without asking the endpoint; None asks it.
        alter: What becomes of the JSON of an answer of 200; it may return a response, too.
        after: The answer to what the endpoint has done; None gives the endpoint's own.
        spoilt: How many answers were not the endpoint's.
    """

    def __init__(self, upstream: str) -> None:
        self.instead: Instead = lambda _: None
        self.after: Instead = lambda _: None
        self.alter: Alter = lambda _, value: value
        self.delay_s: Callable[[Asked], float] = lambda _: 0.0
        self.spoilt = 0
        self.seen: Counter[str] = Counter()
        self.url = ""
        self._upstream = upstream.removesuffix("/v2")

    async def open(self, port: int = 0) -> None:
        """Listen."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=180))
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v2"

    async def close(self) -> None:
        """Be gone."""
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.path.split("/")
        asked = Asked(parts[3], self.seen[parts[3]], self.seen.total(), parts[4] if len(parts) > 4 else None)
        self.seen[parts[3]] += 1
        instead = self.instead(asked)
        if instead is not None:
            self.spoilt += 1
            return instead
        body = await request.read()
        kept = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(request.method, url, data=body or None, headers=kept) as answer:
            status, said = answer.status, await answer.read()
        if (wait_s := self.delay_s(asked)) > 0:
            self.spoilt += 1
            await asyncio.sleep(wait_s)
        found = self.after(asked)
        if found is None and status == 200:
            value = parse(said)
            altered = self.alter(asked, value)
            if isinstance(altered, web.StreamResponse):
                found = altered
            elif altered != value:
                self.spoilt += 1
                return web.json_response(body=dump(altered))
        if found is not None:
            self.spoilt += 1
            return found
        return web.Response(body=said, status=status, content_type="application/json")


@contextmanager
def front(upstream: str) -> Iterator[Front]:
    """A front of *upstream* while the block runs."""
    with Loop() as loop:
        found = Front(upstream)
        loop.do(found.open())
        try:
            yield found
        finally:
            with suppress(Exception):
                loop.do(found.close())
