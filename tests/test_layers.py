"""What jobs share, and what a profile changes: `defaults` and `profiles` of a job file."""

import io
from pathlib import Path
from typing import Any

import pytest
from job_files import write
from terminal import lines, runner

from runner import batch
from runner.batch import Folder
from runner.check import JobFile, open_job_file
from runner.commands.health import health
from runner.commands.plan import plan
from runner.commands.purge import purge
from runner.commands.serve import Manner, Where, serve
from runner.commands.validate import validate
from runner.drift import is_same
from runner.errors import JobFileError, UsageError
from runner.layers import lay
from runner.manifest import manifest
from runner.network import hidden_names
from runner.options import Options
from runner.plan import make_plan
from runner.recorded import recorded
from runner.resume import check_options
from runner.spec import LocalEndpoint, RemoteEndpoint
from runner.values import JsonObject

LOCAL = {"handler": "echo.py:handler"}
JOB: JsonObject = {"endpoint": "local", "input": {"x": 1}}


def opened(folder: Path, *, profile: str | None = None, **more: Any) -> JobFile:
    """The job file of `write` with *more* in it, under *profile*."""
    return open_job_file(write(folder, {}, **more), profile=profile, env={})


def problems(folder: Path, *, profile: str | None = None, **more: Any) -> list[str]:
    """What is wrong with that file, without the places."""
    with pytest.raises(JobFileError) as raised:
        opened(folder, profile=profile, **more)
    return [problem.message for problem in raised.value.problems]


def validated(folder: Path, *, profile: str | None = None, **more: Any) -> tuple[int, str, str]:
    """What `runner validate` says of that file: exit code, stdout and stderr, without its path."""
    out, err = io.StringIO(), io.StringIO()
    path = write(folder, {}, **more)
    code = validate([path], profile=profile, env={}, out=out, err=err)
    return code, out.getvalue().replace(str(path), "FILE"), err.getvalue().replace(str(path), "FILE")


# Defaults


def test_a_job_has_what_it_does_not_say_itself(tmp_path: Path) -> None:
    """Also the endpoint, the rows and the input: jobs that differ in one key are one line each."""
    rows = {"inline": [{"prompt": "a horse"}]}
    defaults = {"endpoint": "local", "mode": "sync", "rows": rows, "input": {"p": "{{ row.prompt }}"}}
    jobs = opened(tmp_path, defaults=defaults, jobs={"a": {}, "b": {"mode": "async"}}).jobs
    assert [job.mode for job in jobs.values()] == ["sync", "async"]
    found = [(job.endpoint, job.rows.inline, job.input) for job in jobs.values()]
    assert found == [("local", rows["inline"], defaults["input"])] * 2


def test_settings_are_merged_key_by_key_and_all_else_is_replaced_whole(tmp_path: Path) -> None:
    """One attempt more is no reason to write the waits again; half of another job's input is a request of nobody."""
    defaults = {
        "retry": {"attempts": 3, "wait_initial": "2s"},
        "policy": {"ttl": "1h", "low_priority": True},
        "timeouts": {"run": "1h"},
        "poll": {"min": "1s"},
        "stop_when": {"failed": 3},
        "input": {"a": 1},
        "rows": {"inline": [{"a": 1}], "limit": 1},
    }
    own = {
        "endpoint": "local",
        "retry": {"attempts": 2},
        "policy": {"ttl": None},
        "timeouts": {"request": "5s"},
        "poll": {"max": "10s"},
        "stop_when": {"failed": "10%"},
        "input": {"b": 2},
        "rows": {"repeat": 2},
    }
    job = opened(tmp_path, defaults=defaults, jobs={"a": own}).jobs["a"]
    assert (job.retry.attempts, job.retry.wait_initial_s, job.retry.wait_max_s) == (2, 2.0, 60.0)
    assert (job.policy.ttl_s, job.policy.low_priority) == (None, True)
    assert (job.timeouts.request_s, job.timeouts.run_s) == (5.0, 3600.0)
    assert (job.poll.min_s, job.poll.max_s) == (1.0, 10.0)
    assert (job.stop_when.failed_count, job.stop_when.failed_share) == (None, 0.1)
    assert (job.input, job.rows.inline, job.rows.repeat) == ({"b": 2}, None, 2)


