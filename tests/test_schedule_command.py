"""What `runner schedule` prints, held against those who read it: a shell as cron starts it, systemd, YAML."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage import RUNS, Stage
from stage import said as said_by
from terminal import Ran, finish, runner, write

from runner import starts
from runner.errors import UsageError
from runner.spec import JobFileSpec, Schedule
from runner.starts import Start

REMOTE = """\
version: 1
name: nightly
SCHEDULE
vars: {model: "${MODEL:-small}", folder: "${PHOTOS}"}
endpoints:
  gpu: {id: "${NIGHTLY_ENDPOINT_ID}"}
  other: {id: "${NOBODY_NEEDS_IT}"}
jobs:
  first: {endpoint: gpu, input: {x: 1}, webhook: "${HOOK_URL}"}
  second: {endpoint: gpu, input: {x: 2}}
health: {wait: 5m}
"""
AT_NIGHT = "schedule: {every: day at 02:30, time_zone: Europe/Berlin}"


def said(folder: Path, *words: str | Path, text: str = REMOTE, at: str = AT_NIGHT) -> Ran:
    """``runner schedule`` of the job file *text* in *folder*."""
    write(folder, {"nightly.yaml": text.replace("SCHEDULE", at)})
    return runner("schedule", "nightly.yaml", *words, cwd=folder)


def printed(folder: Path, *words: str | Path, text: str = REMOTE, at: str = AT_NIGHT) -> str:
    """The same, which must be well."""
    ran = said(folder, *words, text=text, at=at)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def settings(text: str) -> list[str]:
    """*text* without its comments and empty lines."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def as_cron(crontab: str) -> str:
    """The command of the last line of *crontab*, as cron hands it to a shell: a % behind a backslash is itself."""
    *_, line = crontab.splitlines()
    command = line.split(maxsplit=5)[5]
    assert not re.search(r"(?<!\\)%", command)
    return command.replace(r"\%", "%")


def start(**changed: Any) -> Start:
    """A start of the job file nightly.yaml."""
    known: dict[str, Any] = {
        "name": "nightly",
        "schedule": Schedule.model_validate({"every": "day at 02:30"}),
        "program": ["/venv/bin/runner"],
        "job_file": Path("/srv/nightly.yaml"),
        "words": [],
        "env_file": None,
        "variables": [],
        "batches": Path("/srv/batches/nightly"),
        "deadline_s": 3600,
        "why": "it is so",
    }
    return Start(**known | changed)


# What is said of it


def test_the_next_times_are_shown_and_nothing_is_started(tmp_path: Path) -> None:
    """By the clocks of the place that was meant."""
    told = printed(tmp_path).splitlines()
    assert told[0] == "every day at 02:30, Europe/Berlin"
    assert all(re.fullmatch(r"  \w{3} \d{4}-\d\d-\d\d 0[23]:30 CES?T", line) for line in told[1:4])
    assert told[-1] == "start it with what this prints: runner schedule nightly.yaml --crontab, --systemd or --k8s"
    found = said(tmp_path, "--format", "json").json
    assert (found["cron"], found["time_zone"], len(found["next"])) == ("30 2 * * *", "Europe/Berlin", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nightly.yaml"]


def test_times_at_which_clocks_are_changed_are_warned_of(tmp_path: Path) -> None:
    """Cron and systemd differ there."""
    told = printed(tmp_path)
    assert len(re.findall(r"^On \d{4}-0[34]-\d\d the clocks jump over that time", told, re.MULTILINE)) == 1
    assert len(re.findall(r"^On \d{4}-1[01]-\d\d the clocks show that time twice", told, re.MULTILINE)) == 1
    assert "the clocks" not in printed(tmp_path, at=AT_NIGHT.replace("02:30", "04:30"))


def test_plan_and_validate_show_the_next_times(tmp_path: Path) -> None:
    """Whoever checks a file sees when it would begin."""
    write(tmp_path, {"nightly.yaml": REMOTE.replace("SCHEDULE", AT_NIGHT)})
    line = r"  begins every day at 02:30, Europe/Berlin; next: (\w{3} \S+ 0[23]:30 CES?T(, )?){3}"
    assert re.fullmatch(line, runner("validate", "nightly.yaml", cwd=tmp_path).out.splitlines()[1])
    assert re.fullmatch(line, runner("plan", "nightly.yaml", cwd=tmp_path).out.splitlines()[1])
    found = runner("plan", "nightly.yaml", "--format", "json", cwd=tmp_path).json
    assert found["schedule"]["schedule"] == "every day at 02:30, Europe/Berlin"
    assert len(found["schedule"]["next"]) == 3


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ((), "", "error: nightly.yaml has no 'schedule'\n  help: add schedule: every day at 02:30\n"),
        (
            ("--crontab", "--k8s"),
            AT_NIGHT,
            "error: --crontab, --systemd and --k8s exclude each other\n  help: write one of them\n",
        ),
        (
            ("--crontab", "--mail-to", "a b"),
            AT_NIGHT,
            "error: 'a b' is no address for mail\n  help: write --mail-to you@example.com\n",
        ),
    ],
)
def test_what_can_not_be_printed_is_said(tmp_path: Path, words: tuple[str, ...], at: str, expected: str) -> None:
    """With exit code 2, as any wrong word."""
    assert said(tmp_path, *words, at=at) == Ran(2, "", expected)


