"""
What templates may call, and what it costs: exact conversions, and a budget counted in steps.

Steps are counted, not timed, so that a template that is refused here is refused on every machine.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from runner import values
from runner.files import FileText
from runner.spec import found
from runner.values import JsonValue

MAX_STEPS = 200_000
MAX_WIDTH = 10_000
"""Largest number that center, indent, round, batch and the like take."""
MAX_BITS = 14_200
"""Size of the largest whole number: Python writes no more than 4300 digits."""
CHARACTERS_A_STEP = 1024

_WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_WIDE = re.compile(r"\d{5}|\{[^{}]*\{")
_STAR = re.compile(r"%[^a-zA-Z%]*\*")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Overspent(Exception):
    """Raised when a template does more than a render may."""


class Budget:
    """Counts down what one render may still do."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def renew(self) -> None:
        """Start the next render."""
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Take *steps* off.

        Raises:
            Overspent: there are fewer left.
        """
        self.left -= steps
        if self.left < 0:
            raise Overspent(f"the template does too much: a render may take {MAX_STEPS} steps")

    def text(self, characters: int) -> None:
        """Pay for handling a text of *characters*."""
        self.spend(1 + characters // CHARACTERS_A_STEP)

    def weigh(self, value: Any) -> Any:
        """Pay for all of *value*, shared parts each time they are met, and hand it on."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, dict):
            self.spend(1 + len(value))
            for item in value.values():
                self.weigh(item)
        elif isinstance(value, list | tuple):
            self.spend(1 + len(value) // 16)
            for item in value:
                if not isinstance(item, int | float):
                    self.weigh(item)
        else:
            self.spend(1)
        return value

    def each(self, items: Iterable[Any], cost: int = 1) -> Iterator[Any]:
        """*items*, each paid for when it is taken."""
        for item in items:
            self.spend(cost)
            yield item


def to_int(value: object, *more: object) -> int:
    """The whole number that *value* is or says. No default: a row that has none should be seen."""
    _no_default("int", more)
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{found(value)} is not a whole number")


def to_float(value: object, *more: object) -> float:
    """The number that *value* is or says."""
    _no_default("float", more)
    number = None
    if (isinstance(value, str) and _NUMBER.fullmatch(value.strip())) or (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    ):
        number = float(value)
    if number is None or number in (float("inf"), float("-inf")):
        raise ValueError(f"{found(value)} is not a number")
    return number


def to_bool(value: object, *more: object) -> bool:
    """The truth that *value* is or says: true, false, 1 or 0."""
    _no_default("bool", more)
    if isinstance(value, bool):
        return value
    flag = _FLAGS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if flag is None:
        raise ValueError(f"{found(value)} is not true, false, 1 or 0")
    return flag


def from_json(value: object) -> JsonValue:
    """The value that a JSON text holds."""
    if not isinstance(value, str):
        raise ValueError(f"{found(value)} is not JSON text")
    try:
        return values.parse(value.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise ValueError(f"{found(value)} is not JSON") from None


def _no_default(name: str, more: tuple[object, ...]) -> None:
    if more:
        raise ValueError(f"the filter '{name}' takes no default: write default(…) before it")


def width(*numbers: object) -> None:
    """Refuse a number that would blow a text or a list up."""
    for number in numbers:
        if isinstance(number, int) and abs(number) > MAX_WIDTH:
            raise Overspent(f"{found(number)} is too large here: at most {MAX_WIDTH}")


def form(text: str) -> None:
    """Refuse a format text with a width of five digits, or one taken from an argument."""
    if _WIDE.search(text) or _STAR.search(text):
        raise Overspent(f"a width in a format has at most 4 digits: {found(text)}")


def operate(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Pay for ``left operator right`` before it is done."""
    alone(left)
    alone(right)
    if operator == "**":
        _power(left, right)
    elif operator == "*":
        _product(budget, left, right)
    elif operator == "%" and isinstance(left, str):
        form(left)
        budget.text(len(left) * MAX_WIDTH // 100)
        budget.weigh(right)
    elif operator == "+" and isinstance(left, str | list | tuple):
        budget.weigh(left)
        budget.weigh(right)
    budget.spend(1)


def _power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
        raise Overspent("this power is too large")


def _product(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_BITS:
            raise Overspent("this product is too large")
        return
    sequence, times = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(times, int) and isinstance(sequence, str):
        budget.text(len(sequence) * max(times, 0))
    elif isinstance(times, int) and isinstance(sequence, list | tuple):
        budget.spend(len(sequence) * max(times, 0))


def joined(budget: Budget, items: Iterable[Any], between: str = "") -> str:
    """*items* as one text, paid for before it is made."""
    texts = []
    for item in items:
        budget.weigh(item)
        texts.append(as_text(item))
    budget.text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def replaced(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    """*text* with *old* replaced, paid for before it is made."""
    budget.text(len(text) + (text.count(old) if old else len(text) + 1) * len(new))
    return text.replace(old, new, count)


def alone(value: Any) -> None:
    """Refuse the content of a file inside a text: results could no longer name the file instead of its megabytes."""
    if isinstance(value, FileText):
        raise ValueError("a file's content is a value of its own: write {{ x | file_base64 }} or file_data_uri alone")


def whole(value: Any) -> None:
    """Refuse a whole number that could not be written."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("a number is too large")


def as_text(value: Any) -> str:
    """*value* as text inside a text: what has no one form there is refused."""
    if value is None:
        raise ValueError("null inside a text: write a default, such as {{ row.x or '' }}")
    if isinstance(value, dict | list | tuple):
        raise ValueError(f"{found(value)} inside a text: write | tojson or | join(', ')")
    whole(value)
    alone(value)
    if isinstance(value, str | int | float) or hasattr(value, "_fail_with_undefined_error"):
        return str(value)  # an undefined value raises here, with its own words
    raise ValueError(f"{type(value).__name__} inside a text: write | join(', ')")
