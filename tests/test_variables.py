"""References to environment variables."""

import pytest

from runner import variables
from runner.errors import UsageError


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("${A}", "1"),
        ("x${A}y${B}", "x1y2"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${EMPTY:-default}", "default"),
        ("${A:-default}", "1"),
        ("$${A}", "${A}"),
        ("$A costs $5", "$A costs $5"),
        ("", ""),
    ],
)
def test_references_are_replaced(text: str, resolved: str) -> None:
    """As a shell does it, so that nobody has to learn another rule."""
    assert variables.resolve(text, {"A": "1", "B": "2", "EMPTY": ""}) == resolved


@pytest.mark.parametrize("env", [{}, {"RUNPOD_API_KEY": ""}], ids=["unset", "empty"])
def test_an_unset_variable_is_named(env: dict[str, str]) -> None:
    """An empty key is never what was meant."""
    with pytest.raises(UsageError) as raised:
        variables.resolve("${RUNPOD_API_KEY}", env)
    assert raised.value.message == "environment variable 'RUNPOD_API_KEY' is not set"


def test_a_value_is_not_resolved_again() -> None:
    """A key that looks like a reference is sent as it is."""
    assert variables.resolve("${A}", {"A": "${B}", "B": "no"}) == "${B}"


def test_names_come_in_order_and_unset_ones_have_no_default() -> None:
    """Which of them are needed decides about a warning."""
    assert variables.names("${A} ${B:-x} $${C} ${D}") == ["A", "B", "D"]
    assert variables.unset("${A} ${B:-x} ${D}", {"D": "1"}) == ["A"]


@pytest.mark.parametrize("text", ["${A-B}", "${}", "${{ x }}", "${1A}", "${A:-${B}}", "${unclosed"])
def test_what_only_looks_like_a_reference_is_malformed(text: str) -> None:
    """It would be sent as it stands."""
    assert variables.malformed(text) is not None or not variables.is_reference(text)


@pytest.mark.parametrize("text", ["${A}", "$5", "$${x}", "${A:-b} and ${C}"])
def test_well_formed_texts_are_not_malformed(text: str) -> None:
    """A dollar sign alone means nothing."""
    assert variables.malformed(text) is None


@pytest.mark.parametrize("text", ["rpa_123", "${A:-rpa_123}", "x${A}", ""])
def test_a_key_must_be_one_reference_and_nothing_else(text: str) -> None:
    """A default would be a literal key in a file that is checked in."""
    assert not variables.is_reference(text)


@pytest.mark.parametrize("name", ["API_KEY", "HF_TOKEN", "token", "my_secret", "apiKey", "APIKEY", "db.password"])
def test_names_that_sound_secret(name: str) -> None:
    """vars are recorded in the manifest, so a secret has no place there."""
    assert variables.sounds_secret(name)


@pytest.mark.parametrize("name", ["monkey", "turkey", "tokens", "key_count", "style", "Keyboard"])
def test_names_that_do_not(name: str) -> None:
    """A false alarm would make a valid experiment impossible."""
    assert not variables.sounds_secret(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("${HOOK}", "${HOOK}", id="a reference"),
        pytest.param("https://h.example/${TOKEN}?a=1", "https://h.example/${TOKEN}?a=1", id="one within a text"),
        pytest.param("${HOOK:-https://h.example/s3cret}", "${HOOK:-***}", id="a default may be the secret itself"),
        pytest.param("https://h.example/s3cret", "***", id="a literal"),
    ],
)
def test_what_is_secret_shows_as_its_references(text: str, said: str) -> None:
    """In what a plan prints."""
    assert variables.shown(text) == said


def test_defaults_are_what_a_file_has_for_variables_that_are_not_set() -> None:
    """They are literals, so a manifest must not have them where the whole is secret."""
    assert variables.defaults("${A:-one} $${B:-two} ${C} ${D:-}") == ["one"]
