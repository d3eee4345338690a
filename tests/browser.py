"""A real browser for tests and screenshots: headless Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 60.0
ANSWER_S = 30.0


def installed() -> str | None:
    """The browser of this machine; None when there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def running(program: str, profile: Path) -> Iterator[str]:
    """The DevTools address of a *program* that runs while the block does; its profile is in the folder *profile*."""
    process = subprocess.Popen(
        [
            program,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "--no-sandbox",  # containers have no user namespaces, and root may not do without
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "about:blank",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _address(process, profile / "DevToolsActivePort")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", told: Path) -> str:
    give_up = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "the browser ended as it started"
        assert time.monotonic() < give_up, "the browser does not start"
        with suppress(FileNotFoundError):
            port, _, path = told.read_text().strip().partition("\n")
            if path:
                return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.05)


@dataclass
class Tab:
    """A page that is open. *said* is what it wrote to the console or failed with, *asked* every URL it requested."""

    _socket: aiohttp.ClientWebSocketResponse
    _attached: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(100))
    _loads: int = 0

    async def call(self, method: str, **given: Any) -> Any:
        """What the browser answers to *method*."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": given, "sessionId": self._attached})
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = await self._heard()
                if message.get("id") == number:
                    assert "error" not in message, f"{method}: {message['error']}"
                    return message["result"]

    async def go(self, url: str) -> None:
        """Open *url*, and wait until all of it is loaded."""
        loads = self._loads
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        async with asyncio.timeout(ANSWER_S):
            while self._loads == loads:
                await self._heard()

    async def evaluate(self, script: str) -> Any:
        """The value of the expression *script* in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until the expression *script* is true in the page."""
        look = f"() => ({script}) ? done(true) : setTimeout(look, 50)"
        await self.evaluate(f"new Promise(done => {{ const look = {look}; look() }})")

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Keep what it looks like as a PNG: what is in view, or the *whole* page."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    async def look(self, *, width: int, height: int, dark: bool = False, scale: float = 1) -> None:
        """Be a window or a phone of that size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def _heard(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self._socket.receive(ANSWER_S)).data)
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.said.append(" ".join(str(one.get("value", one.get("description"))) for one in given["args"]))
            case "Runtime.exceptionThrown":
                self.said.append(str(given["exceptionDetails"]))
            case "Log.entryAdded":
                self.said.append(f"{given['entry']['level']}: {given['entry']['text']}")
            case "Network.requestWillBeSent":
                self.asked.append(given["request"]["url"])
            case "Page.loadEventFired":
                self._loads += 1
            case "Page.javascriptDialogOpening":
                self.dialogs.append(given["message"])
                await self._socket.send_json(
                    {
                        "id": 0,
                        "method": "Page.handleJavaScriptDialog",
                        "params": {"accept": True},
                        "sessionId": self._attached,
                    }
                )
        return message


@asynccontextmanager
async def tab(address: str, *, scripts: bool = True) -> AsyncIterator[Tab]:
    """A new page in the browser at *address*; without *scripts* it runs none, as where a user turned them off."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        target = await _browser(socket, 1, "Target.createTarget", url="about:blank")
        attached = await _browser(socket, 2, "Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Tab(socket, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        if not scripts:
            await page.call("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield page
        finally:
            await _browser(socket, 3, "Target.closeTarget", targetId=target["targetId"])


async def _browser(socket: aiohttp.ClientWebSocketResponse, number: int, method: str, **given: Any) -> Any:
    await socket.send_json({"id": number, "method": method, "params": given})
    async with asyncio.timeout(ANSWER_S):
        while True:
            message = json.loads((await socket.receive()).data)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
