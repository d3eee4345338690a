"""Which run belongs to which shard, and what part of every limit a shard has."""

import re
import shlex
from collections import Counter as Counts
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from job_files import opened
from terminal import ROOT

from runner.check import JobFile
from runner.errors import UsageError
from runner.judge import lost
from runner.plan import Counter, Run, make_plan
from runner.shards import WHOLE, Shard
from runner.shards_auto import Place, asked, place
from runner.shards_share import divided
from runner.tally import JobTally
from runner.thresholds import parse
from runner.units import Rate
from runner.width import ADAPTIVE, Width


def shards(of: int) -> list[Shard]:
    """All shards of a batch."""
    return [Shard(number, of) for number in range(1, of + 1)]


def said(error: pytest.ExceptionInfo[UsageError]) -> str:
    """What a person reads."""
    return error.value.render()


def in_shard(job_file: JobFile, shard: Shard) -> list[Run]:
    """The runs of *shard*, which are as many as were planned."""
    planned = make_plan(divided(job_file, shard)).jobs["only"]
    runs = list(planned.expand(Counter()))
    assert len(runs) == planned.runs
    return runs


@pytest.mark.parametrize("of", [1, 2, 7, 16])
@pytest.mark.parametrize(
    "rows",
    [
        {"inline": [{"n": n} for n in range(60)]},
        {"inline": [{"n": n % 5} for n in range(30)], "repeat": 2},
        {"inline": [{"n": n} for n in range(20)], "matrix": {"size": [1, 2, 3]}, "shuffle": 3},
    ],
    ids=["all different", "many equal", "shuffled"],
)
def test_every_run_is_in_one_shard_as_it_is_in_a_batch_without_any(tmp_path: Path, rows: Any, of: int) -> None:
    """Key, index and input are the same: hosts agree without talking, and merged results are those of one process."""
    job_file = opened(tmp_path, {"rows": rows, "input": {"n": "{{ row.n }}"}})
    alone = list(make_plan(job_file).jobs["only"].expand(Counter()))
    found = [run for shard in shards(of) for run in in_shard(job_file, shard)]
    assert sorted(found, key=lambda run: run.index) == alone


def test_equal_runs_are_spread_like_any_others(tmp_path: Path) -> None:
    """A sample of one prompt a thousand times is no work for one host."""
    job_file = opened(tmp_path, {"rows": {"repeat": 400}})
    sizes = [len(in_shard(job_file, shard)) for shard in shards(4)]
    assert sum(sizes) == 400
    assert min(sizes) > 60


def test_shards_are_about_as_large() -> None:
    """Their limits are divided evenly, so that the work has to be."""
    keys = [blake2b(b"%d" % n, digest_size=16).hexdigest() for n in range(16_000)]
    sizes = Counts(shard for key in keys for shard in shards(16) if shard.has(key))
    assert sum(sizes.values()) == 16_000
    assert max(sizes.values()) < 1.15 * min(sizes.values())


