"""
References to environment variables: ``${VAR}`` and ``${VAR:-default}``.

An empty variable counts as unset, as with ``:-`` in a shell: an empty key or endpoint id is never what was meant.
``$${`` stands for a literal ``${``; any other dollar sign is itself.
"""

import re
from collections.abc import Mapping

from runner.errors import UsageError

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?")
_WHOLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
SECRET_NAME = r"(KEY|TOKEN|SECRET|PASSWORD)$|(^|[_.-])(key|token|secret|password)$|[a-z](Key|Token|Secret|Password)$"
"""Finds the end of a name that sounds secret."""

_SECRET_NAME = re.compile(SECRET_NAME)


def names(text: str) -> list[str]:
    """The variables that *text* refers to, in order."""
    return [match["name"] for match in _REFERENCE.finditer(text) if match["name"]]


def defaults(text: str) -> list[str]:
    """What *text* has for variables that are not set, in order."""
    return [match["default"] for match in _REFERENCE.finditer(text) if match["default"]]


def shown(text: str) -> str:
    """A secret *text* as it may be shown: its references stay; what the file has for one that is not set does not."""
    if not names(text):
        return "***"
    return _REFERENCE.sub(lambda match: f"${{{match['name']}:-***}}" if match["default"] else match[0], text)


def unset(text: str, env: Mapping[str, str]) -> list[str]:
    """The variables that *text* needs and *env* lacks: those without a default."""
    found = (match for match in _REFERENCE.finditer(text) if match["name"] and match["default"] is None)
    return [match["name"] for match in found if not env.get(match["name"])]


def malformed(text: str) -> str | None:
    """The first ``${`` in *text* that begins no reference, with what follows it; None when all are well formed."""
    for match in _REFERENCE.finditer(text):
        if match[0] == "${":
            return text[match.start() : match.start() + 20]
    return None


def is_reference(text: str) -> bool:
    """Whether *text* is one reference and nothing else; a default would be a literal, so it may have none."""
    return _WHOLE.fullmatch(text) is not None


def sounds_secret(name: str) -> bool:
    """Whether *name* ends like the name of a secret; ``monkey`` does not."""
    return _SECRET_NAME.search(name) is not None


def resolve(text: str, env: Mapping[str, str]) -> str:
    """
    *text* with every reference replaced.

    Raises:
        UsageError: a variable without a default is unset or empty. The message names it and shows no value.
    """

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "${"
        known = env.get(match["name"]) or match["default"]
        if known is None:
            name = match["name"]
            raise UsageError(
                f"environment variable '{name}' is not set", fix=f"export {name}=…, or write ${{{name}:-default}}"
            )
        return str(known)

    return _REFERENCE.sub(value, text)
