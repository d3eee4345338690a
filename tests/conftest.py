"""What holds for every test: an async one has a loop of its own, in debug mode, and leaves no task behind."""

import compileall
import inspect
import os
from collections.abc import Generator, Iterator

import pytest
from fakes import leaving_no_task
from forked import popen


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DevTools address of a headless Chromium; CI must have one, or say why it can't: RUNNER_NO_BROWSER."""
    import browser

    program = browser.installed()
    if program is None and (why := os.environ.get("RUNNER_NO_BROWSER")):
        pytest.skip(why)
    if program is None and os.environ.get("CI"):
        pytest.fail("there is no Chromium: .ci/run installs Debian's package 'chromium'")
    if program is None:
        pytest.skip("there is no Chromium; install Debian's package 'chromium' to have pages tried in it")
    with browser.running(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def forking() -> Iterator[None]:
    """Processes of the torture are forked where that makes no difference: they fail and die like others."""
    from torture import processes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "popen", popen)
        yield


def pytest_configure(config: pytest.Config) -> None:
    """
    Every loop that pytest-asyncio makes, one for each test, is in debug mode; hundreds of processes start from
    bytecode, also where PYTHONDONTWRITEBYTECODE has each compile all of the runner for itself.
    """
    config.option.asyncio_debug = True
    if not hasattr(config, "workerinput"):
        for name in ("runner", "torture"):
            compileall.compile_dir(config.rootpath / name, quiet=1)


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
