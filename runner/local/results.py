"""
Turn what a handler did into the body that a worker posts. Standard library only: workers start with this.

Source: runpod 1.12.0 worker code (rp_job), every case checked against a running worker. One case is ours: output that
is not JSON. The SDK posts nothing then, and the job hangs until its executionTimeout; here it is FAILED, and says why.
"""

import json
import os
from typing import Any

VERSION = "runner-local"
"""Stands where the SDK puts its version, so that nobody takes one worker for the other."""

LIMIT_BYTES = 20 * 1024 * 1024


def of_value(value: Any) -> dict[str, Any]:
    """The body for what a plain or async function returned."""
    if not isinstance(value, dict):
        return {"output": value}
    output = {key: item for key, item in value.items() if key not in ("error", "refresh_worker")}
    body: dict[str, Any] = {"output": output} if output else {}
    if value.get("error"):
        body["error"] = value["error"]
    if value.get("refresh_worker"):
        body["stopPod"] = True
    return body


def of_exception(error: BaseException) -> dict[str, Any]:
    """The body for what a plain or async function raised: an error that is JSON within JSON, like the SDK's."""
    import traceback  # only handlers that fail pay for it

    report = {
        "error_type": str(type(error)),
        "error_message": _text(error),
        "error_traceback": "".join(traceback.format_exception(error)),
        "hostname": os.environ.get("RUNPOD_POD_HOSTNAME", "unknown"),
        "worker_id": os.environ.get("RUNPOD_POD_ID", "unknown"),
        "runpod_version": VERSION,
    }
    return {"error": json.dumps(report)}


def of_broken_stream(error: BaseException) -> dict[str, Any]:
    """The body for what a generator raised: plain text, like the SDK's."""
    import traceback

    return {"error": f"handler: {_text(error)} \ntraceback: {''.join(traceback.format_exception(error))}"}


def encoded(body: dict[str, Any]) -> bytes:
    """
    *body* as JSON text.

    Raises:
        ValueError: it can't be sent: not JSON, NaN or Infinity in it, nested too deeply, or over 20 MiB.
    """
    try:
        text = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the handler's output is not JSON: {error}") from error
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate; JSON can escape what UTF-8 can't say
        data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"the handler's output is {len(data)} bytes of JSON, and RunPod takes at most {LIMIT_BYTES}")
    return data


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - __str__ is the handler's code too, and its job must still end
        return f"{type(error).__name__} (its text can't be shown: {type(broken).__name__})"