# Deadlines


@pytest.mark.parametrize(
    ("limits", "sentence", "expected"),
    [
        (["1h", "30m"], "day at 02:30", 5400 + 300 + 60),
        (["1h", None], "day at 02:30", 86_400 - 60),
        ([None, None], "15 minutes", 840),
    ],
)
def test_the_deadline_is_that_of_the_jobs_or_the_next_start(
    limits: list[str | None], sentence: str, expected: int
) -> None:
    """What jobs set for themselves comes first, so that what it stops is settled."""
    jobs = {
        f"job{number}": {"endpoint": "gpu", "input": "x", "timeouts": {"job": limit}}
        for number, limit in enumerate(limits)
    }
    spec = JobFileSpec.model_validate(
        {"version": 1, "name": "x", "endpoints": {"gpu": {"id": "x"}}, "jobs": jobs, "schedule": f"every {sentence}"}
    )
    assert spec.schedule is not None
    assert starts.deadline(spec, spec.schedule, list(jobs))[0] == expected


# Cron


def test_a_crontab_has_whole_paths_and_the_file_with_the_variables_but_no_value(tmp_path: Path) -> None:
    """Cron knows neither PATH nor variables; and a crontab is no place for a key."""
    write(tmp_path, {"nightly.yaml": REMOTE.replace("SCHEDULE", AT_NIGHT)})
    words = ("schedule", "nightly.yaml", "--crontab", "--mail-to", "me@example.com", "--var", "model=big one")
    env = {"RUNPOD_API_KEY": "rpa_secret", "HOOK_URL": "https://example.com/secret", "PHOTOS": "secret"}
    ran = runner(*words, cwd=tmp_path, env=env)
    assert (ran.code, ran.err) == (0, "")
    mail, zone, line = settings(ran.out)
    assert (mail, zone) == ("MAILTO=me@example.com", "CRON_TZ=Europe/Berlin")
    assert line.startswith("30 2 * * *  cd ")
    steps = [shlex.split(step) for step in as_cron(ran.out).split(" && ")]
    folder = str(tmp_path)
    assert steps[:4] == [["cd", folder], ["set", "-a"], [".", f"{folder}/nightly.env"], ["set", "+a"]]
    limit, deadline_s, program = steps[4][:4], steps[4][4], steps[4][5]
    assert limit == ["exec", "timeout", "--preserve-status", "--kill-after=60"]
    assert deadline_s == "86340"
    assert Path(program).is_absolute()
    words_of_run = ["run", f"{folder}/nightly.yaml", "--var", "model=big one", "--resume", "--quiet"]
    assert steps[4][-len(words_of_run) :] == words_of_run
    assert f"# and {folder}/nightly.env with PHOTOS=…, NIGHTLY_ENDPOINT_ID=…, RUNPOD_API_KEY=…, HOOK_URL=…" in ran.out
    assert "secret" not in ran.out
    assert "The cron of Debian and Ubuntu does not know" in ran.out


