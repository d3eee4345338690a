import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.answers import (
    Chunks,
    EndpointHealth,
    HandlerFailure,
    Purged,
    RemoteJob,
    parse_error,
    read_chunks,
    read_health,
    read_job,
    read_purged,
    read_submitted,
)
from runner.values import MISSING, JsonObject, JsonValue

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "status", "stream"]), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("answer", "job"),
    [
        pytest.param({"id": "J-u1", "status": "IN_QUEUE"}, RemoteJob("J-u1", "IN_QUEUE"), id="queued"),
        pytest.param(
            {"status": "IN_PROGRESS", "delayTime": 2624, "output": {"pct": 40}},
            RemoteJob("J-u1", "IN_PROGRESS", output={"pct": 40}, delay_time_ms=2624),
            id="progress",
        ),
        pytest.param(
            {"status": "COMPLETED", "delayTime": 1, "executionTime": 2, "workerId": "k3x9", "output": {"text": "ok"}},
            RemoteJob("J-u1", "COMPLETED", {"text": "ok"}, None, 1, 2, "k3x9"),
            id="completed",
        ),
        pytest.param(
            {"status": "COMPLETED", "output": None}, RemoteJob("J-u1", "COMPLETED", output=None), id="null is an output"
        ),
        pytest.param({"status": "COMPLETED"}, RemoteJob("J-u1", "COMPLETED", output=MISSING), id="without output"),
        pytest.param(
            {"status": "FAILED", "error": "job timed out after 1 retries", "retries": 1},
            RemoteJob("J-u1", "FAILED", error="job timed out after 1 retries", retries=1),
            id="failed by the platform",
        ),
        pytest.param(
            {"status": "FAILED", "error": {"code": 7}, "output": []},
            RemoteJob("J-u1", "FAILED", [], {"code": 7}),
            id="error as an object",
        ),
        pytest.param({"status": "COMPLETED", "error": ""}, RemoteJob("J-u1", "COMPLETED"), id="empty error is none"),
        pytest.param({"status": "COMPLETED", "error": False}, RemoteJob("J-u1", "COMPLETED"), id="false error is none"),
        pytest.param(
            {"status": "COMPLETED", "delayTime": True, "executionTime": "97", "workerId": 5, "retries": -1},
            RemoteJob("J-u1", "COMPLETED"),
            id="wrong types are as good as absent",
        ),
        pytest.param(
            {"status": "COMPLETED", "executionTime": 2**63}, RemoteJob("J-u1", "COMPLETED"), id="beyond the ledger"
        ),
        pytest.param(
            {"status": "PAUSED_FOR_TEA", "input": {}, "future": 1}, RemoteJob("J-u1", "PAUSED_FOR_TEA"), id="unknown"
        ),
        pytest.param(
            {"status": "COMPLETED\x00\x1b[2J"}, RemoteJob("J-u1", "COMPLETED??[2J"), id="odd characters don't end a job"
        ),
        pytest.param({"id": "other", "status": "IN_QUEUE"}, RemoteJob("J-u1", "IN_QUEUE"), id="the id we asked for"),
    ],
)
def test_a_job_is_read_as_it_came(answer: JsonObject, job: RemoteJob) -> None:
    """Every shape seen from RunPod, and the odd ones that must not break or mislead a batch."""
    assert read_job(answer, job_id="J-u1") == job


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
def test_four_statuses_are_final(status: str) -> None:
    """Missing one of them means waiting for ever."""
    assert RemoteJob("J", status).is_final
    assert Chunks(status, []).is_final


