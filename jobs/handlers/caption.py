"""Write a caption for a picture that is still to be made: the same words every time."""

from typing import Any

PLACES = {
    "meadow": "a green meadow",
    "dunes": "tall dunes",
    "snow": "deep snow",
    "moon": "the light of the moon",
}


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """A sentence about ``name``, as a language model on RunPod would give it."""
    given = job["input"]
    place = PLACES.get(given["name"], given["name"])
    return {
        "caption": f"{given['prompt']}, seen in {place} at {given['style']}",
        "tokens": len(given["prompt"].split()),
    }
