"""The structured log."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RecordError
from runner.log import log_to
from runner.secret import Masker, Secret

KEY = 'rp_"canary"\\key'
log = logging.getLogger("runner.test")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A log that is being written, masked."""
    path = tmp_path / "log.jsonl"
    with log_to(path, Masker([Secret(KEY, name="k")])):
        yield path


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_one_json_object_a_line(path: Path) -> None:
    """So that jq and log collectors can read it."""
    log.info("run %s\nended", "k1", extra={"attempt": 2, "job_id": None})
    log.debug("not wanted")
    (record,) = logged(path)
    assert record.pop("at").endswith("Z")
    assert record == {
        "level": "info",
        "logger": "runner.test",
        "message": "run k1\nended",
        "attempt": 2,
        "job_id": None,
    }


def test_secrets_are_masked_in_messages_fields_and_tracebacks(path: Path) -> None:
    """A log is what people send to others when they ask for help."""
    try:
        raise ValueError(f"no key {KEY}", KEY)
    except ValueError:
        log.exception("with %s", KEY, extra={"detail": {"headers": [f"Bearer {KEY}"]}, KEY: 1})
    text = path.read_text()
    (record,) = logged(path)
    assert "canary" not in text
    assert (record["message"], record["detail"], record["***"]) == ("with ***", {"headers": ["Bearer ***"]}, 1)
    assert record["traceback"].splitlines()[-1] == "ValueError: ('no key ***', '***')"


def test_a_field_of_any_kind_is_written(path: Path) -> None:
    """A record that can't be written is missed when it is needed."""
    log.warning("odd \ud800", extra={"path": Path("/tmp"), "big": 10**30, "error": ValueError(KEY), "set": {KEY}})
    (record,) = logged(path)
    assert record["message"] == "odd \ud800"
    assert (record["path"], record["big"], record["error"]) == ("/tmp", 10**30, "***")
    assert "canary" not in record["set"]


def test_the_log_is_added_to_and_left_as_it_was_found(tmp_path: Path) -> None:
    """A resume goes on with it; a notebook's own logging is not ours."""
    logger = logging.getLogger("runner")
    before = (logger.level, list(logger.handlers))
    for _ in range(2):
        with log_to(tmp_path / "log.jsonl", Masker()):
            log.info("here")
    log.info("not here")
    assert [one["message"] for one in logged(tmp_path / "log.jsonl")] == ["here", "here"]
    assert (logger.level, logger.handlers) == before


def test_a_log_that_can_not_be_opened_is_said_plainly(tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(RecordError) as caught, log_to(tmp_path, Masker()):
        pass
    assert caught.value.render() == (
        f"error: {tmp_path} can't be written: Is a directory\n"
        "  help: see that the disk has room and the folder can be written, then go on with --resume"
    )


def test_a_full_disk_is_no_noise_on_the_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever matters fails by itself, and says so once."""
    (handler,) = logging.getLogger("runner").handlers[-1:]
    assert isinstance(handler, logging.FileHandler)
    assert handler.stream is not None
    handler.stream.close()
    log.error("lost")
    assert capsys.readouterr() == ("", "")
    handler.stream = path.open("a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_to_the_end_is_no_bug_of_ours() -> None:
    """What waits to be written is tried once more when the log is closed."""
    with log_to(Path("/dev/full"), Masker()):
        log.error("lost")
