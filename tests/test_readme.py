"""The README's examples, run as a newcomer would."""

import re
from pathlib import Path

import pytest
from terminal import ROOT, lines, runner, write

README = (ROOT / "README.md").read_text()


def block(language: str, beginning: str) -> str:
    """The fenced block in *language* that begins with *beginning*."""
    (found,) = [
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if text.startswith(beginning)
    ]
    return str(found)


def test_the_first_job_file_of_ones_own_runs(tmp_path: Path) -> None:
    """Who copies it must see it work."""
    write(tmp_path, {"echo.yaml": block("yaml", "version: 1"), "echo.py": block("python", "def handler")})
    assert runner("validate", "echo.yaml", cwd=tmp_path).out == "echo.yaml: ok (1 job, 2 runs)\n"
    assert runner("plan", "echo.yaml", cwd=tmp_path).code == 0
    assert runner("run", "echo.yaml", cwd=tmp_path).code == 0
    assert {one["output"] for one in lines(tmp_path / "batches/echo/latest/results.jsonl")} == {
        "HELLO, ADA!",
        "HELLO, GRACE!",
    }


def test_what_a_job_can_say_is_what_it_can_say(tmp_path: Path) -> None:
    """Every key shown is one that works."""
    whole = "version: 1\nname: photos\nvars: {style: ink}\n" + block("yaml", "endpoints:") + block("yaml", "jobs:")
    write(tmp_path, {"photos.yaml": whole, "data/prompts.csv": "prompt,lang\na horse,en\nein Pferd,de\n"})
    env = {"SDXL_ENDPOINT_ID": "abc", "RUNPOD_API_KEY": "key-of-nobody", "HOOK_URL": "https://example.com/hook"}
    ran = runner("validate", "--strict", "photos.yaml", cwd=tmp_path, env=env)
    assert (ran.code, ran.out, ran.err) == (0, "photos.yaml: ok (1 job, 3 runs)\n", "")


@pytest.mark.parametrize("command", sorted(set(re.findall(r"runner (\w+) ", README)) - {"for"}))
def test_every_command_it_names_is_there(command: str, tmp_path: Path) -> None:
    """A README that promises too much costs its reader an evening."""
    assert runner(command, "--help", cwd=tmp_path).code == 0


@pytest.mark.parametrize("target", re.findall(r"^    make (\w+)", README, re.MULTILINE))
def test_every_make_target_it_names_is_there(target: str) -> None:
    """They are the first two lines that anybody types."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
