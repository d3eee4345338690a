"""Say the prompt a character at a time, as a streaming model says its tokens."""

from collections.abc import Iterator
from typing import Any


def handler(job: dict[str, Any]) -> Iterator[str]:
    """Yield the characters of the prompt, ``times`` over."""
    for _ in range(job["input"].get("times", 1)):
        yield from job["input"]["prompt"]
