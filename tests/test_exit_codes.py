"""The table of exit codes: a script acts on it, so help, page and code say the same."""

import re

from terminal import ROOT, runner

from runner import errors, exit_codes


def test_every_exit_code_is_in_the_table_once() -> None:
    """One that is not documented can't be acted upon."""
    known = [value for name, value in vars(errors).items() if name.startswith("EXIT_")]
    assert [one.code for one in exit_codes.TABLE] == sorted(known)


def test_the_page_in_the_repository_is_made_of_the_table() -> None:
    """`make schema` mends it."""
    assert (ROOT / "docs/exit-codes.md").read_text() == exit_codes.page()


def test_the_readme_has_the_same_codes() -> None:
    """In fewer words."""
    found = re.findall(r"^\| ([\d, ]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    codes = [int(code) for row in found for code in row.split(",")]
    assert codes == [one.code for one in exit_codes.TABLE]


def test_help_says_what_to_do_next() -> None:
    """For who has only a terminal at three in the morning."""
    told = " ".join(runner("run", "--help", cwd=ROOT).out.split())
    for one in exit_codes.TABLE:
        assert f"{one.code} {one.short}: {one.then}" in told
    assert exit_codes.short() in " ".join(runner("--help", cwd=ROOT).out.split())


def test_no_cell_breaks_the_table() -> None:
    """A bar or a line break would."""
    assert all(not re.search(r"[|\n]", one.means + one.then) for one in exit_codes.TABLE)