def test_null_takes_a_default_away(tmp_path: Path) -> None:
    """Else a job could not be without the webhook that all others have."""
    defaults = {"webhook": "https://x.example.com", "concurrency": 2, "success_when": "output.x == 1"}
    own = JOB | dict.fromkeys(defaults)
    jobs = opened(tmp_path, defaults=defaults, jobs={"a": JOB, "b": own}).jobs
    assert [(job.webhook, job.concurrency, job.success_when) for job in jobs.values()] == [
        tuple(defaults.values()),
        (None, None, None),
    ]


def test_what_every_job_has_something_else_for_is_fine(tmp_path: Path) -> None:
    """It waits for the next job; only a key in it would be seen by whoever reads the file."""
    defaults = {"endpoint": "elsewhere", "mode": "sync", "success_when": "row.lang == 'en'"}
    jobs = {"a": JOB | {"mode": "async", "success_when": None}}
    assert opened(tmp_path, defaults=defaults, jobs=jobs).jobs["a"].mode == "async"


def test_a_mistake_is_told_once_and_with_the_jobs_only_where_these_matter(tmp_path: Path) -> None:
    """Twenty jobs with the same mistake in one line are one mistake; five that lack a column are not to be guessed."""
    defaults = {"success_when": "row.lang == 'en'", "policy": {"ttl": "1s"}}
    rows = {"rows": {"inline": [{"lang": "en"}]}}
    names = ["a", "b", "c", "d", "e"]
    jobs = {"r": JOB | rows, "s": JOB | rows} | dict.fromkeys(names, JOB)
    ttl = "RunPod's 'ttl' is 10s to 7d, found 1s"
    assert problems(tmp_path, defaults=defaults, jobs=jobs) == [
        "the job has no rows (in jobs 'a', 'b', 'c' and 2 more)",
        ttl,
    ]
    del jobs["s"], jobs["r"]
    assert problems(tmp_path, defaults=defaults, jobs=jobs) == ["the job has no rows", ttl]
    one = {"a": JOB, "r": JOB | rows}
    assert problems(tmp_path, defaults=defaults, jobs=one) == ["the job has no rows (in job 'a')", ttl]
    assert problems(tmp_path, defaults=defaults, jobs={"a": JOB}) == ["the job has no rows", ttl]


def test_a_first_run_that_fails_is_told_where_its_template_stands(tmp_path: Path) -> None:
    """In the default, and by which job."""
    defaults = {"input": {"n": "{{ row.n | int }}"}, "endpoint": "local"}
    jobs = {"good": {"rows": {"inline": [{"n": "1"}]}}, "bad": {"rows": {"inline": [{"n": "x"}]}}}
    code, out, err = validated(tmp_path, defaults=defaults, jobs=jobs)
    assert (code, out) == (2, "")
    assert err.startswith("FILE:1:")
    assert err.count("the first run of job 'bad' can't be rendered: ") == 1
    assert "good" not in err.split("\n")[0]


def test_unset_variables_of_a_default_are_told_once(tmp_path: Path) -> None:
    """However many jobs take it."""
    code, out, err = validated(tmp_path, defaults={"webhook": "${HOOK}"}, jobs={"a": JOB, "b": JOB})
    assert (code, out) == (0, "FILE: ok (2 jobs, 2 runs)\n")
    assert err.count("warning: environment variable 'HOOK' is not set\n") == 1


def test_defaults_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """As aliases are: a small file must not become a billion values."""
    defaults = {"endpoint": "local", "input": 1, "rows": {"inline": [{"a": 1}] * 1100}}
    jobs: dict[str, JsonObject] = {f"j{number}": {} for number in range(500)}
    assert problems(tmp_path, defaults=defaults, jobs=jobs) == ["more than 1000000 values once every job has them"]


# Profiles

PROFILES: JsonObject = {
    "staging": {"endpoints": {"local": {"id": "abc"}, "more": {"id": "def"}}, "vars": {"style": "pencil"}},
    "prod": {
        "endpoints": {"local": {"id": "${PROD_ID}"}},
        "defaults": {"retry": {"attempts": 4}, "mode": "sync"},
        "outputs": {"dir": "prod"},
        "health": {"every": "1m"},
        "thresholds": {"failed": "< 1%", "skipped": None},
    },
}
FILE: JsonObject = {
    "vars": {"style": "ink", "size": 512},
    "endpoints": {"local": {"handler": "echo.py:handler", "workers": 3}},
    "defaults": {"retry": {"attempts": 2, "wait_initial": "2s"}},
    "outputs": {"results": ["jsonl"]},
    "health": {"wait": "1m"},
    "thresholds": {"failed": "== 0", "skipped": "== 0"},
    "jobs": {"only": JOB | {"input": {"style": "{{ vars.style }}"}}, "own": JOB | {"retry": {"attempts": 1}}},
    "profiles": PROFILES,
}


