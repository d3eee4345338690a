"""Know a template that only looks things up by its text alone: most are no more, and jinja takes 50 ms to import."""

import re

from runner import render
from runner.render import Compiled, Render, Scope, Use
from runner.wording import Loc

_ROOTS = ("row", "matrix", "vars", "repeat", "run", "output", "item", "item_index", "ext")
_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_LOOKUP = re.compile(rf"\{{\{{ *((?:{'|'.join(_ROOTS)})(?:\.{_NAME})*) *\}}\}}")


def compile_lookups(text: str, loc: Loc, *, shared: bool = False) -> Compiled | None:
    """
    What `runner.template.compile_text` makes of *text*, without jinja; None when *text* may be more than lookups.

    Wherever jinja would read *text* in another way, it is not taken: a brace before the braces, a control character,
    and whatever is left of jinja's marks between the lookups. *shared*: a lone lookup hands on what it finds, where
    jinja would copy it within a budget; for outputs of megabytes that nobody changes.
    """
    pieces = _LOOKUP.split(text)
    texts, paths = pieces[::2], [tuple(path.split(".")) for path in pieces[1::2]]
    if not paths or "\r" in text or any(render.is_template(one) or one.endswith("{") for one in texts):
        return None
    parts: list[str | tuple[str, ...]] = [texts[0]]
    for path, after in zip(paths, texts[1:], strict=True):
        parts += [path, after]
    parts = [part for part in parts if part]
    slow = _with_jinja(text, loc)
    lone = len(parts) == 1
    quick = render.quick_value(paths[0], slow, shared=shared) if lone else render.quick_text(parts, slow)
    uses = tuple(Use(path[0], path[1], guarded=False) for path in paths if len(path) > 1)
    return Compiled(quick, frozenset(path[0] for path in paths), uses)


def _with_jinja(text: str, loc: Loc) -> Render:
    """Renders *text* by jinja, compiled when it is first needed: for values that the short way does not take."""
    compiled: list[Render] = []

    def slow(scope: Scope) -> object:
        if not compiled:
            from runner import template

            compiled.append(template.compile_text(text, loc).render)
        return compiled[0](scope)

    return slow