@given(total=st.integers(0, 10_000), of=st.integers(1, 300))
def test_parts_of_a_number_add_up_to_it(total: int, of: int) -> None:
    """Rounded up they would pass the limit, rounded down they would leave some of it."""
    parts = [shard.count(total) for shard in shards(of)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@given(count=st.integers(100, 2000), of=st.integers(1, 100))
def test_parts_of_a_rate_keep_it_in_every_window(count: int, of: int) -> None:
    """Windows have the same length, so what each may do in one adds up to what all may."""
    parts = [shard.rate(Rate(count, 10.0)) for shard in shards(of)]
    assert sum(part.count for part in parts) == count
    assert {part.period_s for part in parts} == {10.0}


def test_a_rate_of_fewer_calls_than_shards_holds_on_average() -> None:
    """RunPod's table has no limit for /health; 16 shards may look as often as one would."""
    assert Shard(3, 16).rate(Rate(10, 10.0)) == Rate(1, 16.0)
    assert Shard(16, 16).rate(Rate(950, 10.0)) == Rate(59, 10.0)


def test_the_width_of_all_shards_is_that_of_one_process() -> None:
    """Each sees all workers, and would fill them all."""
    alone = Width(None, looks_per_s=190.0)
    parts = [Width(None, looks_per_s=190.0 / 16, shard=shard) for shard in shards(16)]
    for one in (alone, *parts):
        one.saw(1000, is_saturated=True)
    limits = [one.limit(0.0, workers=1000, execution_s=1.0) for one in parts]
    assert sum(limits) == alone.limit(0.0, workers=1000, execution_s=1.0) == ADAPTIVE


def test_a_queue_that_its_ttl_bounds_is_divided_too() -> None:
    """Four shards that each fill half a ttl would fill two."""
    alone, parts = Width(200, looks_per_s=190.0), [Width(200, looks_per_s=48.0, shard=shard) for shard in shards(4)]
    for one in (alone, *parts):
        one.expect(ttl_s=3600.0, execution_s=300.0)
    limits = [one.limit(0.0, workers=8, execution_s=None) for one in parts]
    assert limits == [12, 12, 12, 12]
    assert alone.limit(0.0, workers=8, execution_s=None) == 48


def test_what_a_job_may_do_is_divided(tmp_path: Path) -> None:
    """Its budget above all."""
    keys = {"concurrency": 21, "stop_when": {"failed": 10, "cost": "5.00 USD"}}
    endpoints = {"local": {"handler": "echo.py:handler", "cost_per_second": 1.0}}
    job_file = opened(tmp_path, keys, endpoints=endpoints)
    jobs = [divided(job_file, shard).jobs["only"] for shard in shards(4)]
    assert [job.concurrency for job in jobs] == [6, 5, 5, 5]
    assert [job.stop_when.failed_count for job in jobs] == [3, 3, 2, 2]
    assert [job.stop_when.cost_usd for job in jobs] == [1.25, 1.25, 1.25, 1.25]


def test_a_share_stays_one_because_the_plan_is_divided(tmp_path: Path) -> None:
    """10 % of each part is 10 % of the whole."""
    job_file = opened(tmp_path, {"stop_when": {"failed": "10%"}})
    assert divided(job_file, Shard(2, 4)).jobs["only"].stop_when.failed_share == 0.1


@pytest.mark.parametrize(
    ("job", "more", "of", "message"),
    [
        ({"concurrency": 3}, {}, 4, "'concurrency' of job 'only' is 3"),
        ({"stop_when": {"failed": 1}}, {}, 4, "'stop_when.failed' of job 'only' is 1"),
        ({}, {}, 96, "'rate_limits.cancel' of endpoint 'local' is 95"),
        ({}, {"endpoints": {"local": {"id": "ep", "concurrency": 5}}}, 6, "'concurrency' of endpoint 'local' is 5"),
    ],
)
def test_more_shards_than_a_limit_has_parts_are_refused(
    tmp_path: Path, job: Any, more: Any, of: int, message: str
) -> None:
    """One each would be more than all may."""
    with pytest.raises(UsageError) as error:
        divided(opened(tmp_path, job, **more), Shard(1, of))
    most = message.rpartition(" ")[2]
    assert said(error) == (
        f"error: --shard 1/{of}: {message}, less than one for each shard\n"
        f"  help: use at most {most} shard{'' if most == '1' else 's'}, or raise it in the job file"
    )


@pytest.mark.parametrize(
    ("job", "jobs", "message"),
    [
        ({}, {"b": {"needs": ["only"]}}, "job 'b' needs job 'only', whose runs are in all shards, and no shard waits"),
        ({}, {"b": {"rows": {"job": "only"}}}, "job 'b' needs job 'only', whose runs are in all shards"),
        ({"rows": {"file": "-"}}, {}, "rows come from stdin, and each shard must read all rows to know its own"),
        ({"mode": "batch"}, {}, "job 'only' goes by RunPod's Batch API, whose limits on batches at once"),
    ],
)
def test_what_no_shard_can_do_by_itself_is_refused(tmp_path: Path, job: Any, jobs: Any, message: str) -> None:
    """Before anything is sent."""
    whole = {"only": {"endpoint": "local", "input": {"x": 1}} | job}
    whole |= {name: {"endpoint": "local", "input": {"x": 1}} | one for name, one in jobs.items()}
    with pytest.raises(UsageError) as error:
        divided(opened(tmp_path, {}, jobs=whole), Shard(1, 2))
    assert message in said(error)


def test_a_threshold_aborts_a_shard_only_when_all_shards_have_lost_it() -> None:
    """Two of its 10 failed, but the whole plan is 1000: less than 1 % is still possible."""
    one = JobTally(10, elsewhere=990)
    for _ in range(2):
        one.settle(*failed())
    assert lost([parse("failed", "< 1%")], [(one, None)]) is None
    assert lost([parse("succeeded", ">= 98%")], [(one, None)]) is None
    assert lost([parse("failed", "< 2")], [(one, None)]) is not None


def failed() -> Any:
    """A run that failed."""
    from runner.states import Outcome, State

    return State.FAILED, Outcome.FAILED


def slurm(task: int, *, first: int = 1, last: int = 16, count: int = 16, step: int = 1) -> dict[str, str]:
    """What Slurm tells a task of an array."""
    told = {"ID": task, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()} | {"SLURM_ARRAY_JOB_ID": "871"}


@pytest.mark.parametrize(
    ("env", "found"),
    [
        (slurm(3), Place(Shard(3, 16), "slurm-871")),
        (slurm(0, first=0, last=15), Place(Shard(1, 16), "slurm-871")),
        (slurm(10, first=0, last=30, count=4, step=10), Place(Shard(2, 4), "slurm-871")),
        (slurm(3) | {"RUNNER_BATCH_ID": "nightly", "RUNNER_SHARDS": "16"}, Place(Shard(3, 16), "nightly")),
        ({"JOB_COMPLETION_INDEX": "0", "RUNNER_SHARDS": "16"}, Place(Shard(1, 16), None)),
        ({"JOB_COMPLETION_INDEX": "15", "RUNNER_SHARDS": "16", "RUNNER_BATCH_ID": "j"}, Place(Shard(16, 16), "j")),
    ],
)
def test_the_environment_says_which_shard_it_is(env: Mapping[str, str], found: Place) -> None:
    """Slurm counts as its user does, Kubernetes from 0, we from 1."""
    assert place(env) == found


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {},
            "error: --shard auto: neither SLURM_ARRAY_TASK_ID (Slurm) nor JOB_COMPLETION_INDEX (Kubernetes) is set\n"
            "  help: start it as a task of a Slurm array or in an indexed job, or write --shard NUMBER/COUNT",
        ),
        (
            {"JOB_COMPLETION_INDEX": "3"},
            "error: --shard auto: JOB_COMPLETION_INDEX is 3, and RUNNER_SHARDS is not set: Kubernetes tells no pod how"
            " many there are\n  help: set RUNNER_SHARDS in the pod's env to the same number as 'completions'",
        ),
        (
            {"JOB_COMPLETION_INDEX": "16", "RUNNER_SHARDS": "16"},
            "error: --shard auto: JOB_COMPLETION_INDEX is 16, and RUNNER_SHARDS is 16: indexes count from 0\n"
            "  help: set RUNNER_SHARDS to the same number as 'completions'",
        ),
        (
            slurm(5, last=7, count=3),
            "error: --shard auto: task 5 of a Slurm array with tasks 1 to 7 in steps of 1, 3 of them, can't be told to"
            " be one shard of them\n  help: write sbatch --array=1-16, without holes; or --shard NUMBER/COUNT",
        ),
        (
            slurm(3, first=3, last=3, count=1) | {"RUNNER_SHARDS": "16"},
            "error: --shard auto: RUNNER_SHARDS is 16, and the Slurm array has 1 tasks\n"
            "  help: to start one shard again write --shard NUMBER/COUNT and --batch-id",
        ),
        (
            slurm(3) | {"JOB_COMPLETION_INDEX": "2"},
            "error: --shard auto: SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX are both set, and each means another"
            " shard\n  help: unset one of them, or write --shard NUMBER/COUNT",
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "3"},
            "error: --shard auto: SLURM_ARRAY_TASK_MIN is not set\n  help: write --shard NUMBER/COUNT",
        ),
        (
            {"JOB_COMPLETION_INDEX": "x", "RUNNER_SHARDS": "16"},
            "error: --shard auto: JOB_COMPLETION_INDEX is no number: 'x'\n  help: write --shard NUMBER/COUNT",
        ),
    ],
)
def test_an_environment_that_says_nothing_or_contradicts_itself_is_refused(
    env: Mapping[str, str], message: str
) -> None:
    """A guess would run what another shard runs, too, and be paid for twice."""
    with pytest.raises(UsageError) as error:
        place(env)
    assert said(error) == message


