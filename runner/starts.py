"""
What starts a job file at its times: a crontab, units of systemd, a CronJob of Kubernetes.

Pure: texts of what is known. Each says in comments what is to be known of it, and holds no secret.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from runner.errors import UsageError
from runner.spec import JobFileSpec, Schedule

STOP_S = 60
"""From a SIGTERM to a SIGKILL: `run` follows what is in flight for 25 s, then writes its report."""

IN_IMAGE, KEPT = "/job", "/batches"
"""Where a container has the job file's folder, and its batches."""

LONGEST_LINE = 990
"""Longer commands are cut off, or refused, by one cron or another."""


@dataclass(frozen=True, slots=True)
class Start:
    """
    What is started, and when.

    *program* is the command, by its absolute path; *words* are what follows the job file. *env_file* has the values of
    *variables*; None where there are none. *deadline_s* comes of *why*. *batches* is the folder with the batches.
    """

    name: str
    schedule: Schedule
    program: Sequence[str]
    job_file: Path
    words: Sequence[str]
    env_file: Path | None
    variables: Sequence[str]
    batches: Path
    deadline_s: int
    why: str

    @property
    def unit(self) -> str:
        """The name of units and objects: nobody else's begin so."""
        return f"runner-{self.name}"

    @property
    def command(self) -> list[str]:
        """The whole command: it goes on with what was cut off, and says nothing when all is well."""
        return [*self.program, "run", str(self.job_file), *self.words, "--resume", "--quiet"]


def deadline(spec: JobFileSpec, schedule: Schedule, chosen: Sequence[str]) -> tuple[int, str]:
    """
    After how many seconds a batch is to be stopped from outside, and why then.

    What *chosen* jobs set for themselves comes first, for it settles what it stops.
    """
    limits = [spec.jobs[name].timeouts.job_s for name in chosen]
    known = [limit for limit in limits if limit is not None]
    if len(known) == len(limits):
        total = sum(known) + spec.health.wait_s + STOP_S
        return round(total), "'timeouts.job' of all jobs, 'health.wait' and a minute"
    shortest = schedule.times.shortest_s
    return round(max(shortest / 2, shortest - STOP_S)), "until the next start: not every job has a 'timeouts.job'"


# cron


