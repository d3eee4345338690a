"""Which lines of results.jsonl are meant: by job, state and outcome, and by an expression over their fields."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from runner.errors import UsageError
from runner.plain import plain
from runner.standing import Line
from runner.states import SETTLED, Outcome, State
from runner.tables import FIELDS
from runner.values import JsonObject

EXAMPLE = "output.score > 0.5"


@dataclass(frozen=True, slots=True)
class Names:
    """The jobs, states and outcomes that are wanted; an empty one stands for all."""

    jobs: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()

    @classmethod
    def checked(
        cls, *, jobs: Collection[str], states: Collection[str], outcomes: Collection[str], known_jobs: Collection[str]
    ) -> Self:
        """
        The names that somebody typed.

        Raises:
            UsageError: one of them is none.
        """
        for word in states:
            if word in set(State) - SETTLED:
                raise UsageError(
                    f"results.jsonl has no run that is {word}: a run gets its line when it is settled",
                    fix="'runner status' counts the others, 'runner show' shows one",
                )
        _check("job", jobs, known_jobs)
        _check("state", states, [state for state in State if state in SETTLED])
        _check("outcome", outcomes, list(Outcome))
        return cls(frozenset(jobs), frozenset(states), frozenset(outcomes))

    def keep(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The *lines* that are meant."""
        for text, line in lines:
            if (
                (not self.jobs or line["job"] in self.jobs)
                and (not self.states or line["state"] in self.states)
                and (not self.outcomes or line["outcome"] in self.outcomes)
            ):
                yield text, line


def _check(noun: str, words: Collection[str], known: Collection[str]) -> None:
    for word in words:
        if word not in known:
            raise UsageError(f"unknown {noun} '{word}'", fix=_suggest(word, known))


def check_fields(paths: Sequence[str]) -> None:
    """
    Make sure that each of the dotted *paths* begins with a field that lines have; what is in it, only a line tells.

    Raises:
        UsageError: one does not.
    """
    for path in paths:
        if path.partition(".")[0] not in FIELDS:
            raise UsageError(f"unknown field '{path}' in --fields", fix=_suggest(path, FIELDS))


class Where:
    """
    An expression over the fields of a line, such as ``output.score > 0.5``.

    Raises:
        UsageError: the text is no expression, or names what is no field.
    """

    def __init__(self, text: str) -> None:
        from runner import template  # jinja2: 50 ms that nobody else needs to pay

        if text.lstrip().startswith("{{"):
            raise UsageError("--where is an expression, not a template", fix=f"write it without {{{{ }}}}: {EXAMPLE}")
        try:
            compiled = template.compile_expression(text, ("--where",), example=EXAMPLE)
        except template.TemplateProblem as problem:
            raise UsageError(f"--where: {problem.message}", fix=problem.fix) from None
        for name in sorted(compiled.names - set(FIELDS)):
            raise UsageError(f"--where: unknown name '{name}'", fix=_suggest(name, FIELDS))
        self._render = compiled.render

    def keep(self, lines: Iterable[Line]) -> Iterator[Line]:
        """
        The *lines* for which the expression is true.

        Raises:
            UsageError: it is neither true nor false for a line, or can't be told; the message names the run.
        """
        from runner.render import RenderError
        from runner.scalars import found

        for text, line in lines:
            try:
                value = self._render(line)
            except RenderError as error:
                ask = "begin with 'output is defined and'" if "output" not in line else "ask 'is defined' first"
                said = plain(error.message.removeprefix("the template fails: "))
                raise UsageError(
                    f"--where can't be told for {_run(line)}: {said}",
                    fix=f"{ask}, or leave such runs out with --state, --outcome or --job",
                ) from None
            if not isinstance(value, bool):
                raise UsageError(
                    f"--where is neither true nor false for {_run(line)}, but {plain(found(value))}",
                    fix=f"compare it with something, such as {EXAMPLE}",
                )
            if value:
                yield text, line


def _run(line: JsonObject) -> str:
    return f"run {line['index']} of job {line['job']}"


def _suggest(word: str, known: Collection[str]) -> str | None:
    from runner.wording import suggest  # knows the whole grammar, which only a mistake needs

    return suggest(word, known)
