"""Hold requests until there is something to answer: a job for who takes jobs, a change for who watches one."""

import asyncio


class Waiting:
    """
    The futures of everybody who waits for something of one endpoint.

    *closing*: nobody waits any more, and nobody shall begin to. Deadlines are on the loop's clock.
    """

    def __init__(self) -> None:
        self.closing = False
        self._takers: dict[asyncio.Future[None], None] = {}
        self._watchers: dict[str, dict[asyncio.Future[None], None]] = {}

    async def change(self, key: str, deadline: float) -> bool:
        """Wait for something to happen to *key*; False if nothing did until *deadline*."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watchers = self._watchers.setdefault(key, {})
        watchers[future] = None
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            return False
        finally:
            watchers.pop(future, None)
            if not watchers and self._watchers.get(key) is watchers:
                del self._watchers[key]
        return True

    async def arrival(self, deadline: float) -> bool:
        """Wait for a job to be queued; False if there was none until *deadline*. Who waits longest is called first."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._takers[future] = None
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            return False
        finally:
            del self._takers[future]
        return True

    def changed(self, key: str) -> None:
        """Something happened to *key*."""
        for future in self._watchers.pop(key, ()):
            _wake(future)

    def arrived(self) -> None:
        """There is a job to take: call one who waits for that, and was not called yet."""
        for future in self._takers:
            if not future.done():
                future.set_result(None)
                return

    def call_takers(self) -> None:
        """Have all who wait for a job look whether they still may."""
        for future in self._takers:
            _wake(future)

    def close(self) -> None:
        """Let nobody wait from now on."""
        self.closing = True
        self.call_takers()
        for key in list(self._watchers):
            self.changed(key)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