@pytest.mark.parametrize("status", ["IN_QUEUE", "IN_PROGRESS", "RUNNING", "UNKNOWN", "completed", ""])
def test_any_other_status_is_not_final(status: str) -> None:
    """A new word of RunPod's must not settle a job that still runs."""
    assert not RemoteJob("J", status).is_final
    assert not Chunks(status, []).is_final


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param({"id": "J"}, "an answer without a status", id="absent"),
        pytest.param({"id": "J", "status": ""}, "an answer without a status", id="empty"),
        pytest.param({"id": "J", "status": 202}, "an answer without a status", id="a number"),
        pytest.param([{"status": "COMPLETED"}], "an answer that is not a JSON object", id="list"),
        pytest.param(None, "an answer that is not a JSON object", id="null"),
    ],
)
def test_an_answer_without_a_status_says_nothing_of_a_job(answer: JsonValue, message: str) -> None:
    """Guessing a state here could settle a paid job without its result."""
    with pytest.raises(ValueError) as caught:
        read_job(answer, job_id="J")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param({"id": "sync-3f0f-u1", "status": "IN_QUEUE"}, "IN_QUEUE", id="as documented"),
        pytest.param({"id": "sync-3f0f-u1"}, "UNKNOWN", id="no status"),
        pytest.param({"id": "sync-3f0f-u1", "status": 202}, "UNKNOWN", id="a number for status"),
    ],
)
def test_a_submit_needs_the_id_alone(answer: JsonObject, status: str) -> None:
    """With the id a job can be followed; refusing it for its status would lose a paid job."""
    assert read_submitted(answer) == RemoteJob("sync-3f0f-u1", status)


@pytest.mark.parametrize(
    "job_id",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
        pytest.param(7, id="number"),
        pytest.param(True, id="true"),
        pytest.param("../purge-queue", id="path"),
        pytest.param("J?ttl=1", id="query"),
        pytest.param("J\n", id="line end"),
        pytest.param("J٣", id="foreign digit"),
        pytest.param("J" * 201, id="endless"),
    ],
)
def test_a_submit_without_a_usable_id_names_no_job(job_id: JsonValue) -> None:
    """An id goes into URLs: one that could reach another operation is not taken."""
    with pytest.raises(ValueError) as caught:
        read_submitted({"id": job_id, "status": "IN_QUEUE"})
    assert str(caught.value) == "an answer that names no job"


@pytest.mark.parametrize(
    ("answer", "chunks"),
    [
        pytest.param(
            {"status": "IN_PROGRESS", "stream": [{"output": {"tok": "Hel"}}, {"output": {"tok": "lo"}}]},
            Chunks("IN_PROGRESS", [{"tok": "Hel"}, {"tok": "lo"}]),
            id="as the SDKs read it",
        ),
        pytest.param({"status": "COMPLETED", "stream": []}, Chunks("COMPLETED", []), id="drained"),
        pytest.param({"status": "FAILED"}, Chunks("FAILED", []), id="no stream"),
        pytest.param({"status": "FAILED", "stream": None}, Chunks("FAILED", []), id="null stream"),
        pytest.param([{"metrics": {}, "output": "a"}], Chunks("UNKNOWN", ["a"]), id="bare list"),
        pytest.param(
            {"status": "IN_PROGRESS", "stream": [{"metrics": {}}, {"output": None, "x": 1}, "bare", 0, None]},
            Chunks("IN_PROGRESS", [None, "bare", 0, None]),
            id="odd items",
        ),
        pytest.param({"stream": [{"output": 1}]}, Chunks("UNKNOWN", [1]), id="no status"),
    ],
)
def test_chunks_are_read_from_every_shape_of_a_stream(answer: JsonValue, chunks: Chunks) -> None:
    """A read consumes its chunks, so a shape we don't take is output that somebody paid for and never gets."""
    assert read_chunks(answer) == chunks


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param({"status": "COMPLETED", "stream": "text"}, "an answer whose stream is not a list", id="text"),
        pytest.param("text", "an answer that is not a JSON object", id="no object"),
    ],
)
def test_a_stream_that_is_no_list_is_refused(answer: JsonValue, message: str) -> None:
    """Taking it for an empty stream would hide that something was there."""
    with pytest.raises(ValueError) as caught:
        read_chunks(answer)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        pytest.param(
            {"jobs": {"inQueue": 12, "failed": 0}, "workers": {"idle": 0, "unhealthy": 2}},
            EndpointHealth({"inQueue": 12, "failed": 0}, {"idle": 0, "unhealthy": 2}),
            id="documented",
        ),
        pytest.param(
            {"jobs": {"inQueue": True, "failed": "3", "retried": None, "completed": 1.5}, "workers": [1]},
            EndpointHealth({}, {}),
            id="nothing that counts",
        ),
        pytest.param([], EndpointHealth({}, {}), id="list"),
        pytest.param("ok", EndpointHealth({}, {}), id="text"),
    ],
)
def test_health_has_only_counters_that_were_there(answer: JsonValue, health: EndpointHealth) -> None:
    """An unknown counter read as zero would look like an endpoint without workers."""
    assert read_health(answer) == health


