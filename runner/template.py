"""
Render strict, sandboxed, type-keeping templates. Alone imports jinja2; import it late, it costs 50 ms.

jinja's sandbox keeps templates from Python's insides. It bounds neither time nor memory, so everything that can grow
or repeat is paid for from a budget: loops and slices are rewritten on the syntax tree, operators, calls and filters
are intercepted. What a request's input never needs (macros, blocks, imports) is not there at all.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from runner import files, filters, render, values
from runner.files import FileText
from runner.filters import Budget, Overspent
from runner.render import BATCH, Compiled, Render, RenderError, Scope, Use
from runner.spec import found
from runner.values import JsonValue
from runner.wording import Loc, suggest


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _words(
    "abs batch capitalize center count d default dictsort filesizeformat first format groupby indent items last length "
    "list lower map max min reject rejectattr reverse round select selectattr slice sort sum title trim truncate "
    "unique upper urlencode wordcount wordwrap"
)
_WIDTHS = {"batch", "center", "indent", "round", "slice", "wordwrap"}
_TEXT_METHODS = _words(
    "capitalize casefold center count endswith find format index isalnum isalpha isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust "
    "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
)
_METHODS: dict[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
_FILE_FILTERS = ("file_base64", "file_data_uri")
"""They get the job file's folder as an argument while a template is compiled; authors can give them none."""
_ARTIFACT_FILTERS = ("artifact_base64", "artifact_data_uri")
"""They get the batch's folder from the scope, as the name that no template can write."""
_STATEMENTS = (nodes.Output, nodes.For, nodes.If, nodes.Assign, nodes.With)
_GLOBALS = ("range", "namespace", "dict")
_LOOP = _words("cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0")


