"""The type that fits every value of a column."""

import pytest

from runner.sinks.fit import fitting
from runner.tables import Type, column
from runner.values import JsonValue


@pytest.mark.parametrize(
    ("name", "values", "type_"),
    [
        ("index", [], Type.INT),
        ("index", [1, None], Type.INT),
        ("index", ["1"], Type.TEXT),
        ("key", [], Type.TEXT),
        ("key", [1], Type.INT),
        ("settled_at", [], Type.TIME),
        ("settled_at", ["2026-11-23T02:23:12.000Z"], Type.TIME),
        ("settled_at", ["2026-11-23T02:23:12.000Z", "2026-11-23T02:23:12Z"], Type.JSON),
        ("settled_at", ["soon"], Type.TEXT),
        ("settled_at", ["0001-01-01T00:00:00.000Z"], Type.TIME),
        ("settled_at", [12], Type.INT),
        ("artifacts", [], Type.TEXTS),
        ("artifacts", [[], ["a"]], Type.TEXTS),
        ("artifacts", [["a"], "a"], Type.JSON),
        ("artifacts", [["\ud800"]], Type.JSON),
        ("output", [["a"]], Type.JSON),
        ("output", [2**53, 0.5], Type.FLOAT),
        ("output", [-(2**53) - 1, 0.5], Type.JSON),
        ("output", [2**63 - 1, 1], Type.INT),
        ("output", [2**63], Type.JSON),
        ("output", [True, 1], Type.JSON),
        ("output", ["é"], Type.TEXT),
    ],
    ids=repr,
)
def test_a_type_fits_all_values_or_it_is_json(name: str, values: list[JsonValue], type_: Type) -> None:
    """Ours are what they should be, as far as they are; of users' values nothing is presumed."""
    assert fitting([column(name)], [{name: value} for value in values]) == [type_]
