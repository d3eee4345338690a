"""The docs and the README, tried as their readers do: every snippet runs, every link leads somewhere."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import opened
from snippets import matches, snippets
from terminal import ROOT

from runner import manual
from runner.cli import commands
from runner.local.fault_text import CONDITIONS, faults
from runner.local.faults import OPERATIONS, Kind, Order
from runner.states import RETRYABLE, Outcome, State, Verdict

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"


def anchors(page: Path) -> set[str]:
    """What a link to a section of *page* may name: GitHub and the site make it of the title in the same way."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_every_snippet_of_a_page_works(page: Path, tmp_path: Path) -> None:
    """In the order of the page, in one folder and one shell, printing what the page shows."""
    with opened(tmp_path) as tried:
        tried.read(page)


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_every_option_that_a_page_names_is_there(page: Path) -> None:
    """Also in the words, and in what can't be run here."""
    known = {name: {"--help", *(opt for one in told.params for opt in one.opts)} for name, told in commands().items()}
    text = re.sub(r"\s+", " ", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    blocks = "".join(one.text for one in snippets(page) if one.language in ("console", "sh", "bash"))
    written = re.findall(r"`(?:[\w./]+/)?runner ([^`]+)`", text)
    written += re.findall(r"^(?:\w*\$ )?(?:[\w./]+/|exec )?runner (.+)$", blocks.replace("\\\n", " "), re.MULTILINE)
    for words in written:
        name, *rest = words.partition("#")[0].split()
        if name.isupper() or name.startswith("-"):
            continue
        assert name in known, f"runner {words}"
        assert {one.partition("=")[0] for one in rest if one.startswith("--")} <= known[name], f"runner {words}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_no_code_is_where_nobody_tries_it(page: Path) -> None:
    """An indented block has no language, and a fence without one says nothing of what it is."""
    outside = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\n    [^\s*-].*$", outside, re.MULTILINE) == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Into the docs, to a section that is there: a page of the site can't lead out of them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        led = (page.parent / name).resolve() if name else page
        assert led.exists(), target
        assert page is README or led.is_relative_to(DOCS), f"{target}: the site has no such page"
        assert not anchor or anchor in anchors(led), target


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that nobody finds is not written."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w-]+\.md", nav)) == [page.name for page in PAGES]


@pytest.mark.skipif(find_spec("zensical") is None, reason="what makes the site is an extra: pip install '.[docs]'")
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """It opens offline, and tells nobody who reads what: no fonts, scripts or pictures of others."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    words = [sys.executable, "-m", "zensical", "build", "--strict"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    built = [path.read_text() for path in (tmp_path / "site").glob("*.html")]
    assert len(built) > len(PAGES)
    elsewhere = (
        r"<(?:script|img|iframe|source|video)[^>]*src=\"(?:https?:)?//[^>]*>|<link[^>]*href=\"(?:https?:)?//[^>]*>"
    )
    assert [found for page in built for found in re.findall(elsewhere, page)] == []


def test_the_page_of_faults_has_them_all() -> None:
    """Each in a table with an example that the server takes, and no other."""
    page = (DOCS / "faults.md").read_text()
    rows = [row.rsplit(" | ", 2) for row in re.findall(r"^\| (`.*`--fault .*) \|$", page, re.MULTILINE)]
    shown = [name for names, _, _ in rows for name in re.findall(r"`([^`]+)`", names.split(" | ")[0])]
    assert sorted(shown) == sorted([*Kind, *CONDITIONS])
    examples = re.findall(r"--fault ([^\s`]+)", page)
    assert {re.split("[=,]", one.rpartition(":")[2])[0] for one in examples} - {"FAULT"} <= {*shown}
    faults([one for one in examples if one != "FAULT"])
    assert set(OPERATIONS) <= set(re.findall(r"`([a-z-]+)`", page))
    assert set(Order) <= set(re.findall(r"`([a-z_]+)`", page))


def test_the_page_of_outcomes_has_them_all() -> None:
    """Who finds one in a report looks it up; what may be tried again is said as the code has it."""
    parts = re.split(r"^## ", (DOCS / "outcomes.md").read_text(), flags=re.MULTILINE)
    listed = {part.split("\n")[0]: re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in parts}
    assert listed["States"] == [*State]
    assert listed["Outcomes"] == [*Outcome]
    assert sorted(listed["Verdicts"]) == sorted(Verdict)
    again = re.findall(r"^\| `(\w+)` \| [^|]* \| yes \|", parts[2], re.MULTILINE)
    assert set(again) == RETRYABLE


def test_the_reference_of_the_commands_is_the_one_of_the_command_line() -> None:
    """A page that lags behind teaches mistakes. `make schema` mends it."""
    assert (DOCS / "commands.md").read_text() == manual.text()


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```console\n$ echo one\ntwo\n```", "$ echo one"),
        ("```console\n$ false\n```", "exit 1"),
        ("```console\n$ pip install runner\n```", "say that it is not run"),
        ("```sh\nif then\n```", "syntax error"),
        ("```python\nraise ValueError\n```", "ValueError"),
        ("```yaml\njobs: {a: {endpoint: x, input: {a: 1}, atempts: 3}}\n```", "unknown key 'atempts'"),
        ('```yaml title="job.yaml"\njobs: {}\n```', "no whole one"),
        ("<!-- not run: no account -->\n```python\nawait = 1\n```", "invalid syntax"),
        ("<!-- in the background -->\n```console\n$ echo one\ntwo\n```", "$ echo one"),
        ("```cobol\nSTOP RUN\n```", "nobody tries 'cobol'"),
        ("<!-- not run: no account -->\n\nMore words.", "not before a block"),
    ],
)
def test_a_page_that_promises_what_is_not_so_is_told(page: str, said: str, tmp_path: Path) -> None:
    """Or all of the above would hold for any page."""
    (tmp_path / "page.md").write_text(f"# A page\n\n{page}\n")
    with opened(tmp_path) as tried, pytest.raises((AssertionError, SyntaxError)) as told:
        tried.read(tmp_path / "page.md")
    assert said in str(told.value)
    assert "page.md" in str(told.value)


@pytest.mark.parametrize(
    ("shown", "got", "same"),
    [
        ("ran in 12ms\n", "ran in 7ms\n", True),
        ("a ... c\n", "a b c\n", True),
        ("...\nend\n", "a\nb\nend\n", True),
        ("...\n", "", True),
        ("a\n", "a\nb\n", False),
        ("2 runs\n", "3 runs\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_what_a_page_shows_is_what_is_printed(shown: str, got: str, same: bool) -> None:
    """But for times, batch ids, and what it marks as varying."""
    assert matches(shown, got) is same
