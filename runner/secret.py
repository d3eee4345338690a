"""Keep secret values out of every repr, log, file and message."""

from collections.abc import Iterable

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
        """Mask *secret* from now on. Values under 4 characters are left alone: they would eat ordinary words."""
        value = secret.reveal()
        if len(value) >= 4 and value not in self._values:
            self._values.append(value)
            self._values.sort(key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """*text* with every known value replaced by ``***``."""
        for value in self._values:
            if value in text:
                text = text.replace(value, MASK)
        return text
