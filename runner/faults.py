"""Name what an unsuccessful HTTP answer lets us conclude. Decides by the status code; free text is only kept."""

import re
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from runner.errors import (
    AnswerLost,
    Forbidden,
    NotFound,
    Paused,
    PaymentRequired,
    RateLimited,
    Refused,
    RunPodError,
    TooLarge,
    Unauthorized,
    Unsupported,
)
from runner.plain import plain
from runner.secret import Masker

DETAIL_BYTES = 2048
"""How much of an unsuccessful answer an error keeps as ``detail``."""

LISTEN_BYTES = 4 * DETAIL_BYTES
"""How much of an unsuccessful answer is read at all."""

LONGEST_RETRY_AFTER_S = 300.0

_LONGEST_KEY_BYTES = 1024
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_BODY_TOO_LARGE = b"exceeded max body size"

_KINDS: dict[int, type[RunPodError]] = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    408: AnswerLost,
    409: Paused,
    413: TooLarge,
    501: Unsupported,
}


@dataclass(slots=True)
class Refusal:
    """An answer that is no success, as far as it was heard: its body may have been cut."""

    status: int
    retry_after: str | None = None
    body: bytearray = field(default_factory=bytearray)

    @property
    def is_heard(self) -> bool:
        """Whether there is enough of the body: the rest is not worth reading."""
        return len(self.body) >= LISTEN_BYTES


def fault(where: str, refusal: Refusal, *, masker: Masker, now: float) -> RunPodError:
    """
    The error that *refusal* means for the call named *where*.

    Args:
        where: Operation and endpoint, as the message shall name them.
        refusal: What was heard; the verdict rests on its status, so a cut body changes nothing.
        masker: Masks our secrets, should the body echo them.
        now: Seconds since the epoch, for a ``Retry-After`` that is a date.
    """
    status = refusal.status
    body = bytes(refusal.body)
    message, detail = f"{where}: HTTP {status}", evidence(body, masker)
    if status == 429:
        return RateLimited(message, retry_after_s=retry_after_s(refusal.retry_after, now=now), detail=detail)
    if 300 <= status < 400:
        return AnswerLost(f"{message}, a redirect, which is not followed", status=status, detail=detail)
    kind = _KINDS.get(status, Refused if 400 <= status < 500 else AnswerLost)
    if status == 400 and _BODY_TOO_LARGE in body:
        kind = TooLarge
    return kind(message, status=status, detail=detail)


def evidence(body: bytes, masker: Masker) -> str:
    """The start of *body* for a person to read: no control characters, no secret of ours, at most 2 KB."""
    if len(body) >= LISTEN_BYTES:  # cut, maybe inside a secret: half of it would pass the masker
        body = body[: max(0, LISTEN_BYTES - max(_LONGEST_KEY_BYTES, masker.longest_bytes))]
    # Escapes go first, for one inside the key would hide it from the masker; the cut comes last, for the same reason.
    text = masker(plain(body.decode("utf-8", "replace")))
    return text.encode()[:DETAIL_BYTES].decode("utf-8", "ignore").strip()


def retry_after_s(header: str | None, *, now: float) -> float | None:
    """
    Seconds to wait, from a ``Retry-After`` of seconds or an HTTP date, at most 300; None when it says nothing clear.

    Source: RunPod documents the header for its management API only, so it is read where it comes and never needed.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_RETRY_AFTER_S)
    try:
        date = parsedate_to_datetime(text)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at - now), LONGEST_RETRY_AFTER_S)
