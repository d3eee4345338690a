"""What holds for every test: an async one has a loop of its own, in debug mode, and leaves no task behind."""

import inspect
from collections.abc import Generator

import pytest
from fakes import leaving_no_task


def pytest_configure(config: pytest.Config) -> None:
    """Every loop that pytest-asyncio makes, one for each test, is in debug mode."""
    config.option.asyncio_debug = True


def pytest_itemcollected(item: pytest.Item) -> None:
    """A task that outlives its test has no owner; in a batch it would be a leak, or a lost error."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = leaving_no_task(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report be sent from one process to another, also where a test logged what UTF-8 can't have."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
