"""Strict, sandboxed, type-keeping templates."""

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.render import RenderError, build
from runner.template import TemplateProblem, compile_expression, compile_text

LOC = ("input", "x")
SCOPE: dict[str, Any] = {
    "row": {
        "prompt": "a horse",
        "items": "I",
        "values": "V",
        "keys": "K",
        "get": "G",
        "n": "007",
        "exp": "1e5",
        "list": "[1]",
        "null": "null",
        "nothing": None,
        "meta": {"a": [1, 2], "update": 3},
        "f": 1.5,
        "yes": True,
    },
    "matrix": {"seed": 3},
    "vars": {"style": "ink", "words": ["a", "b"]},
    "repeat": 0,
}


def rendered(text: str) -> object:
    """What *text* renders to with the values above."""
    return compile_text(text, LOC).render(SCOPE)


def failure(text: str) -> str:
    """The message of a template that can't be rendered."""
    with pytest.raises(RenderError) as raised:
        rendered(text)
    assert raised.value.loc == LOC
    return raised.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ matrix.seed }}", 3),
        ("{{ row.n }}", "007"),
        ("{{ row.exp }}", "1e5"),
        ("{{ row.list }}", "[1]"),
        ("{{ row.null }}", "null"),
        ("{{ row.nothing }}", None),
        ("{{ row.yes }}", True),
        ("{{ row.f }}", 1.5),
        ("{{ row.meta }}", {"a": [1, 2], "update": 3}),
        ("{{ row['prompt'] }}", "a horse"),
        ("{{ row.meta.a[1] }}", 2),
        ("{{ (1, (2, 3)) }}", [1, [2, 3]]),
        ("{{ {'a': [none]} }}", {"a": [None]}),
        ("{{ 1 if matrix.seed > 2 else 'no' }}", 1),
        ("{{- matrix.seed -}}", 3),
        ("{# a note #}{{ matrix.seed }}", 3),
        ("{{ row.n | int }}", 7),
        ("{{ row.exp | float }}", 100_000.0),
        ("{{ row.list | json }}", [1]),
        ("{{ 'True' | bool }}", True),
        ("{{ 2.0 | int }}", 2),
        ("{{ row.none_such | default('d') }}", "d"),
        ("{{ row.none_such is defined }}", False),
        ("{{ vars.words | map('upper') | list }}", ["A", "B"]),
        ("{{ row.meta | items | list }}", [["a", [1, 2]], ["update", 3]]),
    ],
)
def test_a_lone_expression_keeps_its_type(text: str, value: object) -> None:
    """A seed should arrive as a number, and the CSV text 007 as text."""
    found = rendered(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ matrix.seed }}{{ matrix.seed }}", "33"),
        (" {{ matrix.seed }}", " 3"),
        ("{{ matrix.seed }}\n", "3\n"),
        ("{{ row.prompt }}, {{ vars.style }}", "a horse, ink"),
        ("100% {{ vars.style }} %s", "100% ink %s"),
        ("{% for w in vars.words %}{{ loop.index }}{{ w }} {% endfor %}", "1a 2b "),
        ("{% set ns = namespace(n=0) %}{% for w in vars.words %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{{ row.f }} {{ row.yes }}", "1.5 True"),
        ("{{ '%05d' % 7 }}{{ '{:>3}'.format(1) }}", "00007  1"),
        ("{{ row.prompt.upper() }} {{ row.prompt | replace('a', 'b') }}", "A HORSE b horse"),
        ("{{ vars.words | join('-') }} {{ vars.words | tojson }}", 'a-b ["a","b"]'),
        ("<{{ '<b>' }}>", "<<b>>"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ],
)
def test_anything_else_is_text(text: str, value: str) -> None:
    """Whether a template is lone is decided on its syntax tree: `{{ a }}{{ b }}` has braces at both ends too."""
    assert rendered(text) == value


@pytest.mark.parametrize("name", ["items", "values", "keys", "get"])
def test_a_column_may_have_the_name_of_a_method(name: str) -> None:
    """A CSV with a column `items` is nothing odd."""
    assert rendered(f"{{{{ row.{name} }}}}") == name[0].upper()
    assert rendered(f"{{{{ row.{name} }}}}!") == name[0].upper() + "!"