def test_without_a_profile_the_file_is_as_it_stands(tmp_path: Path) -> None:
    """Nobody reaches production by leaving something out."""
    job_file = opened(tmp_path, **FILE)
    assert isinstance(job_file.endpoints["local"], LocalEndpoint)
    assert (job_file.profile, list(job_file.endpoints)) == (None, ["local"])
    assert (job_file.vars, job_file.outputs.dir) == ({"style": "ink", "size": 512}, None)
    assert job_file.jobs["only"].retry.attempts == 2


def test_a_profile_swaps_endpoints_whole_and_vars_by_name(tmp_path: Path) -> None:
    """What is left of a local endpoint would be in the way of a remote one."""
    job_file = opened(tmp_path, profile="staging", **FILE)
    assert isinstance(job_file.endpoints["local"], RemoteEndpoint)
    assert list(job_file.endpoints) == ["local", "more"]
    assert job_file.vars == {"style": "pencil", "size": 512}
    assert job_file.profile == "staging"


def test_the_rest_of_a_profile_is_laid_over_the_file_key_by_key(tmp_path: Path) -> None:
    """Its defaults over the file's, below what a job says itself; null takes a threshold away."""
    job_file = opened(tmp_path, profile="prod", **FILE)
    only, own = job_file.jobs.values()
    assert (only.retry.attempts, only.retry.wait_initial_s, only.mode) == (4, 2.0, "sync")
    assert (own.retry.attempts, own.retry.wait_initial_s) == (1, 2.0)
    assert (job_file.outputs.dir, job_file.outputs.results) == ("prod", ["jsonl"])
    assert (job_file.health.every_s, job_file.health.wait_s) == (60.0, 60.0)
    assert {name: one.text for name, (one,) in job_file.thresholds.items()} == {"failed": "< 1%"}


def test_a_var_of_the_command_line_wins(tmp_path: Path) -> None:
    """It is said last."""
    job_file = open_job_file(write(tmp_path, {}, **FILE), profile="staging", overrides={"style": "oil"}, env={})
    assert job_file.vars["style"] == "oil"


def test_an_unknown_profile_is_named_with_the_nearest(tmp_path: Path) -> None:
    """A batch that runs on the wrong endpoints because of a slip is expensive."""
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, profile="prd", **FILE)
    path = tmp_path / "job.yaml"
    assert raised.value.render() == f"error: unknown profile 'prd' in {path}\n  help: did you mean 'prod'?"
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, profile="prod")
    assert raised.value.render() == f"error: unknown profile 'prod' in {path}\n  help: the file has no profiles"


def test_only_the_form_of_other_profiles_stands_in_the_way_of_a_run(tmp_path: Path) -> None:
    """Where prod runs, the local profile's handler may not be installed. A misspelled key is a mistake anywhere."""
    profiles: JsonObject = {"local": {"endpoints": {"local": {"handler": "gone.py:handler"}}}, "prod": {}}
    assert opened(tmp_path, profile="prod", profiles=profiles).profile == "prod"
    profiles["local"]["outputs"] = {"dri": "x"}
    assert problems(tmp_path, profile="prod", profiles=profiles) == ["unknown key 'dri' in 'outputs'"]


def test_what_a_profile_replaces_is_held_against_the_grammar_all_the_same(tmp_path: Path) -> None:
    """Every problem of form at once, whichever profile is chosen; what it needs may be missing."""
    profiles = {"prod": {"endpoints": {"local": LOCAL}}}
    endpoints: JsonObject = {"local": {"handler": "gone.py:handler"}}
    assert opened(tmp_path, profile="prod", profiles=profiles, endpoints=endpoints).profile == "prod"
    endpoints["local"]["wrokers"] = 2
    found = problems(tmp_path, profile="prod", profiles=profiles, endpoints=endpoints)
    assert found == ["unknown key 'wrokers' in endpoint 'local'"]