@pytest.mark.parametrize(
    ("shard", "batch_id", "message"),
    [
        ("3", "x", "error: --shard wants NUMBER/COUNT or auto, found '3'\n  help: write --shard 3/16"),
        ("0/4", "x", "error: --shard 0/4: there is no shard 0 of 4\n  help: shards count from 1: the last one is 4/4"),
        ("5/4", "x", "error: --shard 5/4: there is no shard 5 of 4\n  help: shards count from 1: the last one is 4/4"),
        ("1/0", "x", "error: --shard 1/0: a batch has 1 to 9999 shards\n  help: write --shard 3/16"),
        (
            "1/4",
            None,
            "error: --shard 1/4: nothing says what all shards of the batch call it\n  help: write the same --batch-id"
            " for all of them, such as 2026-11-23, or set RUNNER_BATCH_ID",
        ),
        (
            "1/4",
            "../x",
            "error: --batch-id wants letters, digits, '.', '_' and '-', found '../x'\n"
            "  help: write --batch-id 2026-11-23",
        ),
    ],
)
def test_a_command_line_that_names_no_shard_is_refused(shard: str, batch_id: str | None, message: str) -> None:
    """It says what to write."""
    with pytest.raises(UsageError) as error:
        asked(shard, batch_id, {})
    assert said(error) == message


