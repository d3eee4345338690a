"""``runner init``: a job file, a handler, the schema and a README that run as they are."""

import sys
from pathlib import Path
from typing import TextIO

from runner.errors import EXIT_PASS, UsageError
from runner.schema import text as schema_text

JOB_FILE = """\
# yaml-language-server: $schema=schemas/job.schema.json
version: 1
name: first
description: Count the words of each prompt, in two languages.
schedule: every day at 02:00 # for `runner schedule`; `runner run` begins at once
vars:
  greeting: hello
endpoints:
  local:
    handler: handlers/words.py:handler # embedded: runs on this machine, no account needed
    # Or the same file as the real worker that it is on RunPod, after `pip install runpod`, in place of `handler`:
    # command: python handlers/words.py
    workers: 2
  # On RunPod: the key is read from RUNPOD_API_KEY, and the jobs below say `endpoint: gpu`.
  # gpu:
  #   id: ${RUNPOD_ENDPOINT_ID}
  #   cost_per_second: 0.00031 # USD per worker second, for the estimate
jobs:
  count:
    endpoint: local
    rows:
      file: data/prompts.csv
      matrix: { repeat_text: [1, 2] }
    input:
      text: "{{ vars.greeting }} {{ row.prompt }}"
      times: "{{ matrix.repeat_text }}" # a lone template keeps its type: an integer
    policy: { execution_timeout: 1m }
    timeouts: { run: 5m }
    retry: { attempts: 2, outcomes: [timed_out, crashed, lost] }
"""

HANDLER = '''\
"""A RunPod style handler: one job in, its output back. It runs on RunPod unchanged."""


def handler(job):
    given = job["input"]
    words = (given["text"] + " ") * given["times"]
    return {"words": len(words.split())}


if __name__ == "__main__":  # on RunPod, or by `command: python handlers/words.py`
    import runpod

    runpod.serverless.start({"handler": handler})
'''

DATA = """\
prompt,lang
a horse in the fog,en
ein Pferd im Nebel,de
"""

README = """\
# first

    runner validate first.yaml    # every problem at once, with line, column and fix
    runner plan first.yaml        # how many runs, and the first payload; sends nothing
    runner run first.yaml         # results in batches/first/latest/

From cron, silent while all is well, and going on with what a reboot cut off. This prints the lines for `crontab -e`,
with all paths, at the time that `schedule` in the file says; `--systemd` and `--k8s` print units:

    runner schedule first.yaml --crontab

`first.yaml` names `schemas/job.schema.json` in its first line, so an editor with a YAML language server completes and
explains every key. `runner schema` prints it.
"""


def init(folder: Path, *, out: TextIO = sys.stdout) -> int:
    """
    Write the files of a first project into *folder*.

    Raises:
        UsageError: one of them is there already, or can't be written; nothing of it is overwritten.
    """
    files = {
        "first.yaml": JOB_FILE,
        "handlers/words.py": HANDLER,
        "data/prompts.csv": DATA,
        "schemas/job.schema.json": schema_text(),
        "README.md": README,
    }
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise UsageError(
            f"{folder} has {', '.join(there)} already, and init overwrites nothing", fix="name an empty folder"
        )
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror}", fix="name another folder") from None
    print(f"wrote {', '.join(files)}", file=out)
    print(f"next: runner run {folder / 'first.yaml'}", file=out)
    return EXIT_PASS