def test_validate_checks_every_profile_and_tells_each_problem_once(tmp_path: Path) -> None:
    """A profile's mistake is found before the night in which it is needed, and by its name where its place hides it."""
    endpoints = {"local": LOCAL, "other": {"handler": "echo.py:handlr"}}
    profiles: JsonObject = {
        "a": {"endpoints": {"local": {"handler": "gone.py:handler"}}},
        "b": {"vars": {"size": "large"}, "defaults": {"policy": {"ttl": "1s"}}},
        "c": {},
    }
    job = JOB | {"input": {"size": "{{ vars.size | int }}"}}
    file: JsonObject = {"vars": {"size": "512"}, "endpoints": endpoints, "jobs": {"only": job}}
    code, out, err = validated(tmp_path, profiles=profiles, **file)
    assert (code, out) == (2, "")
    assert [line.partition(": ")[2] for line in err.splitlines() if line.startswith("FILE:")] == [
        "'echo.py' defines no 'handlr'",
        "there is no file 'gone.py'",
        "RunPod's 'ttl' is 10s to 7d, found 1s",
    ]
    profiles["b"] = {"vars": {"size": "large"}}
    endpoints["other"] = profiles["a"]["endpoints"]["local"] = LOCAL
    code, out, err = validated(tmp_path, profiles=profiles, **file)
    assert (code, out) == (2, "")
    found = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("FILE:")]
    assert found == [
        "the first run of job 'only' can't be rendered: 'large' is not a whole number (with profile 'b')",
    ]


def test_unset_variables_are_told_for_the_chosen_profile_alone(tmp_path: Path) -> None:
    """Whoever validates for staging has no key of production, and needs none."""
    known = "environment variable 'RUNPOD_API_KEY' is not set"
    for profile, expected in {
        None: [],
        "staging": [known],
        "prod": [known, "environment variable 'PROD_ID' is not set"],
    }.items():
        code, out, err = validated(tmp_path, profile=profile, **FILE)
        assert (code, out) == (0, "FILE: ok (2 jobs, 2 runs; profiles 'staging', 'prod')\n")
        assert [line.partition("warning: ")[2] for line in err.splitlines() if line.startswith("FILE:")] == expected


def test_plan_names_the_profile(tmp_path: Path) -> None:
    """Whoever looks before a run sees where it would go."""
    path, out = write(tmp_path, {}, **FILE), io.StringIO()
    assert plan(path, profile="staging", env={"RUNPOD_API_KEY": "x"}, out=out) == 0
    assert out.getvalue().splitlines()[0] == f"{path} with profile 'staging': 2 jobs, 2 runs"
    assert "only: 1 run on endpoint 'local', mode async" in out.getvalue()
    assert '"style": "pencil"' in out.getvalue()


def test_no_worker_sees_the_secrets_of_any_profile(tmp_path: Path) -> None:
    """A handler that is tried locally has no business with the key of production."""
    keys: JsonObject = {"sdxl": {"id": "x", "api_key": "${PROD_KEY}"}}
    bucket = {"access_id": "a", "access_secret": "${S3}", "bucket_name": "b", "endpoint_url": "https://x.example.com"}
    profiles = {"prod": {"endpoints": keys, "defaults": {"s3_config": bucket, "webhook": "${HOOK}"}}}
    job_file = opened(tmp_path, profiles=profiles, endpoints={"local": LOCAL, "base": {"id": "y", "api_key": "${B}"}})
    assert hidden_names(job_file) == ["B", "HOOK", "PROD_KEY", "S3"]
    assert hidden_names(
        opened(
            tmp_path,
            profiles={"local": {"endpoints": {"a": LOCAL}}},
            endpoints=keys | {"local": LOCAL},
            profile="local",
        )
    ) == ["PROD_KEY"]


def test_a_layer_is_not_changed_by_what_is_made_of_it() -> None:
    """The same file is laid again for each profile."""
    before = repr(FILE)
    for name in (None, "staging", "prod", "unknown"):
        lay(FILE, name)
    assert repr(FILE) == before


