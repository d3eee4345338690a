"""Check a job file as it is, and under each of its profiles: a mistake in one is found before the day it is needed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runner.check import JobFile, check
from runner.errors import JobFileError, Problem, told_once
from runner.layers import profiles
from runner.load import Loaded, load
from runner.plan import Plan, make_plan
from runner.spec import Schedule


@dataclass(frozen=True, slots=True)
class Checked:
    """
    What came of a job file and its data.

    *problems* are of all *profiles*, in file order, with the warnings. *plan* is that of the chosen one, or of none;
    None when something is wrong with it; so is *schedule*, and where there is none. *beta* are the jobs that are run by
    what may change under them.
    """

    problems: tuple[Problem, ...]
    plan: Plan | None
    profiles: tuple[str, ...]
    schedule: Schedule | None = None
    beta: tuple[str, ...] = ()


def check_all(
    path: Path,
    *,
    overrides: Mapping[str, str],
    profile: str | None = None,
    env: Mapping[str, str] | None = None,
    env_required: bool = False,
) -> Checked:
    """
    Check the job file at *path* and its data as it is and under all of its profiles, each problem once.

    Unset variables are told for *profile* only, None being none.

    Raises:
        JobFileError: it can't be read as YAML at all.
        UsageError: *overrides* or *profile* name what the file has not.
    """
    loaded = load(path, profile=profile)
    names = profiles(loaded.document.value)
    chosen = _Variant.of(loaded, overrides, env, env_required)
    problems = chosen.problems
    for name in (None, *names):
        if name != profile:
            other = _Variant.of(loaded.under(name), overrides, env, None, like=chosen)
            known = set(problems)
            problems += [_named(one, name) for one in other.problems if one not in known]
    told = sorted(told_once(problems), key=lambda problem: (problem.file, problem.line, problem.column))
    schedule = chosen.job_file.spec.schedule if chosen.job_file is not None else None
    jobs = chosen.job_file.jobs if chosen.job_file is not None else {}
    beta = tuple(name for name, job in jobs.items() if job.mode == "batch")
    return Checked(tuple(told), chosen.plan, tuple(names), schedule, beta)


@dataclass(frozen=True, slots=True)
class _Variant:
    """The file under one profile."""

    problems: list[Problem]
    job_file: JobFile | None = None
    plan: Plan | None = None

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        overrides: Mapping[str, str],
        env: Mapping[str, str] | None,
        env_required: bool | None,
        *,
        like: "_Variant | None" = None,
    ) -> "_Variant":
        """What comes of *loaded*; the data are read again only where the runs are other than of *like*."""
        try:
            job_file = check(loaded, overrides=overrides, env=env, env_required=env_required)
            is_like = like is not None and like.plan is not None and _makes_the_same(like.job_file, job_file)
            plan = like.plan if is_like and like is not None else make_plan(job_file)
        except JobFileError as error:
            return cls(list(error.problems))
        return cls([*job_file.warnings, *(plan.notes if plan is not None else ())], job_file, plan)


def _makes_the_same(one: JobFile | None, other: JobFile) -> bool:
    """Whether the runs of both are made of the same."""
    return one is not None and (one.jobs, one.vars) == (other.jobs, other.vars)


def _named(problem: Problem, profile: str | None) -> Problem:
    """*problem* with the *profile* that brings it about, where its place doesn't say so."""
    if problem.via is not None and problem.via.profile == profile:
        return problem
    how = "without a profile" if profile is None else f"with profile '{profile}'"
    return replace(problem, message=f"{problem.message} ({how})")
