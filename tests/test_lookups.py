"""Templates that only look things up must be what jinja makes of them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.lookups import compile_lookups
from runner.render import RenderError, Scope
from runner.template import TemplateProblem, compile_text

SCOPE: Scope = {
    "row": {"prompt": "a horse", "n": 7, "items": "x", "none": None, "list": [1], "real": 1.5},
    "matrix": {"seed": 1},
    "vars": {"style": "ink", "deep": {"er": "y"}},
    "repeat": 0,
}

PIECES = [
    *["{{ row.prompt }}", "{{row.n}}", "{{ row.items }}", "{{ row.none }}", "{{ row.list }}", "{{ row.real }}"],
    *["{{ vars.deep.er }}", "{{ repeat }}", "{{ row }}", "{{ row.missing }}", "{{ matrix.seed.x }}", "{{ rows.x }}"],
    *["{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "\n", "\r\n", " ", "a", "%s", "%", "-", "{{- row.n -}}", "é"],
]


def outcome(render: Any) -> object:
    """What rendering gives, or the message of its refusal."""
    try:
        return render(SCOPE)
    except RenderError as error:
        return re.sub(r"^.*: ", "", error.message)


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_the_short_way_renders_what_jinja_renders(text: str) -> None:
    """It only saves time: a request must not depend on which way it was made."""
    short = compile_lookups(text, ("x",))
    if short is None:
        return
    long = compile_text(text, ("x",))
    assert outcome(short.render) == outcome(long.render)
    assert (short.names, sorted(map(str, short.uses))) == (long.names, sorted(map(str, long.uses)))


@pytest.mark.parametrize("text", ["{{ row.prompt }}", "a {{ vars.style }} {{ row.n }} horse", "{{ repeat }}"])
def test_plain_lookups_are_taken(text: str) -> None:
    """Without them the short way would be of no use."""
    assert compile_lookups(text, ("x",)) is not None


@pytest.mark.parametrize(
    "text", ["{{ row.n + 1 }}", "{{ 'x' }}", "{% if row %}{% endif %}", "{{{ row.n }}", "{{ true }}", "text", ""]
)
def test_anything_more_is_left_to_jinja(text: str) -> None:
    """A text read in two ways would be sent in one that nobody checked."""
    assert compile_lookups(text, ("x",)) is None


def test_a_broken_template_is_not_taken() -> None:
    """Its error has to come from where errors have places."""
    assert compile_lookups("{{ row.n }} {{ row.", ("x",)) is None
    with pytest.raises(TemplateProblem):
        compile_text("{{ row.n }} {{ row.", ("x",))
