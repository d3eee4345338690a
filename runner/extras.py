"""Libraries that only an extra brings: whether they are there, and what to do where they are not."""

from importlib.util import find_spec

PARQUET = "pip install 'runpod-runner[parquet]'"
"""What brings pyarrow."""

SCHEMA = "pip install 'runpod-runner[schema]'"
"""What brings jsonschema_rs."""

REMOTE = "pip install 'runpod-runner[remote]'"
"""What brings fsspec and s3fs."""

RAY = "pip install 'runpod-runner[ray]'"
"""What brings ray."""


def is_there(library: str) -> bool:
    """Whether *library* is installed; it is not imported to know."""
    return find_spec(library) is not None
