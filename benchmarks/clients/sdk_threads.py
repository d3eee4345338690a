"""RunPod's own Python SDK with threads, as its README has it: run, then output, which looks once a second."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.clients.task import Task, say, told

PATIENCE_S = 600


def main(task: Task) -> int:
    """Carry the batch to its end; how many jobs were lost on the way."""
    os.environ["RUNPOD_ENDPOINT_BASE_URL"] = task.base_url  # it is read on import
    import runpod

    runpod.api_key = "key"
    endpoint = runpod.Endpoint(task.endpoint)

    def one(given: dict[str, Any]) -> Any:
        if task.mode == "runsync":
            return endpoint.run_sync({"input": given}, timeout=PATIENCE_S)
        return endpoint.run({"input": given}).output(timeout=PATIENCE_S)

    lost = 0
    with (
        Path(task.rows).open() as rows,
        Path(task.results).open("w") as results,
        ThreadPoolExecutor(task.in_flight) as pool,
    ):
        for future in [pool.submit(one, json.loads(row)) for row in rows]:
            try:
                output = future.result()
            except Exception:  # noqa: BLE001 - whatever it raises, that job's result is lost
                lost += 1
            else:
                results.write(json.dumps({"output": output}) + "\n")
    return lost


if __name__ == "__main__":
    say(lost=main(told()))
