"""What holds for every test: an async one has a loop of its own, in debug mode, and leaves no task behind."""

import inspect

import pytest
from fakes import leaving_no_task


def pytest_configure(config: pytest.Config) -> None:
    """Every loop that pytest-asyncio makes, one for each test, is in debug mode."""
    config.option.asyncio_debug = True


def pytest_itemcollected(item: pytest.Item) -> None:
    """A task that outlives its test has no owner; in a batch it would be a leak, or a lost error."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = leaving_no_task(item.obj)
