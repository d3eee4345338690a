"""A handler that gives its input back."""


def handler(job: dict) -> object:
    return job["input"]
