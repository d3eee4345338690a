"""Make the environment in which a worker runs: what RunPod gives it, and nothing that is secret."""

import os
from collections.abc import Collection, Mapping

from runner.local.processes import MARK

PING_INTERVAL_MS = 10_000


def worker_environment(
    *, endpoint_url: str, endpoint: str, worker_id: str, key: str, home: str, mark: str
) -> dict[str, str]:
    """
    The variables that a worker finds its server by.

    The worker itself puts its ids in place of ``$ID`` and ``$RUNPOD_POD_ID``, and appends ``&...``, so every URL needs
    its ``?``. HOME is private because the SDK prefers a key in ``~/.runpod/config.toml`` to the one given here.

    Source: runpod 1.12.0 worker code (rp_job, rp_http, rp_ping, rp_fitness).
    """
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{endpoint_url}/job-take/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{endpoint_url}/job-done/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{endpoint_url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=LOCAL",
        "RUNPOD_WEBHOOK_PING": f"{endpoint_url}/ping/$RUNPOD_POD_ID?gpu=LOCAL",
        "RUNPOD_PING_INTERVAL": str(PING_INTERVAL_MS),
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_POD_HOSTNAME": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint,
        "RUNPOD_AI_API_KEY": key,
        "RUNPOD_DEBUG_LEVEL": "INFO",
        # Without these the SDK refuses to start on machines with little memory or without internet.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "HOME": home,
        MARK: mark,
    }


def inherited(hide: Collection[str], token: str) -> Mapping[str, str]:
    """Our own environment without RunPod's key, the variables in *hide*, and any that holds *token*."""
    hidden = {"RUNPOD_API_KEY", *hide}
    return {name: value for name, value in os.environ.items() if name not in hidden and token not in value}
