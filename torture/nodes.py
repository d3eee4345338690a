"""
A Ray cluster that loses two of its three nodes: ``python -m torture.nodes``; it needs the extra ``ray``.

Three node processes on this machine run the shards of one batch against one served endpoint, which holds RunPod's rate
limits. On the way two nodes are killed with SIGKILL, with all their workers. All runs must settle, none may reach the
endpoint twice, and no window of 10 s may have more submits than the file says. The merged report must be that of one
process but for times, and for submits that a kill cut off: nobody can know whether they arrived (`answer_lost`).
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.processes import TOKEN
from torture.shards import (
    Served,
    check,
    check_log,
    prepare,
    report,
    results,
    serving,
    start,
    timeless,
)

BATCH = "many"

AT_ONCE = 190
"""So many submits all shards together may have under way."""


def children(pid: int) -> Iterator[int]:
    """The process *pid* and all below it."""
    yield pid
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            yield from children(int(path.parent.name))


def kill_node(node: Any) -> int:
    """Kill the raylet of *node* and all its workers at once, as a machine does that loses power; how many they were."""
    (raylet,) = (process.process.pid for process in node.all_processes["raylet"])
    found = list(children(raylet))
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def settled(folder: Path) -> int:
    """How many runs all shards have settled, by their results."""
    return sum(
        len(path.read_bytes().splitlines()) for path in folder.glob(f"batches/horses/{BATCH}/shards/*/results.jsonl")
    )


def on_cluster(folder: Path, served: Served, shards: int, runs: int, wrong: list[str]) -> None:
    """Run the batch on three nodes, and kill two of them on the way."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": shards})
    nodes = [cluster.add_node(num_cpus=shards) for _ in range(2)]
    cluster.wait_for_nodes()
    words = ["--ray", cluster.address, "--shards", str(shards), "--batch-id", BATCH, "--local", served.url]
    driver = start(folder, "run", folder / "job.yaml", *words, env={"PYTHONWARNINGS": "default"})
    try:
        for share, node in zip((0.2, 0.5), nodes, strict=True):
            while settled(folder) < share * runs and driver.poll() is None:
                time.sleep(0.5)
            at = settled(folder)
            print(f"killed a node and its {kill_node(node) - 1} workers, with {at} of {runs} runs settled", flush=True)
        out, _ = driver.communicate()
        print("".join(f"  | {line}\n" for line in out.splitlines()[-25:]))
        check(f"the driver exits {driver.returncode}", driver.returncode == 0, wrong)
    finally:
        driver.kill()
        cluster.shutdown()


def main() -> int:
    """Run the cluster, then one process; 0 when both came to the same."""
    parser = argparse.ArgumentParser(prog="python -m torture.nodes", description=__doc__)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--runs", type=int, default=20_000)
    chosen = parser.parse_args()
    wrong: list[str] = []
    os.environ |= {"RUNNER_LOCAL_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="torture-nodes-") as name:
        folder = Path(name)
        job_file = prepare(folder, chosen.runs)
        with serving(job_file, "many") as served:
            began = time.monotonic()
            on_cluster(folder, served, chosen.shards, chosen.runs, wrong)
            print(f"{chosen.runs} runs in {chosen.shards} shards took {time.monotonic() - began:.0f} s")
            check_log(served, wrong)
        with serving(job_file, "one") as served:
            began = time.monotonic()
            start(folder, "run", job_file, "--local", served.url, "--quiet").communicate()
            print(f"one process took {time.monotonic() - began:.0f} s")
        merged, alone = report(folder, BATCH), report(folder, "latest")
        lost = merged["jobs"]["photos"]["outcomes"].get("answer_lost", 0)
        check("every run is settled", merged["batch"]["pending"] == 0 == alone["batch"]["pending"], wrong)
        most = chosen.shards * -(-AT_ONCE // chosen.shards)
        check(f"{lost} submits were cut off by the kills, at most {most} were under way", lost <= most, wrong)
        if lost:
            check("the merged results are those of one process, but for these", differing(folder) == lost, wrong)
        else:
            check("the merged report is that of one process", timeless(merged) == timeless(alone), wrong)
            check("the merged results are those of one process", differing(folder) == 0, wrong)
    return 1 if wrong else 0


def differing(folder: Path) -> int:
    """How many results of the shards are not those of one process; all but those of lost answers must be."""
    one = {line["key"]: line for line in map(json.loads, results(folder, "latest"))}
    many = {line["key"]: line for line in map(json.loads, results(folder, BATCH))}
    if one.keys() != many.keys():
        return -1
    other = [line for key, line in many.items() if line != one[key]]
    return len(other) if all(line["outcome"] == "answer_lost" for line in other) else -1


if __name__ == "__main__":
    sys.exit(main())
