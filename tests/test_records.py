"""Records: dataclasses in all that users of them see, at half the price."""

from dataclasses import field, fields, replace

from runner.records import record


@record(frozen=True, slots=True)
class Point:
    """Somewhere."""

    x: int
    y: int = 0
    why: str = field(default="", repr=False, compare=False)


@record(frozen=True)
class Other:
    """Somewhere else."""

    x: int
    y: int = 0

    def __repr__(self) -> str:
        return "another"


def test_a_record_is_what_its_values_are() -> None:
    """Equal values are equal records of one kind, and one key of a dict; what is not compared changes nothing."""
    assert Point(1, 2) == Point(1, 2, "because")
    assert Point(1, 2) != Point(2, 1)
    assert {Point(1, 2): "here"}[Point(1, y=2)] == "here"
    assert Point(1, 2).__eq__(Other(1, 2)) is NotImplemented
    assert Other(1) == Other(1)


def test_a_record_shows_itself_as_it_is_made() -> None:
    """Failed assertions and logs show records; a class may have its own word on it."""
    assert repr(Point(1, 2, "because")) == "Point(x=1, y=2)"
    assert repr(Other(1)) == "another"


def test_what_works_on_dataclasses_works_on_records() -> None:
    """They are some, with slots where that was asked for."""
    assert replace(Point(1, 2, "because"), y=3) == Point(1, 3)
    assert [one.name for one in fields(Point)] == ["x", "y", "why"]
    assert not hasattr(Point(1), "__dict__")
    assert hasattr(Other(1), "__dict__")
