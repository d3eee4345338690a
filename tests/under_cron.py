"""
Let Debian's cron start two job files: one that is well, one that is not; and look at what it mails. For `make cron`.

It needs root, Debian's package `cron`, no cron that runs and no program that sends real mail: a container, in short.
All that it changes outside of its own folder is the crontab of root, where there was none, and /usr/sbin/sendmail,
likewise; both are removed in the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terminal import processes_with, write

SENDMAIL = Path("/usr/sbin/sendmail")
LONGEST_S = 150.0
"""Cron looks once a minute; a batch takes a few seconds."""

HANDLER = """\
def handler(job):
    print("what a handler says is in the log")
    if job["input"]["text"] == "bad":
        raise ValueError("no horse")
    return job["input"]["text"]
"""
JOB_FILE = """\
version: 1
name: NAME
schedule: {cron: "* * * * *"}
vars: {text: "${TEXT}"}
endpoints: {local: {handler: "handler.py:handler"}}
jobs: {job: {endpoint: local, input: {text: "{{ vars.text }}"}, timeouts: {job: 30s}}}
outputs: {keep: {succeeded: 3, failed: 3}}
"""
STUB = """\
#!/bin/sh
# Stands in for a mail server while `make cron` runs.
cat > MAILS/.new.$$ && mv MAILS/.new.$$ MAILS/$$.txt
"""


def refusal() -> str | None:
    """Why it can't be tried here; None where it can."""
    if os.geteuid() != 0:
        return "cron is started by root: try it in a container, as root"
    if shutil.which("cron") is None or shutil.which("crontab") is None:
        return "there is no cron: apt-get install cron"
    if SENDMAIL.exists():
        return f"{SENDMAIL} is there, and would send real mail: try it in a container"
    if subprocess.run(["crontab", "-l"], capture_output=True, check=False).returncode == 0:
        return "root has a crontab, which would be lost: try it in a container"
    if any((path / "comm").read_text().strip() == "cron" for path in Path("/proc").glob("[0-9]*") if path.exists()):
        return "a cron is running already: try it in a container"
    return None


@contextmanager
def cron(crontab: Path, mails: Path) -> Iterator[None]:
    """Let cron run with *crontab* while the block does; mails are files in *mails*."""
    SENDMAIL.write_text(STUB.replace("MAILS", str(mails)))
    SENDMAIL.chmod(0o755)
    try:
        subprocess.run(["crontab", str(crontab)], check=True)
        try:
            process = subprocess.Popen(["cron", "-f"])
            try:
                yield
            finally:
                process.terminate()
                process.wait()
        finally:
            subprocess.run(["crontab", "-r"], check=True)
    finally:
        SENDMAIL.unlink()


def printed(folder: Path, name: str) -> str:
    """The lines that ``runner schedule`` prints for the job file *name*."""
    words = ["runner", "schedule", f"{name}.yaml", "--crontab", "--mail-to", "you@example.com"]
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def is_over(folder: Path, mails: Path) -> bool:
    """Whether both batches have ended, nothing of them runs, and there is a mail."""
    ended = [list(folder.glob(f"batches/{name}/*Z-*/health.json")) for name in ("good", "bad")]
    return all(ended) and bool(list(mails.glob("*.txt"))) and not processes_with(f"{folder}/good.yaml")


def tried(folder: Path) -> list[str]:
    """What is wrong with what cron mailed; nothing, where all is well."""
    mails = folder / "mails"
    mails.mkdir()
    write(folder, {"handler.py": HANDLER})
    for name in ("good", "bad"):
        write(folder, {f"{name}.yaml": JOB_FILE.replace("NAME", name), f"{name}.env": f"TEXT={name}\n"})
    crontab = folder / "crontab"
    crontab.write_text("".join(printed(folder, name) for name in ("good", "bad")))
    print(crontab.read_text())
    give_up = time.monotonic() + LONGEST_S
    with cron(crontab, mails):
        print("waiting for cron's next minute", flush=True)
        while not is_over(folder, mails) and time.monotonic() < give_up:
            time.sleep(0.2)
    found = [path.read_text() for path in mails.glob("*.txt")]
    for mail in found:
        print("--- a mail", mail, "---", sep="\n")
    batches = {name: len(list(folder.glob(f"batches/{name}/*Z-*/health.json"))) for name in ("good", "bad")}
    print(f"batches: {batches}; mails: {len(found)}")
    wrong = [f"no batch of {name}.yaml ended" for name, count in batches.items() if not count]
    wrong += ["no mail of the bad one"] if not found else []
    for mail in found:
        subject = next((line for line in mail.splitlines() if line.startswith("Subject: ")), "")
        body = mail.partition("\n\n")[2].splitlines()
        if f"{folder}/bad.yaml" not in subject:
            wrong.append(f"a mail of something else: {subject}")
        elif not body or not body[0].startswith("fail: bad ") or len(body) > 10 or "\x1b" in mail:
            wrong.append("the mail is not what a person wants to read")
    return wrong


def main() -> int:
    """Try it, and say what came of it."""
    if (why := refusal()) is not None:
        print(f"not tried: {why}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="runner-cron-") as folder:
        wrong = tried(Path(folder))
    for one in wrong:
        print(f"wrong: {one}", file=sys.stderr)
    print("not as it should be" if wrong else "as it should be: nothing said of the good one, one mail of each bad one")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
