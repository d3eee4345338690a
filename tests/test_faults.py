import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import (
    AnswerLost,
    Forbidden,
    NotFound,
    NotSent,
    Paused,
    PaymentRequired,
    RateLimited,
    Refused,
    RunPodError,
    TooLarge,
    Unauthorized,
    Unsupported,
)
from runner.faults import LISTEN_BYTES, Refusal, evidence, fault, retry_after_s
from runner.secret import Masker, Secret

KEY = "rpa_PLANTED0KEY"
MASKER = Masker([Secret(KEY, name="RUNPOD_API_KEY")])
NOON = 1_787_227_200.0  # Thu, 20 Aug 2026 12:00:00 GMT


def refused(status: int, body: bytes = b"", retry_after: str | None = None) -> RunPodError:
    return fault("POST /run of endpoint 'abc'", Refusal(status, retry_after, bytearray(body)), masker=MASKER, now=NOON)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (100, AnswerLost),
        (301, AnswerLost),
        (307, AnswerLost),
        (400, Refused),
        (401, Unauthorized),
        (402, PaymentRequired),
        (403, Forbidden),
        (404, NotFound),
        (405, Unsupported),
        (408, AnswerLost),
        (409, Paused),
        (413, TooLarge),
        (418, Refused),
        (422, Refused),
        (429, RateLimited),
        (500, AnswerLost),
        (501, Unsupported),
        (502, AnswerLost),
        (503, AnswerLost),
        (504, AnswerLost),
        (524, AnswerLost),
        (600, AnswerLost),
    ],
)
def test_the_status_code_decides_what_may_be_concluded(status: int, kind: type[RunPodError]) -> None:
    """Bodies have no common shape, so whether a job may exist is read off the code."""
    error = refused(status, b'{"error": "job not found"}')
    assert type(error) is kind
    assert error.status == status
    assert error.detail == '{"error": "job not found"}'


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param(500, "POST /run of endpoint 'abc': HTTP 500", id="any"),
        pytest.param(
            302, "POST /run of endpoint 'abc': HTTP 302, a redirect, which is not followed", id="redirect says why"
        ),
    ],
)
def test_a_message_says_what_and_where(status: int, message: str) -> None:
    """The reader of a log has several endpoints and operations to tell apart."""
    assert str(refused(status)) == message


@given(st.integers(100, 999))
def test_only_a_429_says_that_nothing_was_accepted(status: int) -> None:
    """A code wrongly taken for "not sent" makes a second, separately paid job."""
    assert isinstance(refused(status), NotSent) is (status == 429)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(400, b"bad request: body: exceeded max body size of 10MiB", TooLarge, id="RunPod's words"),
        pytest.param(400, b'{"error": "exceeded max body size of 20MiB"}', TooLarge, id="in JSON"),
        pytest.param(400, b"bad request: body: not JSON", Refused, id="another bad request"),
        pytest.param(502, b"exceeded max body size", AnswerLost, id="only with 400"),
    ],
)
def test_a_400_about_the_body_size_is_too_large(status: int, body: bytes, kind: type[RunPodError]) -> None:
    """RunPod's gateway answers 400 where 413 belongs, and the user needs to know that the row is too large."""
    assert type(refused(status, body)) is kind


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("12", 12.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="zero"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("86400", 300.0, id="a day is capped"),
        pytest.param("9" * 6000, 300.0, id="endless digits are capped"),
        pytest.param("Thu, 20 Aug 2026 12:00:30 GMT", 30.0, id="date"),
        pytest.param("Thu, 20 Aug 2026 12:00:30 -0000", 30.0, id="date without a zone is UTC"),
        pytest.param("Thu, 20 Aug 2026 11:00:00 GMT", 0.0, id="date gone by"),
        pytest.param("Thu, 20 Aug 2037 12:00:00 GMT", 300.0, id="far date is capped"),
        pytest.param("Thu, 99 Foo 2026 12:00:00 GMT", None, id="no date"),
        pytest.param("-5", None, id="negative"),
        pytest.param("soon", None, id="a word"),
        pytest.param("٣", None, id="foreign digit"),
        pytest.param("inf", None, id="infinity"),
    ],
)
def test_retry_after_is_read_tolerantly(header: str | None, wait_s: float | None) -> None:
    """The header is not documented for this host, so whatever stands in it must not stall or break a batch."""
    assert retry_after_s(header, now=NOON) == wait_s
    error = refused(429, retry_after=header)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == wait_s


@given(st.text())
def test_no_retry_after_is_a_bug_of_ours(header: str) -> None:
    """The wait is always usable, whatever the header says."""
    wait_s = retry_after_s(header, now=NOON)
    assert wait_s is None or 0 <= wait_s <= 300


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        pytest.param(b"\x1b[31m<html>\x1b[0m\x00", "<html>", id="escapes"),
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", id="not UTF-8"),
        pytest.param(f"key {KEY} is revoked".encode(), "key *** is revoked", id="key"),
        pytest.param(f"{KEY[:4]}\x1b[0m{KEY[4:]}".encode(), "***", id="key hidden by an escape"),
        pytest.param(b"x" * 5000, "x" * 2048, id="long"),
        pytest.param(b"x" * 2045 + KEY.encode(), "x" * 2045 + "***", id="key across the cut"),
        pytest.param("é".encode() * 1500, "é" * 1024, id="cut between letters"),
        pytest.param(b"x" + "é".encode() * 1500, "x" + "é" * 1023, id="cut inside a letter"),
    ],
)
def test_evidence_is_short_and_safe_to_show(body: bytes, shown: str) -> None:
    """It goes to terminals and files, and error pages do echo headers."""
    assert evidence(body, MASKER) == shown


def test_half_a_key_at_the_end_of_what_was_read_is_not_shown() -> None:
    """A body cut inside an echoed key leaves a piece that no masker knows."""
    body = b"\x00" * (LISTEN_BYTES - 10) + KEY.encode()
    assert evidence(body, MASKER) == ""
