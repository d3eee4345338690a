"""``runner schedule``: when a job file is to begin, and what makes cron, systemd or Kubernetes begin it."""

import getpass
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from runner import batch, locations, starts, variables, zones
from runner.check import JobFile, open_job_file
from runner.errors import EXIT_PASS, UsageError
from runner.schedule import moments
from runner.spec import Schedule
from runner.starts import Start
from runner.values import JsonValue, dump


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What to print: *form* is crontab, systemd, kubernetes, or None for the next times.

    *env_file* has the variables, None being NAME.env beside the job file. *mail_to* is for cron, *image* for
    Kubernetes.
    """

    form: str | None = None
    env_file: Path | None = None
    mail_to: str | None = None
    image: str | None = None
    as_json: bool = False


def schedule(
    path: Path,
    wanted: Wanted,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    profile: str | None = None,
    output_dir: Path | None = None,
    now: datetime | None = None,
    out: TextIO | None = None,
) -> int:
    """
    Print what starts the job file at *path* at its times.

    Returns:
        0.

    Raises:
        JobFileError: the file is invalid.
        UsageError: it has no `schedule`, or a path is none that the form can hold.
    """
    job_file = open_job_file(path, overrides=overrides, only=only, profile=profile)
    found = job_file.spec.schedule
    if found is None:
        raise UsageError(f"{path} has no 'schedule'", fix="add schedule: every day at 02:30")
    out, now = out or sys.stdout, now or datetime.now(UTC)
    if wanted.form is None:
        print(
            dump(zones.facts(found, now)).decode() if wanted.as_json else "\n".join(_told(found, path, now)), file=out
        )
        return EXIT_PASS
    words = [word for name in only for word in ("--job", name)]
    words += ["--profile", profile] if profile is not None else []
    words += [word for name, value in overrides.items() for word in ("--var", f"{name}={value}")]
    start = _start(job_file, found, wanted, words, only, output_dir)
    if wanted.form == "crontab":
        text = starts.crontab(start, wanted.mail_to)
    elif wanted.form == "systemd":
        text = starts.systemd(start, getpass.getuser())
    else:
        text = starts.kubernetes(start, wanted.image or _image())
    for line in _odd_days(found, now):
        print(f"# {line}", file=out)
    print(text, end="", file=out)
    return EXIT_PASS


def _told(found: Schedule, path: Path, now: datetime) -> Iterator[str]:
    yield found.sentence
    for one in zones.next_times(found, now):
        yield f"  {zones.shown(one)}"
    yield from _odd_days(found, now)
    yield f"start it with what this prints: runner schedule {shlex.quote(str(path))} --crontab, --systemd or --k8s"


def _odd_days(found: Schedule, now: datetime) -> Iterator[str]:
    """Days of the year to come on which clocks are changed over one of the times. Of each kind the first is told."""
    told: set[bool] = set()
    if found.times.shortest_s < timedelta(hours=2).total_seconds():
        return  # one time more or less in a night is nothing to plan for
    for one in moments(found.times, zones.zone(found), now):
        if one.at > now + timedelta(days=366):
            return
        if (one.skipped or one.twice) and one.skipped not in told:
            told.add(one.skipped)
            what = "jump over that time" if one.skipped else "show that time twice"
            yield f"On {one.at:%Y-%m-%d} the clocks {what}: at another one it begins surely, and once."


def _start(
    job_file: JobFile, found: Schedule, wanted: Wanted, words: Sequence[str], only: Sequence[str], given: Path | None
) -> Start:
    chosen = job_file.chosen(only)
    needed = list(dict.fromkeys(_needed(job_file, chosen)))
    env_file = (wanted.env_file or job_file.path.parent / f"{job_file.name}.env").absolute()
    root = batch.outputs_root(job_file.path, dir_in_file=job_file.outputs.dir, output_dir=given)
    deadline_s, why = starts.deadline(job_file.spec, found, chosen)
    return Start(
        name=job_file.name,
        schedule=found,
        program=_program(),
        job_file=job_file.path.absolute(),
        words=[*words, *(["--output-dir", locations.shown(root)] if given is not None else [])],
        env_file=env_file if needed or wanted.env_file is not None else None,
        variables=needed,
        batches=root / job_file.name,
        deadline_s=deadline_s,
        why=why,
    )


def _needed(job_file: JobFile, chosen: Sequence[str]) -> Iterator[str]:
    """The variables without a default that the *chosen* jobs, their endpoints and the vars refer to."""
    spec = job_file.spec
    parts: list[object] = [spec.vars]
    for name in chosen:
        job = spec.jobs[name]
        parts += [spec.endpoints[job.endpoint].model_dump(), job.webhook, job.s3_config and job.s3_config.model_dump()]
    for text in _texts(parts):
        yield from variables.unset(text, {})


def _texts(part: JsonValue | object) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _texts(inner)


def _program() -> list[str]:
    """The command that runs now, by a path that is the same tomorrow."""
    beside = Path(sys.executable).parent / "runner"
    if beside.is_file():
        return [str(beside)]
    found = shutil.which("runner")
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "runner"]


def _image() -> str:
    from importlib.metadata import version

    return f"runpod-runner:{version('runpod-runner')}"