def crontab(start: Start, mail_to: str | None = None) -> str:
    """
    The lines for ``crontab -e``.

    Raises:
        UsageError: a path is none that a crontab can hold.
    """
    steps = [f"cd {_quoted(start.job_file.parent)}"]
    if start.env_file is not None:
        steps += ["set -a", f". {_quoted(start.env_file)}", "set +a"]
    limit = f"timeout --preserve-status --kill-after={STOP_S} {start.deadline_s}"
    steps.append(f"exec {limit} {' '.join(map(_quoted, start.command))}")
    command = " && ".join(steps)
    if len(command) > LONGEST_LINE:
        raise UsageError(
            f"the command has {len(command)} characters, and cron takes {LONGEST_LINE}",
            fix="put it into a script, or use --systemd",
        )
    told = [
        f"{start.name}: {start.schedule.sentence}. Add these lines with `crontab -e`.",
        "",
        *_of_environment(start, "Cron knows neither your PATH nor your variables, hence the whole paths"),
        f"Stopped in order after {start.deadline_s} s ({start.why});",
        "the next start goes on with what is left. Where there is no `timeout` (macOS), leave it out.",
        "What is said is mailed: nothing while all is well, a summary when not. Exit code 5: the last one is still",
        f"running, and nothing was sent twice. The log of a batch is log.jsonl in {start.batches}/latest/.",
    ]
    mail = [
        *([] if mail_to else ["# MAILTO=you@example.com"]),
        *([f"MAILTO={_mail(mail_to)}"] if mail_to else []),
    ]
    zone = []
    if start.schedule.time_zone is not None:
        zone = [
            "# CRON_TZ is for all lines below it: let these be the last. The cron of Debian and Ubuntu does not know",
            "# it, and takes the machine's own time zone (`timedatectl`): set that, or use --systemd.",
            f"CRON_TZ={start.schedule.time_zone}",
        ]
    lines = [*_comments(told), *mail, *zone, f"{start.schedule.times.cron}  {command}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str | PurePath) -> str:
    """*text* as one word of a shell in a crontab, where a bare % ends the line."""
    quoted = shlex.quote(str(text))
    if re.search(r"[\\\x00-\x1f\x7f]", quoted):
        raise UsageError(
            f"a crontab can't hold {str(text)!r}", fix="let no path have a backslash or a control character"
        )
    return quoted.replace("%", r"\%")


def _mail(address: str) -> str:
    if not re.fullmatch(r"[^\s'\"\\]+", address):
        raise UsageError(f"{address!r} is no address for mail", fix="write --mail-to you@example.com")
    return address


def _of_environment(start: Start, why: str) -> list[str]:
    """What is to be known of the file with the variables."""
    if start.env_file is None:
        return [f"{why}. The job file needs no variable."]
    needed = ", ".join(f"{name}=…" for name in start.variables)
    return [
        f"{why},",
        f"and {start.env_file} with {needed}",
        "Only its owner may read it (chmod 600); keep it out of git.",
    ]


def _comments(told: Sequence[str]) -> Iterator[str]:
    for line in told:
        if re.search(r"[\x00-\x1f\x7f]", line):  # else a path could end the comment
            raise UsageError(f"no comment can hold {line!r}", fix="let no path have a control character")
        yield f"# {line}".rstrip()


# systemd


def systemd(start: Start, user: str) -> str:
    """
    A service and its timer, one after the other, for whom the service runs as *user*.

    Raises:
        UsageError: a path is none that a unit can hold.
    """
    zone = f" {start.schedule.time_zone}" if start.schedule.time_zone else ""
    environment = [] if start.env_file is None else [f"EnvironmentFile={_path(start.env_file)}"]
    lines = [
        *_comments(
            [
                f"{start.name}: {start.schedule.sentence}. Two files for /etc/systemd/system; then",
                f"    systemctl daemon-reload && systemctl enable --now {start.unit}.timer",
                f"Once by hand: systemctl start {start.unit}. What was said: journalctl -u {start.unit}.",
                f"The log of a batch is log.jsonl in {start.batches}/latest/.",
                "For ~/.config/systemd/user and `systemctl --user`, leave out User=, Wants= and After=; `loginctl",
                "enable-linger` lets it run while nobody is logged in.",
                "",
                *_of_environment(start, "systemd knows neither your PATH nor your variables, hence the whole paths"),
            ]
        ),
        "",
        f"# --- {start.unit}.service",
        "[Unit]",
        f"Description=runner run {_value(str(start.job_file))}",
        "Wants=network-online.target",
        "After=network-online.target",
        "# OnFailure=tell-me@%n.service",
        "",
        "[Service]",
        "Type=exec",
        f"User={user}",
        f"WorkingDirectory={_path(start.job_file.parent)}",
        *environment,
        f"ExecStart={' '.join(map(_word, start.command))}",
        f"# The deadline: {start.why}. Then it is stopped in order, and the next",
        "# start goes on with what is left. A timer starts no second one beside it; one by hand ends with exit code 5.",
        f"RuntimeMaxSec={start.deadline_s}",
        "# SIGTERM is for runner alone: it follows what is in flight for 25 s, reports, and ends what it started.",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_S}",
        "# Stopped by a shutdown, with work left for the next start: that is no failure.",
        "SuccessExitStatus=143",
        "",
        f"# --- {start.unit}.timer",
        "[Unit]",
        f"Description={_value(start.name)}: {_value(start.schedule.sentence)}",
        "",
        "[Timer]",
        f"OnCalendar={start.schedule.times.calendar}{zone}",
        "# Was the machine off at that time, it is made up for once it is on.",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def _value(text: str) -> str:
    """*text* in a unit, where % begins a specifier."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise UsageError(f"a unit of systemd can't hold {text!r}", fix="let no path have a control character")
    return text.replace("%", "%%")


def _path(path: Path) -> str:
    """*path* as the value of a setting; a backslash is part of none."""
    if "\\" in str(path) or str(path) != str(path).strip():
        raise UsageError(f"a unit of systemd can't hold {str(path)!r}", fix="rename the folder")
    return _value(str(path))


def _word(text: str) -> str:
    """*text* as one word of ``ExecStart``."""
    if re.fullmatch(r"[A-Za-z0-9_./=:,@+-]+", text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_value(quoted)}"'


# Kubernetes


def kubernetes(start: Start, image: str) -> str:
    """A CronJob and the claim for its batches; *image* has runner, and the job file's folder as /job."""
    name = re.sub(r"[^a-z0-9]+", "-", start.unit)[:52].strip("-")
    file = f"{IN_IMAGE}/{start.job_file.name}"
    command = ["runner", "run", file, *start.words, "--resume", "--quiet", "--output-dir", KEPT]
    latest = max(10, min(3600, int(start.schedule.times.shortest_s / 2)))
    told = [
        f"{start.name}: {start.schedule.sentence}. For `kubectl apply -f -`.",
        "",
        f"The image has runner, and the folder {start.job_file.parent} as {IN_IMAGE}:",
        "    FROM python:3.13-slim",
        "    COPY runner /runner",
        "    RUN pip install /runner",
        f"    COPY job {IN_IMAGE}",
        *(
            [
                f"The secret {name} has {', '.join(start.variables)}, from a file that stays out of git:",
                f"    kubectl create secret generic {name} --from-env-file={shlex.quote(str(start.env_file))}",
            ]
            if start.variables
            else []
        ),
        f"What was said: kubectl logs -l app.kubernetes.io/name={name}. The log of a batch is log.jsonl in",
        f"{KEPT}/{start.name}/latest/. Kubernetes mails nobody: watch for failed Jobs.",
    ]
    zone = start.schedule.time_zone
    placed = [f"  timeZone: {_yaml(zone)} # known from Kubernetes 1.27 on"] if zone else []
    unplaced = [] if zone else ["  # Without a timeZone it is that of the control plane, mostly UTC."]
    lines = [
        *_comments(told),
        "apiVersion: batch/v1",
        "kind: CronJob",
        "metadata:",
        f"  name: {name}",
        f"  labels: {{app.kubernetes.io/name: {name}}}",
        "spec:",
        f"  schedule: {_yaml(start.schedule.times.cron)}",
        *placed,
        *unplaced,
        "  concurrencyPolicy: Forbid # as runner's own lock, which ends a second one with exit code 5",
        f"  startingDeadlineSeconds: {latest} # later than that it is left out",
        "  successfulJobsHistoryLimit: 3",
        "  failedJobsHistoryLimit: 10",
        "  jobTemplate:",
        "    spec:",
        "      backoffLimit: 0 # what is to be tried again, and so paid for again, is said by the job file",
        f"      # The deadline: {start.why}",
        f"      activeDeadlineSeconds: {start.deadline_s}",
        "      template:",
        "        metadata:",
        f"          labels: {{app.kubernetes.io/name: {name}}}",
        "        spec:",
        "          restartPolicy: Never",
        "          # On a SIGTERM it follows what is in flight for 25 s, then reports; the next start goes on.",
        f"          terminationGracePeriodSeconds: {STOP_S}",
        "          securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000}",
        "          containers:",
        "            - name: runner",
        f"              image: {_yaml(image)}",
        f"              workingDir: {IN_IMAGE}",
        f"              command: [{', '.join(map(_yaml, command))}]",
        *_secrets(start.variables, name),
        "              volumeMounts:",
        f"                - {{name: batches, mountPath: {KEPT}}}",
        "          volumes:",
        "            - name: batches",
        f"              persistentVolumeClaim: {{claimName: {name}}}",
        "---",
        "# A block volume: on NFS there are no dependable locks, and runner refuses (exit code 2).",
        "apiVersion: v1",
        "kind: PersistentVolumeClaim",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  accessModes: [ReadWriteOnce]",
        "  resources: {requests: {storage: 10Gi}}",
    ]
    return "\n".join(lines) + "\n"


def _secrets(variables: Sequence[str], name: str) -> Iterator[str]:
    if variables:
        yield "              env:"
    for variable in variables:
        yield f"                - name: {variable}"
        yield f"                  valueFrom: {{secretKeyRef: {{name: {name}, key: {variable}}}}}"


def _yaml(text: str) -> str:
    """*text* in double quotes, as YAML and JSON both have it; $(NAME) in a command is Kubernetes' own."""
    return json.dumps(text.replace("$(", "$$("))
