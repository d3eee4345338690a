"""What the figures were measured on."""

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("runpod-runner", "aiohttp", "uvloop", "orjson", "runpod")
SYNCS = 200


def facts(folder: Path, sdk: Path | None) -> Iterator[tuple[str, str]]:
    """Names and values, for people. *folder* is on the disk that batches are written to."""
    yield "processor", f"{_processor()}, {os.cpu_count()} cores"
    yield "system", f"{platform.system()} {platform.release()}"
    yield "Python", f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    yield "node", _node() if sdk is not None else "left out: node or npm is not there, or the registry was not reached"
    yield "one fdatasync", f"{sync_ms(folder):.2f} ms"
    yield "command", f"python -m benchmarks {' '.join(sys.argv[1:])}".strip()


def sync_ms(folder: Path) -> float:
    """How long the disk of *folder* takes to make 4 kB last."""
    path = folder / "sync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        began = time.monotonic()
        for _ in range(SYNCS):
            os.write(file, bytes(4096))
            os.fdatasync(file)
        return (time.monotonic() - began) / SYNCS * 1000
    finally:
        os.close(file)
        path.unlink()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _node() -> str:
    node = shutil.which("node")
    return "" if node is None else subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()


SDK = "runpod-sdk@1.1.2"
INSTALL_S = 180.0


def javascript(folder: Path) -> Path | None:
    """The folder with RunPod's JavaScript SDK, installed into *folder* once; None where it can't be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    if not (folder / "node_modules/runpod-sdk").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), SDK]
        try:
            subprocess.run(install, capture_output=True, check=True, timeout=INSTALL_S)
        except (OSError, subprocess.SubprocessError):
            return None
    return folder
