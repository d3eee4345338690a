"""Keep secret values out of every repr, log, file and message."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"


class Secret:
    """A value that shows itself only when asked by name, at the moment it is sent."""

    __slots__ = ("_value", "name")

    def __init__(self, value: str, *, name: str) -> None:
        self._value = value
        self.name = name

    def reveal(self) -> str:
        """The value itself. Call it where the value leaves the process, and keep no copy."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} must not be pickled")


class Masker:
    """Replace known secret values in text that is about to be written or shown."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._values: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """
        Mask *secret* from now on, also as JSON, a URL or a traceback writes it.

        Values under 4 characters are left alone: they would eat ordinary words.
        """
        value = secret.reveal()
        if len(value) >= 4:
            # The longest first, so that no end of one is left over where a shorter one is its beginning.
            self._values = sorted({*self._values, *_spellings(value)}, key=lambda text: (-len(text), text))

    def __call__(self, text: str) -> str:
        """*text* with every known value replaced by ``***``."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text

    def within(self, value: Any) -> Any:
        """
        A JSON value like *value*, every text in it masked, keys too; what is not JSON's becomes text.

        Masking the finished JSON instead could break it: a secret may be a number, or ``null``.
        """
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self(str(key)): self.within(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.within(item) for item in value]
        return self(str(value))


def _spellings(value: str) -> set[str]:
    """*value* as it is, and as it stands in JSON (in JSON, too), in a URL, and in a ``repr``."""
    url = value.encode("utf-8", "surrogateescape")  # as the environment may hold what is no UTF-8
    said = {value, repr(value)[1:-1], quote(url), quote(url, safe=""), quote_plus(url)}
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        said |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return said
