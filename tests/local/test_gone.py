import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from serving import TOKEN, eventually, is_alive, marked_processes, sample

SERVER = """
import asyncio, os, sys
import aiohttp
from runner.local.server import LocalServer, Served

async def main(handler, family, end):
    token = os.environ.pop("TOKEN")
    async with LocalServer([Served("ep", handler, 2)], token=token, grace_s=0.1) as server:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            url = f"{server.base_url}/ep/run"
            async with session.post(url, json={"input": family}) as response:
                await response.json()
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is left")
@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "SIGINT", "exit", "launchers too"])
async def test_nothing_is_left_when_the_server_is_gone(tmp_path: Path, end: str) -> None:
    """No worker, launcher, child, daemon or folder: people start this on shared machines and on their own."""
    family, homes = tmp_path / "family", tmp_path / "tmp"
    homes.mkdir()
    environment = {**os.environ, "TOKEN": TOKEN, "TMPDIR": str(homes), "RUN_MARK": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVER, sample("leaves_family"), str(family), end),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: family.exists() and family.read_text())
    pids = [int(text) for text in family.read_text().split()]
    assert process.stdin is not None
    assert all(map(is_alive, pids))
    # The server, two launchers, two workers, child and daemon.
    await eventually(lambda: len(marked_processes(f"RUN_MARK={tmp_path}")) >= 7)
    assert not any(TOKEN in Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)
    if end == "launchers too":
        # The worker dies with its launcher, the launcher's orphans by the server's hand; then the job is tried again.
        before = family.read_text()
        os.kill(pids[1], signal.SIGKILL)
        await eventually(lambda: not any(map(is_alive, pids)))
        await eventually(lambda: family.read_text() not in ("", before))
        process.kill()
    elif end == "exit":
        process.stdin.write(b"\n")
    else:
        process.send_signal(signal.Signals[end])
    process.stdin.close()
    await process.communicate()
    await eventually(lambda: not any(map(is_alive, pids)))
    await eventually(lambda: not marked_processes(f"RUN_MARK={tmp_path}"))
    await eventually(lambda: not list(homes.iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is left")
async def test_a_launcher_passes_on_how_its_command_ended(tmp_path: Path) -> None:
    """128 + n for signal n, 127 for a command that can't be started; and its folder is gone."""
    expected = {"exit 5": 5, "kill -9 $$": 137, "true": 0}
    for script, code in expected.items():
        assert await _launched(tmp_path, "sh", "-c", script) == code
    assert await _launched(tmp_path, str(tmp_path / "missing")) == 127


async def _launched(tmp_path: Path, *command: str) -> int | None:
    home = tmp_path / "home"
    home.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "runner.local.launcher", "0.1", str(home), *command),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    code = await process.wait()
    assert not home.exists()
    assert process.stdin is not None
    process.stdin.close()
    return code


async def test_a_launcher_ends_its_command_when_its_input_closes_or_it_is_told_to(tmp_path: Path) -> None:
    """The first is how it learns that the server is gone, the second how anybody else may end it."""
    for told in (False, True):
        home = tmp_path / f"home-{told}"
        home.mkdir()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "runner.local.launcher", "5", str(home), "sh", "-c", "echo up; sleep 600"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        if told:
            process.terminate()
        else:
            process.stdin.close()
        assert await process.wait() == 128 + signal.SIGTERM
        process.stdin.close()
