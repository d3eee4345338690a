"""Secrets and masks."""

import base64
import copy
import html
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.secret import Masker, Secret, masked
from runner.values import dump

KEY = 'rp_"odd\\ key/é+\n=tail'
SECRET = Secret(KEY, name="${RUNPOD_API_KEY}")


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, "%s".__mod__, lambda one: f"{one!r}", lambda one: f"{[one]}", lambda one: str({"k": one})],
    ids=["repr", "str", "format", "percent", "f-string", "list", "dict"],
)
def test_a_secret_shows_its_name(show: object) -> None:
    """Whoever prints, logs or raises it."""
    assert callable(show)
    shown = show(SECRET)
    assert "Secret(${RUNPOD_API_KEY})" in shown
    assert "odd" not in shown


@pytest.mark.parametrize(
    "keep", [pickle.dumps, copy.copy, copy.deepcopy, dump, json.dumps], ids=lambda one: one.__name__
)
def test_a_secret_is_not_kept(keep: object) -> None:
    """What can't be written to a file can't be found in one."""
    assert callable(keep)
    with pytest.raises(TypeError) as caught:
        keep(SECRET)
    assert "odd" not in str(caught.value)


def test_a_secret_has_no_attributes_to_list() -> None:
    """Debuggers and dataclass helpers list them."""
    assert not hasattr(SECRET, "__dict__")
    assert SECRET.reveal() == KEY


SPELLINGS = {
    "plain": KEY,
    "JSON": json.dumps(KEY)[1:-1],
    "JSON as orjson has it": dump(KEY).decode()[1:-1],
    "JSON in JSON": json.dumps(json.dumps({"k": KEY})),
    "URL": quote(KEY),
    "URL, all of it": quote(KEY, safe=""),
    "form": quote_plus(KEY),
    "query": urlencode({"key": KEY}),
    "repr": repr(KEY),
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=list(SPELLINGS))
def test_a_value_is_masked_however_it_is_spelled(spelled: str) -> None:
    """Bodies, URLs and tracebacks each write it in their own way."""
    masked = Masker([SECRET])(f"before {spelled} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    assert not any(part in masked for part in ("odd", "tail"))


@settings(derandomize=True, deadline=None)
@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_text_gives_a_value_away(value: str, before: str, after: str) -> None:
    """Whatever characters somebody's password has; the value may stand in its surroundings, too."""
    masker = Masker([Secret(value, name="x")])
    for spelled in (value, json.dumps(value)[1:-1], quote(value, safe="", errors="surrogateescape")):
        masked = masker(before + spelled + after)
        assert value not in masked or value in "***" or value in before + "***" + after
        assert masker.within({spelled: [spelled, 1, None, True]}) == {"***": ["***", 1, None, True]}


def test_the_longer_value_goes_first() -> None:
    """Else the tail of one would be left where a shorter one is its beginning."""
    masker = Masker([Secret("abcd", name="a"), Secret("abcdefgh", name="b")])
    assert masker("abcdefgh abcd") == "*** ***"


def test_a_short_value_is_left_alone() -> None:
    """Masking `on` would make every log unreadable."""
    assert Masker([Secret("abc", name="a"), Secret("", name="b")])("abc on") == "abc on"


def test_what_is_json_stays_json() -> None:
    """A secret may look like a number; in finished JSON its mask would be no value."""
    masker = Masker([Secret("1234", name="a"), Secret("null", name="b")])
    assert masker.within({"n": 1234, "t": "1234", "x": None, "null": ("a null",)}) == {
        "n": 1234,
        "t": "***",
        "x": None,
        "***": ["a ***"],
    }


def test_what_is_not_json_becomes_text_and_is_masked() -> None:
    """An exception, a path, a set: nothing goes by unseen."""
    assert Masker([SECRET]).within([ValueError(KEY), SECRET]) == ["***", "Secret(${RUNPOD_API_KEY})"]


def test_a_value_that_is_no_text_in_utf_8_is_masked_too() -> None:
    """The environment may hold any bytes."""
    assert Masker([Secret("\udcffkey", name="a")])("x \udcffkey") == "x ***"


NESTED = [
    json.dumps,
    lambda text: quote(text, safe=""),
    quote_plus,
    html.escape,
    repr,
    lambda text: base64.b64encode(text.encode()).decode(),
]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(NESTED), max_size=5), st.text(max_size=12), st.text(max_size=12))
def test_a_token_is_masked_however_deep_it_is_written(
    spelled: list[Callable[[str], str]], before: str, after: str
) -> None:
    """A body in a log in a page: only base64 of base64 hides what everybody could read."""
    core = "tok3nWithManyLettersAnd1234567890"
    masker = Masker([Secret(f'"{core}&/é', name="x")])
    text, coded = f"{before}{core}{after}", 0
    for how in spelled:
        coded += how is NESTED[-1]
        if coded < 2:
            text = how(text)
    assert core not in masker(text)
    for at in range(3):
        coded_core = base64.b64encode(b"\0" * at + core.encode()).decode()[4:-4]
        assert coded_core not in masker(text)


def test_words_are_no_token() -> None:
    """What is masked beside the value itself would be missing everywhere else."""
    masker = Masker([Secret("https://hooks.example/internationalisation/in_a_minute", name="x")])
    assert masker("internationalisation of hooks.example in_a_minute") == (
        "internationalisation of hooks.example in_a_minute"
    )


def test_a_traceback_is_masked_by_what_was_revealed() -> None:
    """Who prints it knows no secret, and need not."""
    value = f"revealed {KEY} once"
    Secret(value, name="x").reveal()
    assert masked(f"ValueError: {value!r}") == "ValueError: '***'"


def test_it_knows_how_long_the_beginning_of_a_value_may_be() -> None:
    """Whoever cuts a text cuts so much more away."""
    assert Masker().longest_bytes == 0
    assert Masker([Secret("é" * 5, name="x")]).longest_bytes == len("\\\\u00e9") * 5
