"""Keep secret values out of every repr, log, file and message."""

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_revealed: set[str] = set()


class Secret:
    """A value that shows itself only when asked by name, at the moment it is sent."""

    __slots__ = ("_value", "name")

    def __init__(self, value: str, *, name: str) -> None:
        self._value = value
        self.name = name

    def reveal(self) -> str:
        """The value itself. Call it where the value leaves the process, and keep no copy."""
        _revealed.add(self._value)
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

    @property
    def longest_bytes(self) -> int:
        """How long the longest text is that it masks: so much of a text that was cut may be the beginning of one."""
        return max((len(text.encode("utf-8", "surrogatepass")) for text in self._values), default=0)

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


def masked(text: str) -> str:
    """*text* without any secret that this process has revealed: for a traceback, which may hold what nobody masked."""
    return Masker(Secret(value, name="") for value in list(_revealed))(text)


def _spellings(value: str) -> set[str]:
    """*value* as it is, and as it stands in JSON (in JSON, too), in a URL, in HTML, in base64, and in a ``repr``."""
    raw = value.encode("utf-8", "surrogateescape")  # as the environment may hold what is no UTF-8
    urls = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    urls |= {_ESCAPE.sub(lambda escape: escape[0].lower(), url) for url in urls}
    said = {value, repr(value)[1:-1], html.escape(value), html.escape(value, quote=False), *urls, *_base64(raw)}
    said.add(raw.decode("latin-1"))  # as bytes are searched that may be anything
    for part in _parts(value):
        said |= {part, *_base64(part.encode())}
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        said |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return said


_ESCAPE = re.compile("%[0-9A-F]{2}")
_PLAIN = re.compile("[A-Za-z0-9_]{12,}")
_KINDS = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))


def _parts(value: str) -> list[str]:
    """
    The parts of *value* that stay as they are however often one spelling is put into another, as JSON in HTML in JSON:
    letters and digits, so many and so mixed that no word is among them.
    """
    return [part for part in _PLAIN.findall(value) if sum(bool(kind.search(part)) for kind in _KINDS) > 1]


def _base64(raw: bytes) -> set[str]:
    """
    What stands in base64 of any text that holds *raw*, wherever in it: each begins at one of three places, and the
    first and last characters are made of what is around it as well. What is left of a short one is too common a text.
    """
    found = set()
    for before in range(3):
        first = -(-before * 4 // 3)
        last = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * before + raw)[first:last].decode())
    return {text for text in found if len(text) >= 12}