@dataclass(slots=True)
class TemplateProblem(Exception):
    """Raised when a text is no template. *pattern* finds the spot in the text, *line* counts from 1 in it."""

    message: str
    fix: str | None = None
    pattern: str | None = None


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja's sandbox, with items before attributes, a short list of methods, and a budget."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def __init__(self) -> None:
        # No optimizer: it would evaluate constants while compiling, outside any budget.
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_finalize, keep_trailing_newline=True)
        self.budget = Budget()
        self.filters = _filters(self)
        self.globals = {"range": self._range, "namespace": _namespace, "dict": _dict}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The item *attribute* of a mapping, a listed method of a text or a list, else undefined."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self._missing(obj, attribute)
        if isinstance(obj, LoopContext):
            return getattr(obj, attribute) if attribute in _LOOP else self._missing(obj, attribute)
        if isinstance(obj, Undefined | Namespace):
            return super().getattr(obj, attribute)
        if attribute not in _METHODS.get(type(obj), ()):
            return self.undefined(hint=f"{found(obj)} has no '{attribute}'")
        special: dict[str, Callable[..., str]] = {"format": self._format, "join": self._join, "replace": self._replace}
        own = special.get(attribute) if isinstance(obj, str) else None
        return functools.partial(own, obj) if own else getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The item *argument* of *obj*, never an attribute."""
        try:
            # Nothing else is a key, and hashing a tuple of tuples of tuples takes for ever.
            return obj[argument] if isinstance(argument, str | int) else self._missing(obj, argument)
        except (KeyError, IndexError, TypeError):
            return self._missing(obj, argument)

    def _missing(self, obj: Any, name: object) -> Any:
        if isinstance(obj, dict):
            shown = name if isinstance(name, str) else found(name)
            return self.undefined(hint=f"there is no '{shown}' here; {suggest(shown, obj) or 'there are no keys'}")
        return self.undefined(hint=f"{found(obj)} has no {found(name)}")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a listed method or global, within the budget."""
        self = __self
        for value in (*args, *kwargs.values()):
            self.budget.weigh(value)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | list | tuple):
            self.budget.weigh(owner)
            filters.width(*args)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Do ``left operator right`` once it is paid for."""
        filters.operate(self.budget, operator, left, right)
        return super().call_binop(context, operator, left, right)

    def _range(self, *numbers: int) -> list[int]:
        span = range(*numbers)
        self.budget.spend(len(span))
        return list(span)

    def _format(self, text: str, *args: Any, **kwargs: Any) -> str:
        filters.form(text)
        return SandboxedFormatter(self).vformat(text, args, kwargs)

    def _join(self, text: str, items: Any) -> str:
        return filters.joined(self.budget, items, text)

    def _replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        return filters.replaced(self.budget, text, old, new, count)


@pass_context
def _finalize(context: Any, value: Any) -> str:
    """What ``{{ value }}`` puts into a text. Passing the context keeps jinja from doing it while compiling."""
    text = filters.as_text(value)
    context.environment.budget.text(len(text))
    return text


@pass_context
def _artifact_base64(context: Any, name: object) -> FileText:
    return files.artifact_base64(name, _batch(context))


@pass_context
def _artifact_data_uri(context: Any, name: object) -> FileText:
    return files.artifact_data_uri(name, _batch(context))


def _batch(context: Any) -> str:
    folder: str | None = context.get(BATCH)
    if folder is None:  # by way of `map`, which names a filter in a text
        raise ValueError("artifacts are read by a job whose rows come from a job, in its 'input'")
    return folder


def _filters(env: _Sandbox) -> dict[str, Callable[..., Any]]:
    """Every filter there is, each paid for."""
    budget = env.budget
    known: dict[str, Callable[..., Any]] = {name: _paid(budget, name, env.filters[name]) for name in _FILTERS}
    own: dict[str, Callable[..., Any]] = {
        "int": filters.to_int,
        "float": filters.to_float,
        "bool": filters.to_bool,
        "json": filters.from_json,
        "string": filters.as_text,
        "file_base64": files.file_base64,
        "file_data_uri": files.file_data_uri,
        "artifact_base64": _artifact_base64,
        "artifact_data_uri": _artifact_data_uri,
        "tojson": lambda value: values.dump(plain(value, budget)).decode("utf-8", "surrogatepass"),
        "join": lambda items, between="": filters.joined(budget, items, between),
        "replace": lambda text, old, new, count=-1: filters.replaced(budget, filters.as_text(text), old, new, count),
    }
    hidden: dict[str, Callable[..., Any]] = {"_steps": budget.each, "_weigh": budget.weigh, "_key": _key}
    return known | {name: _paid(budget, name, function) for name, function in own.items()} | hidden


def _paid(budget: Budget, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """*function* with its subject, arguments and result paid for."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        if isinstance(args[first], Undefined) and name not in ("default", "d"):
            str(args[first])  # raises, with its own words: jinja's filters take it for an empty text
        for value in (*args[first:], *kwargs.values()):
            budget.weigh(value)
        if name in _WIDTHS:
            filters.width(*args[first + 1 :], *kwargs.values())
        if name == "format":
            filters.form(args[first])
        if name == "sum" and not isinstance(kwargs.get("start", 0), int | float):
            raise TypeError("'sum' adds up numbers")  # lists would be copied again and again
        result = function(*args, **kwargs)
        return _counted(budget, result) if isinstance(result, Iterator) else budget.weigh(result)

    return paid