def test_a_path_with_spaces_quotes_and_percent_signs_reaches_the_shell_whole() -> None:
    """A % ends the command for cron."""
    folder = Path("/srv/it's 100% $HOME; echo")
    text = starts.crontab(start(job_file=folder / "nightly.yaml", env_file=folder / "x.env"))
    steps = [shlex.split(step) for step in as_cron(text).split(" && ")]
    assert steps[0] == ["cd", str(folder)]
    assert steps[2] == [".", str(folder / "x.env")]
    assert str(folder / "nightly.yaml") in steps[4]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("/srv/a\nb", "a crontab can't hold '/srv/a\\nb'"),
        ("/srv/a\\b", "a crontab can't hold '/srv/a\\\\b'"),
        ("/srv/" + "a" * 500, "the command has 1"),
    ],
)
def test_a_path_that_no_crontab_can_hold_is_refused(folder: str, message: str) -> None:
    """A line more in a crontab is a command of somebody else's."""
    with pytest.raises(UsageError) as caught:
        starts.crontab(start(job_file=Path(folder) / "nightly.yaml"))
    assert caught.value.message.startswith(message)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A job file with a schedule, of six runs that wait, on its own endpoint."""
    stage = Stage.make(tmp_path, more="schedule: every day at 02:30\n")
    yield stage
    stage.go()


def started_by_cron(stage: Stage) -> "subprocess.Popen[str]":
    """The crontab's own command line, as cron starts it."""
    ran = stage.runner("schedule", "one.yaml", "--crontab")
    assert ran.code == 0, ran.err
    return subprocess.Popen(
        ["/bin/sh", "-c", as_cron(ran.out)],
        env={"HOME": "/", "LOGNAME": "x", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_command_of_a_crontab_begins_nothing_beside_itself(stage: Stage) -> None:
    """A night that takes longer than a day is told once, is paid for once, and is silent when all is well."""
    process = started_by_cron(stage)
    stage.wait_began(0, 1)
    second = finish(started_by_cron(stage))
    assert (second.code, second.out) == (5, "")
    told = second.err.splitlines()
    assert told[0].startswith("error: another batch of 'one' is running: process ")
    assert len(told) == 2
    stage.go()
    assert finish(process) == Ran(0, "", "")
    assert len(stage.settled()) == RUNS


def test_a_deadline_stops_in_order_and_the_next_start_goes_on(stage: Stage) -> None:
    """`timeout` says SIGTERM to runner alone, which follows what is in flight, and hands its exit code on."""
    process = started_by_cron(stage)
    stage.wait_began(0, 1)
    process.terminate()  # what `timeout` gets, or gives itself once time is up, it passes on
    told = said_by(process, "SIGTERM: starting nothing more; following 2 in flight for 25s")
    stage.go(0, 1)
    ran = finish(process)
    assert (ran.code, ran.out) == (143, "")
    assert "  go on with --resume" in ran.err.splitlines(), told
    assert len(stage.settled()) == 2
    stage.go()
    assert finish(started_by_cron(stage)) == Ran(0, "", "")
    assert sorted(one["index"] for one in stage.settled()) == list(range(RUNS))


# systemd


def test_units_of_systemd_have_what_a_batch_needs(tmp_path: Path) -> None:
    """Its deadline, the time to drain, and a stop that is no failure."""
    found = settings(printed(tmp_path, "--systemd"))
    assert "OnCalendar=*-*-* 02:30:00 Europe/Berlin" in found
    assert f"EnvironmentFile={tmp_path}/nightly.env" in found
    assert f"WorkingDirectory={tmp_path}" in found
    for line in ("Type=exec", "RuntimeMaxSec=86340", "TimeoutStopSec=60", "KillMode=mixed", "SuccessExitStatus=143"):
        assert line in found
    (command,) = [line for line in found if line.startswith("ExecStart=")]
    assert command.endswith(f"run {tmp_path}/nightly.yaml --resume --quiet")
    assert found[-2:] == ["[Install]", "WantedBy=timers.target"]


def test_a_word_of_a_unit_is_quoted_as_systemd_reads_it() -> None:
    """% is a specifier there, and $ a variable."""
    folder = Path("/srv/100% of it's")
    words = ["--var", 'x=a "b" $HOME \\ %n']
    found = settings(starts.systemd(start(job_file=folder / "nightly.yaml", words=words), "me"))
    assert "WorkingDirectory=/srv/100%% of it's" in found
    assert (
        'ExecStart=/venv/bin/runner run "/srv/100%% of it\'s/nightly.yaml" --var "x=a \\"b\\" $$HOME \\\\ %%n"'
        " --resume --quiet"
    ) in found


def units(text: str) -> dict[str, str]:
    """The files in what is printed, by name."""
    parts = re.split(r"^# --- (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_there_are_two_files_of_systemd(tmp_path: Path) -> None:
    """Each with the sections it must have, so that they can be told apart without systemd, too."""
    found = units(printed(tmp_path, "--systemd"))
    assert list(found) == ["runner-nightly.service", "runner-nightly.timer"]
    sections = {name: re.findall(r"^\[(\w+)\]$", text, re.MULTILINE) for name, text in found.items()}
    assert sections == {
        "runner-nightly.service": ["Unit", "Service"],
        "runner-nightly.timer": ["Unit", "Timer", "Install"],
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own check; the others need none")
def test_systemd_itself_takes_the_units(tmp_path: Path) -> None:
    """Not even a warning."""
    folder = tmp_path / "100% of it's"
    folder.mkdir()
    files = units(printed(folder, "--systemd", text=REMOTE))
    write(tmp_path / "units", files)
    paths = [str(tmp_path / "units" / name) for name in files]
    ran = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    about = [line for line in ran.stderr.splitlines() if "runner-nightly" in line]
    assert (ran.returncode, about) == (0, [])


# Kubernetes


def test_a_cronjob_has_what_a_batch_needs(tmp_path: Path) -> None:
    """Nothing beside it, nothing again unasked, a deadline, time to drain, and the key from a secret."""
    job, claim = yaml.safe_load_all(printed(tmp_path, "--k8s", "--image", "registry.example.com/shop:7"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], claim["kind"]) == ("batch/v1", "CronJob", "PersistentVolumeClaim")
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("30 2 * * *", "Europe/Berlin", "Forbid")
    assert spec["startingDeadlineSeconds"] == 3600
    inner = spec["jobTemplate"]["spec"]
    assert (inner["backoffLimit"], inner["activeDeadlineSeconds"]) == (0, 86_340)
    pod = inner["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 60)
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/shop:7"
    command = ["runner", "run", "/job/nightly.yaml", "--resume", "--quiet", "--output-dir", "/batches"]
    assert container["command"] == command
    assert container["env"] == [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "runner-nightly", "key": name}}}
        for name in ("PHOTOS", "NIGHTLY_ENDPOINT_ID", "RUNPOD_API_KEY", "HOOK_URL")
    ]
    assert container["volumeMounts"] == [{"name": "batches", "mountPath": "/batches"}]
    claimed = {"name": "batches", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    assert pod["volumes"] == [claimed]


def test_a_name_that_kubernetes_refuses_is_made_one_that_it_takes() -> None:
    """At most 52 letters, digits and hyphens; and $(X) is no reference of ours."""
    made = start(name="a_b.c" + "d" * 50, words=["--var", "x=$(HOME)"])
    job, _ = yaml.safe_load_all(starts.kubernetes(made, "x"))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", job["metadata"]["name"])
    assert len(job["metadata"]["name"]) <= 52
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "x=$$(HOME)" in pod["containers"][0]["command"]
    assert "env" not in pod["containers"][0]
    assert "timeZone" not in job["spec"]
