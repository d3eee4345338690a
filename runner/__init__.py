"""A declarative, YAML-driven job runner for RunPod's serverless endpoints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.execute import Batch as Batch
    from runner.execute import run as run

__all__ = ["Batch", "run"]


def __getattr__(name: str) -> object:
    """Import the public names when they are first asked for: ``import runner`` and its workers stay light."""
    if name not in __all__:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from runner import execute

    return getattr(execute, name)