@pytest.mark.parametrize(
    ("answer", "purged"),
    [
        pytest.param({"removed": 17, "status": "completed"}, Purged(17), id="documented"),
        pytest.param({"status": "completed"}, Purged(None), id="no count"),
        pytest.param({"removed": True}, Purged(None), id="true is no count"),
    ],
)
def test_a_purge_says_how_many_if_runpod_did(answer: JsonObject, purged: Purged) -> None:
    """None is not zero: the queue was dropped all the same."""
    assert read_purged(answer) == purged


RAISED = {"error_type": "<class 'ValueError'>", "error_message": "no such model", "error_traceback": "Traceback …\n  x"}


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        pytest.param(
            json.dumps(RAISED), HandlerFailure("ValueError", "no such model", "Traceback …\n  x"), id="raised"
        ),
        pytest.param(RAISED, HandlerFailure("ValueError", "no such model", "Traceback …\n  x"), id="raised, as object"),
        pytest.param(
            "handler: bad prompt \ntraceback: Traceback …\n  y",
            HandlerFailure(None, "bad prompt", "Traceback …\n  y"),
            id="raised by a generator",
        ),
        pytest.param("out of memory", HandlerFailure(None, "out of memory", None), id="text"),
        pytest.param('{"code": 7}', HandlerFailure(None, '{"code": 7}', None), id="other JSON text stays as it is"),
        pytest.param("{not json", HandlerFailure(None, "{not json", None), id="almost JSON"),
        pytest.param("{" * 100_000, HandlerFailure(None, "{" * 100_000, None), id="nested without end"),
        pytest.param({"code": 7}, HandlerFailure(None, '{"code":7}', None), id="object"),
        pytest.param(["a", 1], HandlerFailure(None, '["a",1]', None), id="list"),
        pytest.param(True, HandlerFailure(None, "true", None), id="true"),
        pytest.param(
            {"error_message": {"deep": 1}, "error_type": 7, "error_traceback": ""},
            HandlerFailure(None, '{"deep":1}', None),
            id="fields of odd types",
        ),
        pytest.param(
            json.dumps({"error_message": "\x1b[31mred\x07", "error_type": "\x1b[1mE", "error_traceback": "a\r\nb\x00"}),
            HandlerFailure("E", "red", "a\nb"),
            id="escapes are stripped",
        ),
    ],
)
def test_an_error_is_told_by_type_message_and_traceback(error: JsonValue, failure: HandlerFailure) -> None:
    """People should read what the handler raised, not JSON in JSON with colour codes."""
    assert parse_error(error) == failure


def missing(read: Callable[[JsonValue], object], answer: JsonValue) -> str | None:
    try:
        read(answer)
    except ValueError as error:
        return str(error)
    return None


@given(ANY_JSON)
def test_no_json_is_a_bug_of_ours(answer: JsonValue) -> None:
    """Whatever the other side sends, a reader reads it or says what is missing."""
    for read in (read_submitted, read_chunks, read_health, read_purged, lambda a: read_job(a, job_id="J")):
        assert (missing(read, answer) or "an answer ").startswith("an answer ")
    assert isinstance(parse_error(answer), HandlerFailure)