def test_a_method_is_never_reached_where_there_is_no_such_column() -> None:
    """It would put `<built-in method pop>` into a prompt that is paid for."""
    assert failure("{{ vars.items }}") == "there is no 'items' here; known: 'style', 'words'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ row.promt }}", "there is no 'promt' here; did you mean 'prompt'?"),
        ("a {{ row.promt }}", "there is no 'promt' here; did you mean 'prompt'?"),
        ("{{ [row.promt] }}", "there is no 'promt' here; did you mean 'prompt'?"),
        ("{{ {'a': row.promt} }}", "there is no 'promt' here; did you mean 'prompt'?"),
        ("{{ row.prompt | int }}", "'a horse' is not a whole number"),
        ("{{ '1.5' | int }}", "'1.5' is not a whole number"),
        ("{{ '1_000' | int }}", "'1_000' is not a whole number"),
        ("{{ true | int }}", "true is not a whole number"),
        ("{{ row.nothing | int }}", "null is not a whole number"),
        ("{{ 'abc' | int(0) }}", "the filter 'int' takes no default: write default(…) before it"),
        ("{{ 'nan' | float }}", "'nan' is not a number"),
        ("{{ '1e999' | float }}", "'1e999' is not a number"),
        ("{{ 'yes' | bool }}", "'yes' is not true, false, 1 or 0"),
        ("{{ '{' | json }}", "'{' is not JSON"),
        ("{{ 'NaN' | json }}", "JSON has no number 'nan'"),
        ("{{ 1e308 * 10 }}", "JSON has no number 'inf'"),
        ("{{ ('9' * 4299) | int * 99 }}", "this product is too large"),
        ("{{ ('9' * 4299) | int + 1 }}", "a number is too large"),
        ("{{ [1e308 * 10] }}", "JSON has no number 'inf'"),
        ("{{ vars.words | map('upper') }}", "a filter's lazy result is no value: write | list"),
        ("{{ [vars.words | map('upper')] }}", "a filter's lazy result is no value: write | list"),
        ("{{ range }}", "method is not a value that JSON has"),
        ("{{ {1: 2} }}", "the template fails: a key must be text, found 1"),
        ("a {{ row.nothing }}", "null inside a text: write a default, such as {{ row.x or '' }}"),
        ("a {{ vars.words }}", "a list inside a text: write | tojson or | join(', ')"),
        ("{{ 1 / 0 }}", "the template fails: division by zero"),
        ("{{ row.prompt.__class__ }}", "'a horse' has no '__class__'"),
        ("{{ vars.words.append(1) }}", "a list has no 'append'"),
        ("{{ row.prompt.format_map(row) }}", "'a horse' has no 'format_map'"),
        ("{{ 5 .to_bytes(10) }}", "5 has no 'to_bytes'"),
    ],
)
def test_what_has_no_exact_value_is_refused(text: str, message: str) -> None:
    """A guess would be sent, run and paid for."""
    assert failure(text) == message


STEPS = "the template does too much: a render may take 200000 steps"
NESTED = "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 'a' * 3*10**8 }}", STEPS),
        ("{{ 300000000 * 'a' }}", STEPS),
        ("{{ ['a'] * 10**9 }}", STEPS),
        ("{{ range(10**9) | list }}", STEPS),
        ("{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}", STEPS),
        ("{% for i in range(9000) %}{% for j in range(9000) %}{% set x = 1 %}{% endfor %}{% endfor %}", STEPS),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}", STEPS),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a + a %}" * 40 + "{{ a }}", STEPS),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a.join([a, a, a]) %}" * 20 + "{{ a }}", STEPS),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a.replace('x', 'xxxxxxxx') %}" * 20 + "{{ a }}", STEPS),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a | replace('', 'xxxxxxxx') %}" * 20 + "{{ a }}", STEPS),
        (NESTED + "{{ a == a }}", STEPS),
        (NESTED + "{{ a | tojson }}", STEPS),
        (NESTED + "{{ a in [a] }}", STEPS),
        (NESTED + "{{ [a, a] | sort }}", STEPS),
        (NESTED + "{{ a[0:1] | length }}", STEPS),
        ("{% set b = range(60000) %}{% for i in range(60000) %}{{ i in b }}{% endfor %}", STEPS),
        ("{{ 9**9**9**9**9**9**9 }}", "this power is too large"),
        ("{{ 2 ** 100000 }}", "this power is too large"),
        ("{{ 2 ** 6900 * 2 ** 6900 * 2 ** 6900 }}", "this product is too large"),
        ("{{ '%999999999d' % 1 }}", "a width in a format has at most 4 digits: '%999999999d'"),
        ("{{ '%*d' % (999999999, 1) }}", "a width in a format has at most 4 digits: '%*d'"),
        ("{{ '%999999999d' | format(1) }}", "a width in a format has at most 4 digits: '%999999999d'"),
        ("{{ '{:>999999999}'.format('a') }}", "a width in a format has at most 4 digits: '{:>999999999}'"),
        ("{{ '{:{}}'.format('a', 999999999) }}", "a width in a format has at most 4 digits: '{:{}}'"),
        ("{{ 'a' | center(999999999) }}", "999999999 is too large here: at most 10000"),
        ("{{ 'a' | indent(999999999) }}", "999999999 is too large here: at most 10000"),
        ("{{ 'a' | center(width=999999999) }}", "999999999 is too large here: at most 10000"),
        ("{{ 'a'.ljust(999999999) }}", "999999999 is too large here: at most 10000"),
        ("{{ 'a'.zfill(999999999) }}", "999999999 is too large here: at most 10000"),
        ("{{ [1] | batch(999999999, 0) | list }}", "999999999 is too large here: at most 10000"),
        ("{{ [1] | slice(999999999) | list }}", "999999999 is too large here: at most 10000"),
    ],
)
def test_a_greedy_template_ends_in_one_clear_error(text: str, message: str) -> None:
    """A million rows must not meet a template that eats the machine; steps are counted, so it is the same on each."""
    began = time.process_time()
    assert failure(text) == message
    assert time.process_time() - began < 10


