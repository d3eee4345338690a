from runner.local.deadlines import Deadlines


def test_deadlines_come_out_in_order_of_time() -> None:
    """The endpoint's one timer is set to the first; what is due comes earliest first."""
    deadlines = Deadlines()
    for key, at in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        deadlines.set(key, at)
    assert deadlines.next() == 1.0
    assert [deadlines.due(2.5), deadlines.due(2.5), deadlines.due(2.5)] == ["a", "b", None]
    assert deadlines.next() == 3.0


def test_a_moved_or_dropped_deadline_does_not_ring_at_its_old_time() -> None:
    """A job's deadline moves with its state: ttl, executionTimeout, retention."""
    deadlines = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.set("a", 5.0)
    deadlines.set("b", 2.0)
    deadlines.drop("b")
    deadlines.drop("never seen")
    assert deadlines.due(4.0) is None
    assert deadlines.next() == 5.0


def test_moving_deadlines_for_ever_takes_no_memory() -> None:
    """A server that runs for weeks moves three deadlines a job."""
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set("a", float(number))
    assert len(deadlines) == 1
    assert len(deadlines._heap) < 100