def test_every_command_on_a_file_takes_a_profile(tmp_path: Path) -> None:
    """Whoever asks for the health of prod must not be told that of the machine at hand."""
    profiles: JsonObject = {"p": {"endpoints": {"more": LOCAL}}}
    path, out = write(tmp_path, {}, profiles=profiles), io.StringIO()
    assert health(path, profile="p", local_url=None, token_env="X", out=out) == 0
    assert sorted(line.partition(":")[0] for line in out.getvalue().splitlines()) == ["local", "more"]
    with pytest.raises(UsageError, match="endpoint 'more' is embedded"):
        purge(path, "more", confirmed=True, profile="p", local_url=None, token_env="X")
    with pytest.raises(UsageError, match="unknown endpoint 'more'"):
        purge(path, "more", confirmed=True, local_url=None, token_env="X")
    profiles["p"] = {"endpoints": {"local": {"id": "abc"}}}
    path = write(tmp_path, {}, profiles=profiles)
    with pytest.raises(UsageError, match="has no local endpoint to serve"):
        serve(path, Where(), Manner(), profile="p")
    with pytest.raises(UsageError, match=r"a profile is part of a job file, and .*echo\.py is a handler"):
        serve(tmp_path / "echo.py", Where(), Manner(), profile="p")


# Batches


def test_a_batch_is_gone_on_with_under_its_own_profile(tmp_path: Path) -> None:
    """The same file on other endpoints is another batch."""
    options = Options(tmp_path, profile="prod", limit=3)
    told: JsonObject = {"batch": "x", "overrides": options.chosen}
    check_options(told, overrides=options.chosen)
    with pytest.raises(UsageError) as raised:
        check_options(told, overrides=Options(tmp_path, limit=3).chosen)
    assert raised.value.render() == (
        "error: batch x can't be gone on with like this: its options were --profile prod --limit 3\n"
        "  help: give the same options, or start a new batch with --fresh"
    )


def test_a_changed_default_is_a_changed_job_and_a_moved_one_is_not(tmp_path: Path) -> None:
    """A resume compares what the runs are made of, wherever that is written."""
    given: JsonObject = {"input": {"x": 1}, "endpoint": "local"}
    before = opened(tmp_path, defaults=given, jobs={"a": {}})
    folder = batch.create(tmp_path, now=0.0)
    told = manifest(folder, Options(tmp_path), before, make_plan(before), started_at=0.0)
    moved = opened(tmp_path, defaults={"input": {"x": 2}}, jobs={"a": given})
    changed = opened(tmp_path, defaults=given | {"input": {"x": 2}}, jobs={"a": {}})
    doubled = opened(tmp_path, defaults=given | {"rows": {"repeat": 2}}, jobs={"a": {}})
    assert [is_same(told, make_plan(now), now.vars) for now in (before, moved, changed, doubled)] == [
        *(True, True, False, False)
    ]


def test_a_batch_of_before_profiles_is_gone_on_with_without_one(tmp_path: Path) -> None:
    """Its manifest knows of none."""
    check_options({"overrides": {"vars": {}, "jobs": [], "limit": None}}, overrides=Options(tmp_path).chosen)


def test_a_profile_runs_to_its_end_and_is_on_record(tmp_path: Path) -> None:
    """In the manifest, the report and the summary; `runner resume` and `runner cancel` take it from there."""
    profiles = {"loud": {"vars": {"style": "LOUD"}, "defaults": {"rows": {"repeat": 2}}, "outputs": {"dir": "loud"}}}
    job = {"endpoint": "local", "input": {"style": "{{ vars.style }}"}}
    path = write(tmp_path, {}, vars={"style": "ink"}, jobs={"only": job}, profiles=profiles)
    ran = runner("run", path, "--profile", "loud", "--format", "json", cwd=tmp_path)
    assert (ran.code, ran.json["batch"]["profile"], ran.json["batch"]["runs"]) == (0, "loud", 2), ran.err
    folder = Folder((tmp_path / "loud/t/latest").resolve())
    assert [line["output"] for line in lines(folder.results)] == [{"style": "LOUD"}] * 2
    again = runner("resume", folder.path, cwd=tmp_path)
    assert again.code == 0, again.err
    (first,) = [line for line in (again.out + again.err).splitlines() if line.startswith("pass: ")]
    assert first.endswith(" with profile 'loud'")
    read_back = recorded(folder.read_manifest())
    assert (read_back.profile, read_back.vars, read_back.jobs["only"].rows.repeat) == ("loud", {"style": "LOUD"}, 2)