@pytest.mark.parametrize("part", ["a ~ a", "a + a", "a * 8", "a.join([a, a])", "a | replace('x', 'xxxxxxxx')"])
def test_a_greedy_template_takes_little_memory_before_it_ends(part: str) -> None:
    """The steps are paid for before a text is made."""
    tracemalloc.start()
    failure("{% set a = 'xxxxxxxx' %}" + f"{{% set a = {part} %}}" * 40 + "{{ a }}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600 * 2**20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ row.x ", "'{{' is never closed"),
        ("{% if true %}x", "'{% if %}' is never closed"),
        ("{{ a b }}", "not a template: expected token '}}', got 'b'"),
        ("{% macro m() %}{% endmacro %}", "'{% macro %}' is not available in a job file"),
        ("{% include 'x' %}", "'{% include %}' is not available in a job file"),
        ("{{ 'a' | random }}", "unknown filter 'random'"),
        ("{{ 'a' | attr('upper') }}", "unknown filter 'attr'"),
        ("{{ 'a' is odde }}", "unknown test 'odde'"),
        ("{{ 'a' | file_base64 }}", "'file_base64' is for 'input' only"),
        ("{{ 1e999 }}", "a number in this template is too large"),
        ("{{ " + "9" * 5000 + " }}", "a number in this template is too long"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "this template is too large or nested too deeply"),
        ("{{ " + "-" * 9000 + "1 }}", "this template is too large or nested too deeply"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_template_is_known_before_anything_is_sent(text: str, message: str) -> None:
    """validate finds it, not the first run of the night."""
    with pytest.raises(TemplateProblem) as raised:
        compile_text(text, LOC)
    assert raised.value.message == message


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "now", "random", "env", "self", "request"])
def test_nothing_but_the_row_and_its_friends_exists(name: str) -> None:
    """A request is a function of the file and its rows, or a resume would send something else."""
    assert compile_text(f"{{{{ {name} }}}}", LOC).names == {name}


def test_names_and_keys_are_known_without_rendering() -> None:
    """A template in a branch that the first row doesn't take is checked too."""
    compiled = compile_text("{% if row.a %}{{ vars['b'] }}{% endif %}{{ row.c | default(1) }}", LOC)
    assert compiled.names == {"row", "vars"}
    assert {(use.root, use.key, use.guarded) for use in compiled.uses} == {
        ("row", "a", False),
        ("vars", "b", False),
        ("row", "c", True),
    }


@pytest.mark.parametrize(
    ("text", "value"), [("row.prompt == 'a horse'", True), ("matrix.seed in [1, 2]", False), ("row.n | int", 7)]
)
def test_an_expression_has_its_own_type(text: str, value: object) -> None:
    """`where` must tell true from the text 'true'."""
    assert compile_expression(text, LOC).render(SCOPE) == value


@pytest.mark.parametrize("text", ["row.a ==", "", "row.a }} {{ row.b", "{{ row.a }}", "1 %}"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    """Braces around it are the common slip."""
    with pytest.raises(TemplateProblem):
        compile_expression(text, LOC)


def test_a_render_leaves_nothing_behind_for_the_next() -> None:
    """The budget is of one render, and its variables too."""
    compiled = compile_text("{% set x = range(50000) %}{{ x | length }}", LOC)
    assert [compiled.render(SCOPE) for _ in range(9)] == ["50000"] * 9


def test_rendered_values_share_nothing_with_vars_or_rows() -> None:
    """Whoever changes one run's input must not change another's."""
    render = build({"w": "{{ vars.words }}", "fixed": [{"a": 1}]}, (), lambda text, loc: compile_text(text, loc).render)
    first, second = render(SCOPE), render(SCOPE)
    first["w"].append("c")
    first["fixed"][0]["a"] = 2
    assert second == {"w": ["a", "b"], "fixed": [{"a": 1}]}
    assert SCOPE["vars"]["words"] == ["a", "b"]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.text(max_size=30), st.integers(), st.text(alphabet="{}%# ax", max_size=12))
def test_shortcuts_render_what_jinja_renders(text: str, number: int, between: str) -> None:
    """Plain lookups skip jinja for speed, and must not differ."""
    if any(sign in between for sign in ("{{", "{%", "{#", "}}", "%}", "#}")) or between.endswith("{"):
        return
    scope = SCOPE | {"row": {"t": text, "n": number}}
    quick = compile_text(f"{{{{ row.t }}}}{between}{{{{ row.n }}}}", LOC).render(scope)
    slow = compile_text(f"{{{{ row.t | string }}}}{between}{{{{ row.n | string }}}}", LOC).render(scope)
    assert quick == slow == f"{text}{between}{number}"
