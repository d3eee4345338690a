"""
Take the chunks of one job as they come, then let ``/status`` say how it ended.

RunPod gives a chunk out once: what an answer held that never arrived is gone, and so is what another process read.
"""

import asyncio

from runner.answers import Chunks, RemoteJob
from runner.clock import Clock
from runner.endpoint import LiveEndpoint
from runner.errors import AnswerLost, NotFound, RateLimited, RunPodError, TooLarge, Unsupported
from runner.follow import GRACE_S, Following, Vanished
from runner.pace import again_s
from runner.policy import Looks, backoff_s
from runner.received import StreamFile
from runner.states import Outcome
from runner.units import size
from runner.values import JsonValue

MOST_BYTES = 256 * 1024 * 1024
"""The most that the chunks of a job may take: they become its output, and one output must fit into memory."""

LOST_READS = 3
"""So many reads in a row that brought nothing readable end the streaming; ``/status`` may still have the output."""


class Streaming:
    """
    The stream of one job.

    Attributes:
        chunks: What was read so far, by earlier processes too.
        is_whole: Whether they are surely all that the job yielded until now, once each.
    """

    def __init__(
        self,
        following: Following,
        endpoint: LiveEndpoint,
        job_id: str,
        file: StreamFile,
        *,
        request_timeout_s: float,
        looks: Looks,
        is_resumed: bool,
        clock: Clock,
    ) -> None:
        """
        Args:
            following: Looks at the same job.
            is_resumed: Whether an earlier process may have read of the stream: what it had in hand went with it.
        """
        self.chunks: list[JsonValue] = []
        self.is_whole = not is_resumed
        self._following = following
        self._endpoint = endpoint
        self._job_id = job_id
        self._file = file
        self._timeout_s = request_timeout_s
        self._looks = looks
        self._is_resumed = is_resumed
        self._clock = clock
        self._is_drained = False
        self._total_bytes = 0
        self._failures = 0
        self._refusals = 0
        self._lost_reads = 0
        self._empty_reads = 0
        self._has_run = False

    async def until_final(self) -> RemoteJob | Vanished:
        """
        Read until the stream is over, then ask until the job's status is final. Faults on the way are not outcomes.

        Raises:
            EndpointRefused: the endpoint no longer lets us ask; the job is as it was.
            RecordError: the chunks can't be written.
        """
        try:
            if not self._is_drained:
                await self._read_on()
        finally:
            self._file.leave()
        if self._total_bytes > MOST_BYTES:
            told = f"the stream has more than {size(MOST_BYTES)}; what was read is kept"
            return Vanished(Outcome.TOO_LARGE, told, is_running=True)
        self._following.look_at_once()
        found = await self._following.until_final()
        if isinstance(found, RemoteJob) and found.retries:
            self.is_whole = False
        return found

    async def _read_on(self) -> None:
        if self._is_resumed and not self.chunks:
            self.chunks = await self._file.read()
        while not self._is_drained:
            asked_at, age_s = self._clock.monotonic(), self._following.age_s
            try:
                async with self._endpoint.held:
                    answer = await self._endpoint.call("stream", self._read)
            except (NotFound, Unsupported):
                # The job may not be visible yet, or be gone, or there is no /stream here: /status tells which.
                if age_s >= GRACE_S:
                    self.is_whole = False
                    break
                await self._clock.sleep(1.0)
            except RateLimited:
                self._refusals += 1
                await self._clock.sleep(again_s(self._refusals, self._clock.chance()))
            except (AnswerLost, TooLarge):
                self.is_whole = False
                self._lost_reads += 1
                if self._lost_reads >= LOST_READS:
                    break
                await self._back_off()
            except RunPodError:
                await self._back_off()
            else:
                await self._take(answer)
                if not answer.is_final:
                    await self._pause(asked_at)
        await self._file.close()
        self._is_drained = True

    async def _read(self) -> Chunks:
        try:
            return await self._endpoint.client.stream(self._job_id, timeout_s=self._timeout_s)
        except asyncio.CancelledError:  # by a limit or a stop: the job may go on, and complete
            self.is_whole = False
            raise

    async def _take(self, answer: Chunks) -> None:
        self._failures = self._refusals = self._lost_reads = 0
        self._empty_reads = 0 if answer.chunks else self._empty_reads + 1
        # Cut off between the read and the write, the chunks would be nowhere.
        if answer.chunks:
            writing = asyncio.ensure_future(self._file.append(answer.chunks))
            try:
                self._total_bytes += await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing
                raise
            finally:
                self.chunks += answer.chunks
        if answer.status == "IN_QUEUE" and self._has_run:
            self.is_whole = False  # it runs again, from its beginning
        self._following.last_status = answer.status
        self._has_run = self._has_run or answer.status in ("IN_PROGRESS", "RUNNING") or bool(answer.chunks)
        # A final status may come while chunks are still to be read.
        is_over = answer.is_final and not answer.chunks
        self._is_drained = is_over or self._total_bytes > MOST_BYTES

    async def _pause(self, asked_at: float) -> None:
        """Leave a moment between two reads: chunks of single words would else take a request each."""
        wait_s = self._looks.wait_s(self._empty_reads) - (self._clock.monotonic() - asked_at)
        await self._clock.sleep(max(0.0, wait_s))

    async def _back_off(self) -> None:
        self._failures += 1
        await self._clock.sleep(backoff_s(self._failures, initial_s=0.5, most_s=30.0, jitter=self._clock.chance()))
