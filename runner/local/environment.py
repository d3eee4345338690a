"""Make the environment in which a worker runs: what RunPod gives it, and nothing that is secret."""

import os
import site
from collections.abc import Collection, Mapping

PING_INTERVAL_MS = 10_000


def protocol(*, endpoint_url: str, endpoint: str, worker_id: str, key: str) -> dict[str, str]:
    """
    The variables that a worker finds its server by.

    The worker itself puts its ids in place of ``$ID`` and ``$RUNPOD_POD_ID``, and appends ``&...``, so every URL needs
    its ``?``.

    Source: runpod 1.12.0 worker code (rp_job, rp_http, rp_ping, rp_fitness).
    """
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{endpoint_url}/job-take/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{endpoint_url}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{endpoint_url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_PING": f"{endpoint_url}/ping/$RUNPOD_POD_ID?gpu=LOCAL",
        "RUNPOD_PING_INTERVAL": str(PING_INTERVAL_MS),
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint,
        "RUNPOD_AI_API_KEY": key,
        # Without these the SDK refuses to start on machines with little memory or without internet.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


def inherited(hide: Collection[str], token: str) -> Mapping[str, str]:
    """
    Our own environment as a worker may see it.

    Left out are RunPod's key, the variables in *hide*, any that holds *token*, and what RunPod says to its own workers:
    we may be running in one.
    """
    hidden = {"RUNPOD_API_KEY", *hide}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and token not in value and not name.startswith(_OF_OTHERS)
    }
    # Packages of `pip install --user` are looked for below HOME, which a worker has of its own.
    return {"RUNPOD_DEBUG_LEVEL": "INFO", "PYTHONUSERBASE": site.getuserbase(), **kept}


_OF_OTHERS = ("RUNPOD_WEBHOOK_", "RUNPOD_POD_", "RUNPOD_REALTIME_", "RUNPOD_PING_")