def example(language: str) -> str:
    """The one example of docs/shards.md in *language*."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/shards.md").read_text(), re.DOTALL)
    return str(found)


def test_the_slurm_example_of_the_docs_is_sixteen_shards_of_one_batch() -> None:
    """Each task of its array, with what Slurm tells it."""
    text = example("bash")
    (array,) = re.findall(r"#SBATCH --array=(\d+)-(\d+)\n", text)
    first, last = map(int, array)
    tasks = range(first, last + 1)
    words = shlex.split(text.splitlines()[-1])
    assert words[words.index("--shard") + 1] == "auto"
    found = [asked("auto", None, slurm(task, first=first, last=last, count=len(tasks))) for task in tasks]
    assert found == [Place(shard, "slurm-871") for shard in shards(16)]


def test_the_kubernetes_example_of_the_docs_is_sixteen_shards_of_one_batch() -> None:
    """Each pod, with the index that Kubernetes gives it and the variables of the manifest."""
    job = yaml.safe_load(example("yaml"))
    assert job["spec"]["completionMode"] == "Indexed"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][container["command"].index("--shard") + 1] == "auto"
    label = "metadata.labels['batch.kubernetes.io/job-name']"
    env = {
        one["name"]: one["value"] if "value" in one else job["metadata"]["name"]
        for one in container["env"]
        if one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", label) == label
        and "secretKeyRef" not in str(one)
    }
    pods = [env | {"JOB_COMPLETION_INDEX": str(index)} for index in range(job["spec"]["completions"])]
    assert [asked("auto", None, pod) for pod in pods] == [Place(shard, "caption-2026-11-23") for shard in shards(16)]


def test_folders_sort_as_their_shards_do() -> None:
    """And nothing else in the common folder is taken for one."""
    assert [shard.folder for shard in (WHOLE, Shard(3, 16), Shard(7, 1200))] == ["01-of-01", "03-of-16", "0007-of-1200"]
    assert all(Shard.of_folder(shard.folder) == shard for shard in shards(120))
    assert [Shard.of_folder(name) for name in ("17-of-16", "3-of-16", "003-of-16", "latest")] == [None] * 4
