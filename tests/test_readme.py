"""What the README names is there; its snippets are tried by `test_docs.py`."""

import re
from pathlib import Path

import pytest
from terminal import ROOT, runner

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"runner (\w+) ", README)) - {"for"}))
def test_every_command_it_names_is_there(command: str, tmp_path: Path) -> None:
    """A README that promises too much costs its reader an evening."""
    assert runner(command, "--help", cwd=tmp_path).code == 0


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_every_make_target_it_names_is_there(target: str) -> None:
    """They are the first lines that anybody types."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
