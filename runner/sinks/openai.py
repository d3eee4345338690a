"""The results as OpenAI's batch API and vLLM's ``run-batch`` write them: a request's ``custom_id`` and its answer."""

from contextlib import closing
from hashlib import blake2b

from runner.errors import UsageError
from runner.occurrences import KeyIndex
from runner.plain import plain
from runner.sinks.base import Source, Write
from runner.states import State
from runner.values import MISSING, JsonObject, JsonValue, canonical, dump


def write(source: Source, write: Write) -> None:
    """
    A line for each run: its output is the body of the response, an unsuccessful run has an error instead.

    Raises:
        UsageError: a run has no ``custom_id`` in its row, or one that a run before it has; nothing was written then.
    """
    _check(source)
    for _, line in source.lines():
        write(dump(_told(line)) + b"\n")


def _check(source: Source) -> None:
    """Make sure that every run is known by its ``custom_id`` alone: whoever reads the file has nothing else."""
    with closing(KeyIndex()) as counted:
        for _, line in source.lines():
            custom_id = _custom_id(line)
            if custom_id is None:
                raise UsageError(
                    f"--format openai knows a run by the custom_id of its row, and {_run(line)} has none",
                    fix="choose the jobs whose rows have one with --job, or write --format jsonl",
                )
            if counted.count(blake2b(canonical(custom_id), digest_size=16).digest()):
                raise UsageError(
                    f"--format openai knows a run by its custom_id, and {_run(line)} has one that another run has:"
                    f" {plain(dump(custom_id).decode()[:80])}",
                    fix='choose one of them with --job, or with --where "matrix.seed == 1"',
                )


def _custom_id(line: JsonObject) -> JsonValue:
    return (line["row"] or {}).get("custom_id")


def _told(line: JsonObject) -> JsonObject:
    """*line* in OpenAI's words."""
    response = error = None
    if line["state"] == State.SUCCEEDED:
        response = {"status_code": 200, "request_id": line["job_id"], "body": _body(line.get("output", MISSING))}
    else:
        said = (line["error"] or {}).get("message")
        error = {"code": line["outcome"] or line["state"], "message": said or f"the run was {line['state']}"}
    return {"id": line["key"], "custom_id": _custom_id(line), "response": response, "error": error}


def _body(output: JsonValue) -> JsonValue:
    """*output* as a body. A worker that can stream gives a list; where nobody asked for chunks, the answer is in it."""
    if output is MISSING:
        return None
    if isinstance(output, list) and len(output) == 1 and isinstance(output[0], dict):
        return output[0]
    return output


def _run(line: JsonObject) -> str:
    return f"run {line['index']} of job {line['job']}"
