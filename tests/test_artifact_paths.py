"""Where an artifact may go."""

import pytest

from runner.artifact_paths import path_problem


@pytest.mark.parametrize(
    "path",
    [
        "a.png",
        "images/{{ run.index }}.png",
        "{{ row.folder }}/{{ run.key }}.png",
        "{{ run.index }}",
        "a..b/c...png",
        "bilder/größe {{ row.n }}.png",
        "{% if row.x %}a{% else %}b{% endif %}.png",
        "{{ '../' }}x",
        "C{{ row.drive }}.png",
    ],
)
def test_a_relative_path_is_fine_as_far_as_its_text_tells(path: str) -> None:
    """What a template puts into it is known when it is rendered, and checked again there."""
    assert path_problem(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/a.png",
        "\\a.png",
        "\\\\host\\share\\a.png",
        "C:\\a.png",
        "c:a.png",
        "~/a.png",
        "../a.png",
        "a/../../b.png",
        "a\\..\\b.png",
        "..",
        "a/..",
        "{{ row.x }}/../a.png",
        "a//b.png",
        "a/",
        "./a",
        ".",
        "a\x00b",
        "a\nb",
        "a\x1b[31m",
        "{{ row.x }}/\u202egnp.a",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_on_every_machine(path: str) -> None:
    """A batch that is copied to another system must not be able to write outside its folder there."""
    assert path_problem(path) is not None
