"""With a remote folder, a request leaves when its intent is there, too."""

import asyncio

from fakes import Scene, in_virtual_time

from runner.events import EMBEDDED, Destination
from runner.stop import Reason
from runner.work import Left


class Afar:
    """A remote folder that has an intent *after_s* seconds after it was asked; notes it in *history*."""

    def __init__(self, history: list[str], after_s: float) -> None:
        self._history = history
        self._after_s = after_s

    def saved(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not done.done():
                self._history.append("saved")
                done.set_result(None)

        loop.call_later(self._after_s, end)
        return done


@in_virtual_time
async def test_a_submit_waits_for_its_intent_to_be_saved() -> None:
    """So whoever goes on elsewhere knows of every run that may have been sent."""
    scene = Scene()
    scene.recorder.afar = Afar(scene.history, 1.0)
    await scene.attempt().make()
    assert scene.history == ["Intended 1", "saved", "run", "Accepted job-1", "status-sync job-1"]


@in_virtual_time
async def test_a_stop_ends_the_waiting_and_nothing_is_sent() -> None:
    """The store may be away for an hour: Ctrl-C must not wait for it."""
    scene = Scene()
    scene.recorder.afar = Afar(scene.history, 3600.0)
    scene.after(0.5, scene.switch.close, Reason.INTERRUPT)
    assert await scene.attempt().make() is Left.LEFT
    assert scene.history == ["Intended 1", "Withdrawn 1"]
    assert scene.clock.elapsed_s == 0.5


@in_virtual_time
async def test_a_drain_that_is_over_ends_it_too() -> None:
    """Then the lane is cancelled; the intent is taken back all the same."""
    scene = Scene()
    scene.recorder.afar = Afar(scene.history, 3600.0)
    try:
        async with asyncio.timeout(2.0):
            await scene.attempt().make()
    except TimeoutError:
        scene.history.append("over")
    assert scene.history == ["Intended 1", "Withdrawn 1", "over"]


@in_virtual_time
async def test_an_embedded_endpoint_is_not_waited_for() -> None:
    """It ends with its process, and nobody bills for it."""
    scene = Scene()
    scene.recorder.afar = Afar(scene.history, 3600.0)
    scene.endpoint.destination = Destination("local", EMBEDDED, "local")
    await scene.attempt().make()
    assert scene.history == ["Intended 1", "run", "Accepted job-1", "status-sync job-1"]