def _counted(budget: Budget, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        yield budget.weigh(item)


def _dict(**items: Any) -> dict[str, Any]:
    return items


def _namespace(**items: Any) -> Namespace:
    return Namespace(**items)


def _key(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a key must be text, found {found(value)}")
    return value


def plain(value: Any, budget: Budget) -> JsonValue:
    """
    *value* as plain JSON that shares nothing with anything.

    Raises:
        ValueError: a part of it has no JSON form.
    """
    if isinstance(value, str):
        budget.text(len(value))
        return value if type(value) is FileText else str(value)
    if value is None or isinstance(value, bool | int):
        filters.whole(value)
        return value
    budget.spend(1)
    if isinstance(value, float):
        if value - value != 0:
            raise ValueError(f"JSON has no number '{value}'")
        return value
    if isinstance(value, list | tuple):
        return [plain(item, budget) for item in value]
    if isinstance(value, dict):
        return {_key(key): plain(item, budget) for key, item in value.items()}
    if isinstance(value, Undefined):
        return str(value)  # raises, with its own words
    if isinstance(value, Iterator):
        raise ValueError("a filter's lazy result is no value: write | list")
    raise ValueError(f"{type(value).__name__} is not a value that JSON has")


@functools.cache
def _sandbox() -> _Sandbox:
    """The one environment of this process: templates are compiled and rendered one at a time."""
    return _Sandbox()


def compile_text(text: str, loc: Loc, *, folder: Path | None = None, of_job: bool = False) -> Compiled:
    """
    Compile the template *text*, which stands at *loc*.

    Args:
        folder: Where it may read files from; None: nowhere.
        of_job: Whether it sees another job's runs, whose artifacts it may read: its scope has `BATCH`.

    Raises:
        TemplateProblem: it is no template, or asks for what a job file has not.
    """
    with _deep():
        tree = _parse(text)
        _give_folder(tree, folder, of_job=of_job)
        lone = _lone(tree)
        names, uses = _names(tree)
        program = _compile(_expression(lone) if lone is not None else _rewrite(tree))
        slow = _value(program, loc) if lone is not None else _text(program, loc)
        return Compiled(_shortcut(tree, lone, slow), names, uses)


def compile_expression(text: str, loc: Loc, *, example: str = "row.lang == 'en'") -> Compiled:
    """
    Compile the expression *text*, such as *example*; its value keeps its type.

    Raises:
        TemplateProblem: it is no expression.
    """
    # On a line of its own: a comment in the expression must not eat the braces.
    with _deep():
        try:
            tree = _parse("{{ " + text + "\n}}")
        except TemplateProblem as problem:
            if problem.fix != _SYNTAX_FIX:
                raise
            message = problem.message.replace("not a template", "not an expression").replace("'}}'", "the end")
            raise TemplateProblem(message, f"write one such as {example}") from None
        lone = _lone(tree)
        if lone is None:
            raise TemplateProblem("expected one expression", f"write it without {{{{ }}}}, such as {example}")
        _give_folder(tree, None)
        names, uses = _names(tree)
        return Compiled(_value(_compile(_expression(lone)), loc), names, uses)


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """jinja, and Python behind it, recurse as deep as an expression nests."""
    try:
        yield
    except (RecursionError, MemoryError, SyntaxError):
        raise TemplateProblem("this template is too large or nested too deeply") from None


def _parse(text: str) -> nodes.Template:
    try:
        tree = _sandbox().parse(text)
    except TemplateSyntaxError as error:
        raise _syntax(error) from None
    except ValueError:  # Python reads at most 4300 digits
        raise TemplateProblem("a number in this template is too long") from None
    if any(isinstance(const.value, float) and const.value - const.value != 0 for const in tree.find_all(nodes.Const)):
        raise TemplateProblem("a number in this template is too large")
    for node in tree.find_all(nodes.Stmt):
        if not isinstance(node, _STATEMENTS) or (isinstance(node, nodes.For) and node.recursive):
            word = type(node).__name__.lower()
            message = f"'{{% {word} %}}' is not available in a job file"
            raise TemplateProblem(
                message, "there are if, for, set and with", r"\{%-?\s*(?!if|for|set|with|else|elif|end)"
            )
    for filtered in tree.find_all(nodes.Filter):
        _known_filter(filtered.name)
    for test in tree.find_all(nodes.Test):
        if test.name not in _sandbox().tests:
            raise TemplateProblem(
                f"unknown test '{test.name}'", suggest(test.name, _sandbox().tests), rf"\b{test.name}\b"
            )
    return tree


def _give_folder(tree: nodes.Template, folder: Path | None, *, of_job: bool = False) -> None:
    """Let the filters that read files know where they may."""
    for filtered in tree.find_all(nodes.Filter):
        if filtered.name not in (*_FILE_FILTERS, *_ARTIFACT_FILTERS):
            continue
        if filtered.name in _ARTIFACT_FILTERS and not of_job:
            message = f"'{filtered.name}' is for the 'input' of a job whose rows come from a job"
            raise TemplateProblem(message, "write rows: {job: …}", rf"\b{filtered.name}\b")
        if folder is None:
            message, fix = f"'{filtered.name}' is for 'input' only", "it puts a local file into a request"
            raise TemplateProblem(message, fix, rf"\b{filtered.name}\b")
        if filtered.args or filtered.kwargs or filtered.dyn_args or filtered.dyn_kwargs:
            message = f"the filter '{filtered.name}' takes no argument"
            what = "row.artifacts[0]" if filtered.name in _ARTIFACT_FILTERS else "row.path"
            raise TemplateProblem(message, f"write {{{{ {what} | {filtered.name} }}}}", rf"\b{filtered.name}\b")
        if filtered.name in _FILE_FILTERS:
            filtered.args = [nodes.Const(str(folder))]


def _known_filter(name: str) -> None:
    known = [known for known in _sandbox().filters if not known.startswith("_")]
    if name not in known:
        raise TemplateProblem(f"unknown filter '{name}'", suggest(name, sorted(known)), rf"\|\s*({name})\b")


_UNCLOSED = re.compile(r"innermost block that needs to be closed is '(\w+)'")


def _syntax(error: TemplateSyntaxError) -> TemplateProblem:
    """jinja's complaint, in our words where a slip is common."""
    message = (error.message or "it is not complete").rstrip(".")
    unclosed = _UNCLOSED.search(message)
    if unclosed:
        word = unclosed[1]
        return TemplateProblem(f"'{{% {word} %}}' is never closed", f"write {{% end{word} %}}", rf"\{{%-?\s*{word}\b")
    if message.startswith("unexpected end of template, expected 'end of print"):
        return TemplateProblem("'{{' is never closed", "write }} after the expression", r"\{\{")
    for words, sign in (("'end of print statement'", "'}}'"), ("'end of statement block'", "'%}'")):
        message = message.replace(words, sign)
    message = message[:1].lower() + message[1:]
    return TemplateProblem(f"not a template: {message}", _SYNTAX_FIX, r"\{[{%]")


_SYNTAX_FIX = "write {{ x }} for a value, {% if x %} … {% endif %} for a condition"


def _lone(tree: nodes.Template) -> nodes.Expr | None:
    """The expression of a template that is one expression and nothing else."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _names(tree: nodes.Template) -> tuple[frozenset[str], tuple[Use, ...]]:
    """Names that *tree* expects from outside, and the keys that it reads of them."""
    try:
        names = frozenset(meta.find_undeclared_variables(tree)) - set(_GLOBALS)
    except TemplateError as error:
        raise TemplateProblem(f"not a template: {error}") from None
    if any(name.name == "self" for name in tree.find_all(nodes.Name)):
        names |= {"self"}  # jinja has one of its own, for blocks
    return names, tuple(_uses(tree, guarded=False))


def _uses(node: nodes.Node, *, guarded: bool) -> Iterator[Use]:
    """Every ``root.key`` and ``root['key']`` below *node*."""
    if isinstance(node, nodes.Test) and node.name in ("defined", "undefined"):
        guarded = True
    if isinstance(node, nodes.Filter) and node.name in ("default", "d"):
        guarded = True
    if isinstance(node, nodes.Getattr | nodes.Getitem) and isinstance(node.node, nodes.Name):
        key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        yield Use(node.node.name, key if isinstance(key, str) else None, guarded)
    for child in node.iter_child_nodes():
        yield from _uses(child, guarded=guarded)


def _expression(expression: nodes.Expr) -> nodes.Template:
    """A template whose only effect is the variable ``result``, as jinja's own compile_expression does it."""
    assign = nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)
    return _rewrite(nodes.Template([assign], lineno=1))


def _rewrite(tree: nodes.Template) -> nodes.Template:
    """*tree* with a hidden filter wherever something can repeat, grow or compare without a call."""
    for loop in list(tree.find_all(nodes.For)):
        # A step costs what its body holds, or a thousand statements would count as one.
        cost = 1 + sum(1 for statement in loop.body for _ in statement.find_all(nodes.Node)) // 8
        loop.iter = _filter(loop.iter, "_steps", nodes.Const(cost))
    for item in list(tree.find_all(nodes.Getitem)):
        if isinstance(item.arg, nodes.Slice):
            item.node = _filter(item.node, "_weigh")
    for compare in list(tree.find_all(nodes.Compare)):
        compare.expr = _filter(compare.expr, "_weigh")
        for operand in compare.ops:
            operand.expr = _filter(operand.expr, "_weigh")
    for pair in list(tree.find_all(nodes.Pair)):
        pair.key = _filter(pair.key, "_key")
    for concat in list(tree.find_all(nodes.Concat)):
        # `~` can't be intercepted: every part of it is made text, and paid for, first.
        concat.nodes = [_filter(part, "string") for part in concat.nodes]
    tree.set_environment(_sandbox())
    tree.set_lineno(1)
    return tree


def _filter(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


Program = Any
"""A compiled jinja template."""


def _compile(tree: nodes.Template) -> Program:
    env = _sandbox()
    try:
        code = env.compile(tree)
        return env.template_class.from_code(env, code, {})
    except (TemplateError, ValueError) as error:
        raise TemplateProblem(f"not a template: {error}") from None


def _context(program: Program, scope: Scope) -> Any:
    env = _sandbox()
    env.budget.renew()
    return env.context_class(env, env.globals | scope, None, {})


def _value(program: Program, loc: Loc) -> Render:
    """What renders a lone expression to the value it has."""

    def render(scope: Scope) -> JsonValue:
        with _named(loc):
            context = _context(program, scope)
            for _ in program.root_render_func(context):
                pass
            return plain(context.vars["result"], _sandbox().budget)

    return render


def _text(program: Program, loc: Loc) -> Render:
    """What renders anything else to a text."""

    def render(scope: Scope) -> JsonValue:
        with _named(loc):
            budget = (context := _context(program, scope)).environment.budget
            parts = []
            for part in program.root_render_func(context):
                budget.text(len(part))
                parts.append(part)
            return "".join(parts)

    return render


class _named:
    """Turns whatever a template raises into a RenderError at its place."""

    def __init__(self, loc: Loc) -> None:
        self._loc = loc

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TemplateError | Overspent | ValueError):
            raise RenderError(self._loc, str(error)) from None
        if isinstance(error, RecursionError | MemoryError):
            raise RenderError(self._loc, "the template nests or grows too far") from None
        if isinstance(error, Exception):
            raise RenderError(self._loc, f"the template fails: {error}") from None


def _shortcut(tree: nodes.Template, lone: nodes.Expr | None, slow: Render) -> Render:
    """*slow*, or what does the same without jinja where the template only looks things up."""
    if lone is not None:
        path = _path(lone)
        return render.quick_value(path, slow) if path else slow
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return slow
    parts: list[str | tuple[str, ...]] = []
    for node in tree.body[0].nodes:
        path = _path(node)
        if path is not None:
            parts.append(path)
        elif isinstance(node, nodes.TemplateData):
            parts.append(node.data)
        else:
            return slow
    return render.quick_text(parts, slow)


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    """The path of a plain lookup such as ``row.prompt`` or ``vars['style']``."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
    before = _path(node.node)
    return (*before, key) if before and isinstance(key, str) else None
