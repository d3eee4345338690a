"""Say all of one run to a person: what went in, each attempt, what came out."""

import json
from collections.abc import Iterator
from datetime import datetime

from runner.events import EMBEDDED
from runner.plain import plain
from runner.units import elapsed, size
from runner.values import JsonObject, JsonValue, dump

MOST = 2000
"""Characters of an input, an output or a traceback that are shown."""

WIDTH = 100
LABEL = 11


def detail(document: JsonObject) -> str:
    """What ``runner show`` says of the run that *document*, its JSON, tells of."""
    run = document["run"]
    name = f"run {run['index']} of job {plain(run['job'])}"
    if run["key"] is None:
        return f"{name} has not been started"
    outcome = "" if run["outcome"] in (None, run["state"]) else f" ({run['outcome']})"
    lines = [f"{name}: {run['state']}{outcome}", *_indented(_given(document))]
    for attempt in document["attempts"]:
        lines += ["", *_indented(_attempt(attempt, run["error"]))]
    result = list(_indented(_result(document)))
    return "\n".join([*lines, "", *result] if result else lines)


def _given(document: JsonObject) -> Iterator[str]:
    run = document["run"]
    yield from _field("batch", document["batch"]["path"])
    yield from _field("key", run["key"])
    for name in ("row", "matrix"):
        if run[name] is not None:
            yield from _value(name, run[name])
    yield from _field("repeat", str(run["repeat"]))
    yield from _value("input", run["input"])
    if run["settled_at"] is not None:
        first = document["attempts"][0]["intended_at"] if document["attempts"] else None
        yield from _field("settled", run["settled_at"] + _after(first, run["settled_at"], "after the first intent"))
    if run.get("reused_from") is not None:
        yield from _field("reused", f"from batch {run['reused_from']}")


def _attempt(attempt: JsonObject, last_error: JsonObject | None) -> Iterator[str]:
    status = "" if attempt["status"] is None else f", status {plain(attempt['status'])}"
    yield f"attempt {attempt['attempt']}: {_standing(attempt)}{status}"
    is_embedded = attempt["base_url"] == EMBEDDED
    where = "embedded" if is_embedded else f"{attempt['endpoint_id']} at {attempt['base_url']}"
    fields = {
        "endpoint": f"{attempt['endpoint']}, {where}",
        "job id": attempt["job_id"],
        "intended": attempt["intended_at"],
        "submitted": attempt["submitted_at"],
        "to cancel": attempt["cancel_decided_at"],
        "ended": attempt["ended_at"],
        "worker": attempt["worker_id"],
        "times": _times(attempt),
        "error": _error(attempt["error"]) if attempt["error"] != last_error else "",  # it is told below, in full
    }
    if attempt["ended_at"] is not None:
        fields["ended"] += _after(attempt["submitted_at"], attempt["ended_at"], "after the submit")
    for label, text in fields.items():
        if text:
            yield from _indented(_field(label, text))


def _standing(attempt: JsonObject) -> str:
    if attempt["outcome"] is not None:
        return str(attempt["outcome"])
    if attempt["ended_at"] is not None:
        return "ended with its embedded endpoint"
    return "submitting, no answer yet" if attempt["job_id"] is None else "submitted, not seen to end yet"


def _times(attempt: JsonObject) -> str:
    words = {"delay": attempt["delay_time_ms"], "execution": attempt["execution_time_ms"]}
    told = [f"{word} {elapsed(ms / 1000)}" for word, ms in words.items() if ms is not None]
    told += [] if attempt.get("cost_usd") is None else [f"cost {attempt['cost_usd']:.6g} USD"]
    return ", ".join(told)


def _after(begin: str | None, end: str, what: str) -> str:
    if begin is None:
        return ""
    took_s = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return f", {elapsed(took_s)} {what}" if took_s >= 0 else ""


def _result(document: JsonObject) -> Iterator[str]:
    run = document["run"]
    if "problem" in document:
        yield document["problem"]
    if "output" in run:
        yield from _value("output", run["output"])
    if run["error"] is not None:
        yield from _field("error", _error(run["error"]))
        if run["error"]["traceback"]:
            yield from _block(run["error"]["traceback"])
    if run["artifacts"]:
        known = {file["path"]: file for file in document.get("files", ())}
        yield from _field("artifacts", "\n".join(_file(path, known.get(path)) for path in run["artifacts"]))


def _file(path: str, known: JsonObject | None) -> str:
    return path if known is None else f"{path}, {size(known['size_bytes'])}, sha256 {known['sha256']}"


def _error(error: JsonObject | None) -> str:
    if error is None:
        return ""
    kind, message = error["type"], error["message"]
    return f"{kind}: {message}" if kind and not message.startswith(kind) else str(message)


def _field(label: str, text: str) -> Iterator[str]:
    """*text* beside its *label*, further lines of it below its beginning."""
    for number, line in enumerate(_cut(plain(text)).split("\n")):
        yield f"{'' if number else label:<{LABEL}}{line}".rstrip()


def _value(label: str, value: JsonValue) -> Iterator[str]:
    """*value* beside its *label*, or below it where it is long."""
    compact = _compact(value)
    if len(compact) <= WIDTH and "\n" not in compact:
        yield from _field(label, compact if compact and compact.strip() == compact else dump(value).decode())
        return
    yield label
    yield from _block(compact if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))


def _compact(value: JsonValue) -> str:
    """A text as it is, anything else as JSON in a line."""
    return value if isinstance(value, str) else dump(value).decode()


def _block(text: str) -> Iterator[str]:
    yield from _indented(iter(_cut(plain(text)).rstrip("\n").split("\n")))


def _cut(text: str) -> str:
    return text if len(text) <= MOST else f"{text[:MOST]} … ({len(text) - MOST} more characters: --format json)"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}" if line else ""
