import pytest

from runner.errors import UsageError
from runner.local import fault_text
from runner.local.faults import Conditions, Fault, Faults, Kind, Often


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("429", Fault(Kind.TOO_MANY)),
        ("429=5%", Fault(Kind.TOO_MANY, Often(chance=0.05))),
        ("500_after=0.5%", Fault(Kind.INTERNAL_AFTER, Often(chance=0.005))),
        ("run:reset_after=3", Fault(Kind.RESET_AFTER, Often(first=3), "run")),
        ("status-sync:502=20/200", Fault(Kind.BAD_GATEWAY, Often(first=20, every=200), "status-sync")),
        ("paused=8s", Fault(Kind.PAUSED, Often(for_s=8.0))),
        ("not_found=500ms", Fault(Kind.NOT_FOUND, Often(for_s=0.5))),
        ("429=5%,retry_after=2s", Fault(Kind.TOO_MANY, Often(chance=0.05), retry_after_s=2.0)),
        ("503,retry_at=1m", Fault(Kind.UNAVAILABLE, retry_after_s=60.0, as_date=True)),
        ("slow=1/2,over=5s", Fault(Kind.SLOW, Often(first=1, every=2), over_s=5.0)),
        ("unknown_status,shown=RUNNING", Fault(Kind.UNKNOWN_STATUS, shown="RUNNING")),
    ],
)
def test_a_fault_is_read_as_people_write_it(text: str, fault: Fault) -> None:
    """The command line, tests and the header share one way to say it."""
    assert fault_text.fault(text) == fault


def test_a_bad_day_is_faults_in_order_and_conditions() -> None:
    """The first of several that are due happens, so the order counts."""
    texts = ["502=1%", "cold_start=20s", "throttled=2", "429", "unhealthy=1", "stalled=3", "times_out"]
    assert fault_text.faults(texts, seed=7, by_header=True) == Faults(
        (Fault(Kind.BAD_GATEWAY, Often(chance=0.01)), Fault(Kind.TOO_MANY)),
        Conditions(cold_start_s=20.0, throttled=2, unhealthy=1, stalled=3, times_out=True),
        seed=7,
        by_header=True,
    )


HOW_OFTEN = "write 5%, a count such as 3 or 20/200, or a duration such as 8s"


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("foo:429", "foo: no such operation", None),
        ("health:paused", "health: paused can't happen to it", "choose one of run, runsync"),
        ("429=x", "'x' is not how often", HOW_OFTEN),
        ("429=", "'' is not how often", HOW_OFTEN),
        ("429=101%", "'101%' is not how often", HOW_OFTEN),
        ("429=0/5", "'0/5' is not how often", HOW_OFTEN),
        ("429=5/3", "'5/3' is not how often", HOW_OFTEN),
        ("429=-1", "'-1' is not how often", HOW_OFTEN),
        ("429,over=1s", "429 has no option 'over'", "choose one of retry_after, retry_at"),
        ("cut,over=1s", "cut has no option 'over'", "leave it out"),
        ("slow,over=1", "'1': a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d", "write over=2s"),
        ("unknown_status,shown=é", "'é' can't be a status", "use letters, digits, '-' and '_'"),
        ("cold_start", "'': a duration needs a number and a unit: 500ms, 90s, 5m, 2h or 1d", "write cold_start=20s"),
        ("throttled=x", "'x' is no number of workers", "write a count such as 2"),
        ("times_out=1", "it takes no value", "write times_out"),
        ("batch_ids=no", "'no' is neither on nor off", "write on or off"),
        (
            "batch_order=best",
            "'best' is no order",
            "choose one of inputs, shuffled, failures_first, newest_first, unfinished_first",
        ),
        ("batch_extra=1", "it takes no value", "write batch_extra"),
        ("run:batch_fails", "run: batch_fails can't happen to it", "choose one of batch-finalize"),
    ],
)
def test_what_is_no_fault_says_what_to_write(text: str, message: str, fix: str | None) -> None:
    """Nothing is guessed: a bad day that is not the one that was asked for proves nothing."""
    with pytest.raises(UsageError) as caught:
        fault_text.faults([text])
    assert caught.value.message == f"'{text}' is no fault: {message}"
    assert fix is None or caught.value.fix == fix


@pytest.mark.parametrize("text", ["", "421", "run:", "Slow"])
def test_an_unknown_kind_names_all_there_are(text: str) -> None:
    """So the message is the reference."""
    with pytest.raises(UsageError, match="is no fault: nothing is called '") as caught:
        fault_text.fault(text)
    assert caught.value.fix == (
        "choose one of 429, 500, 502, 503, 504, paused, not_found, reset_before, 500_after, 502_after, 503_after, "
        "504_after, reset_after, slow, cut, wrong_type, html, unknown_status, duplicate_chunk, lost_chunk, "
        "shifted_page, batch_fails, cold_start, throttled, unhealthy, stalled, times_out, batch_delay, batch_ids, "
        "batch_order, batch_extra"
    )
