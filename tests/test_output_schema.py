"""Outputs held against a JSON Schema: what is said of them, and what neither a schema nor an output can bring about."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from job_files import opened
from scripted import ScriptedRunPod

from runner.errors import JobFileError
from runner.output_schema import MOST_CHARACTERS, SchemaProblem, compile_schema, read
from runner.recorded import recorded

IMAGES = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {
        "images": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/image"}},
        "mode": {"enum": ["fast", "good"]},
        "version": {"const": 2},
        "tag": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "any": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        "weird key": {"type": ["integer", "null"]},
        "one": {"oneOf": [{"minLength": 2, "type": "string"}, {"minLength": 3, "type": "string"}]},
        "no": False,
        "odd": {"not": {"const": 0}},
        "above": {"exclusiveMinimum": 1},
        "same": {"uniqueItems": True},
    },
    "$defs": {"image": {"type": "object", "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}}}},
}
FITS = {
    "images": [{"score": 0.5}, {"score": 1}],
    "mode": "good",
    "version": 2,
    "tag": "abc",
    "any": 1,
    "weird key": None,
}


def misfit(schema: dict[str, Any], output: object) -> str | None:
    return compile_schema(schema)(output)


def test_an_output_that_fits_has_nothing_said_of_it() -> None:
    """Nor one that a schema says nothing about."""
    assert misfit(IMAGES, FITS) is None
    assert misfit({}, None) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": []}, "output.images: expected at least 1 entry, found 0"),
        ({"images": [{}] * 4}, "output.images: expected at most 3 entries, found 4"),
        ({"images": [{}, {"score": "high"}]}, "output.images[1].score: expected a number, found 'high'"),
        ({"images": [{"score": -0.5}]}, "output.images[0].score: expected at least 0, found -0.5"),
        ({"images": [{"score": 2}]}, "output.images[0].score: expected at most 1, found 2"),
        ({"images": {"a": 1}}, "output.images: expected a list, found a mapping"),
        ({"mode": "slow"}, "output.mode: expected one of 'fast', 'good', found 'slow'"),
        ({"version": 3}, "output.version: expected 2, found 3"),
        ({"tag": "a"}, "output.tag: expected at least 2 characters, found 1"),
        ({"tag": "abcde"}, "output.tag: expected at most 4 characters, found 5"),
        ({"tag": "ab1"}, "output.tag: expected a text like '^[a-z]+$', found 'ab1'"),
        ({"any": "x"}, "output.any: none of the alternatives in 'anyOf' fits 'x'"),
        ({"weird key": True}, "output['weird key']: expected null or a whole number, found true"),
        ({"more": 1, "most": 2}, "output: unexpected key 'more'"),
        ({"one": 3}, "output.one: none of the alternatives in 'oneOf' fits 3"),
        ({"one": "xxx"}, "output.one: more than one of the alternatives in 'oneOf' fits 'xxx'"),
        ({"no": 1}, "output.no: nothing may be here, found 1"),
        ({"odd": 0}, "output.odd: 0 is what 'not' forbids"),
        ({"above": 1}, "output.above: expected more than 1, found 1"),
        ({"same": [1, 1]}, "output.same: it has non-unique elements"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_said_with_its_place(changed: dict[str, Any], said: str) -> None:
    """It ends up in results.jsonl and in the summary, and is all that there is to go by."""
    assert misfit(IMAGES, FITS | changed) == said


def test_a_key_that_is_missing_is_named() -> None:
    """At the place where it should be."""
    assert misfit(IMAGES, {"mode": "good"}) == "output: there is no 'images'"


@pytest.mark.parametrize(
    "output",
    [
        pytest.param({"images": "x" * 5_000_000}, id="a long text"),
        pytest.param({"images": [["y" * 5_000_000]]}, id="a long list"),
        pytest.param({"k" * 5_000_000: 1, "images": [{}]}, id="a long key"),
        pytest.param({"images": [{}], **{f"k{n}": 1 for n in range(300_000)}}, id="many keys"),
        pytest.param({"images": [{"score": 10**5000}]}, id="a long number"),
        pytest.param({"images": [{}], "mode": ["m" * 5_000_000]}, id="a long value where there are few"),
        pytest.param({"images": [{}], "any": ["m" * 5_000_000]}, id="a long value that fits no alternative"),
    ],
)
def test_what_is_said_stays_short_and_says_nothing_of_megabytes(output: object) -> None:
    """An error is a line, whatever a worker gives."""
    said = misfit(IMAGES, output)
    assert said is not None
    assert len(said) <= MOST_CHARACTERS
    assert "yyyy" not in said


def test_a_place_that_an_output_makes_long_is_cut() -> None:
    """Keys are a worker's, too."""
    said = misfit({"additionalProperties": {"type": "integer"}}, {"k" * 1_000_000: "x"})
    assert said is not None
    assert len(said) == MOST_CHARACTERS


@pytest.mark.parametrize(
    ("schema", "output"),
    [
        pytest.param({"type": "integer"}, 10**400, id="a huge number"),
        pytest.param({"type": "string"}, "\ud800", id="a lone surrogate"),
        pytest.param({"items": {"$ref": "#"}}, "deep", id="a deep output in a schema that speaks of itself"),
    ],
)
def test_odd_outputs_fit_or_not_and_break_nothing(schema: dict[str, Any], output: object) -> None:
    """JSON has more than a library may think of."""
    if output == "deep":
        for _ in range(201):  # as deep as an answer may be, in the list of a stream
            output = [output]
    assert isinstance(misfit(schema, output), str | None)


def test_no_output_can_make_a_pattern_run_for_long() -> None:
    """With most engines this takes longer than the universe is old."""
    check = compile_schema({"items": {"pattern": "^(a+)+$"}})
    began = time.process_time()
    assert check(["a" * 5_000 + "!"] * 200) is not None
    assert check(["a" * 5_000] * 200) is None
    assert time.process_time() - began < 5


async def test_nothing_is_fetched_that_a_schema_refers_to() -> None:
    """Reading a job file asks nobody anything, and a batch is judged by what stands there."""
    async with ScriptedRunPod() as server:
        for reference in (
            f"{server.url}/schema.json",
            "https://example.com/schema.json",
            "file:///etc/passwd",
            "other.json",
        ):
            with pytest.raises(SchemaProblem) as caught:
                compile_schema({"properties": {"a": {"$ref": reference}}})
            assert caught.value.fix == "nothing is fetched: put what it names under '$defs', and write '#/$defs/…'"
            assert caught.value.path == ("properties", "a", "$ref")
        assert server.requests == []
    assert misfit({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": 3}) is not None


REGEX = "a regular expression without look-around and back-references"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        pytest.param({"pattern": "("}, f"this is no JSON Schema: expected {REGEX}, found '('", id="no pattern"),
        pytest.param(
            {"pattern": "(?=a)b"}, f"this is no JSON Schema: expected {REGEX}, found '(?=a)b'", id="look-around"
        ),
        pytest.param({"$ref": "#/$defs/no"}, "there is no '/$defs/no' in this schema", id="a reference to nothing"),
        pytest.param(
            {"$schema": "https://example.com/mine"},
            "this dialect of JSON Schema is not known: 'https://example.com/mine'",
            id="a dialect of one's own",
        ),
        pytest.param({"type": "strin"}, "this is no JSON Schema: unknown type 'strin'", id="an unknown type"),
        pytest.param({"minItems": -1}, "this is no JSON Schema: expected at least 0, found -1", id="an odd bound"),
        pytest.param({"required": "a"}, "this is no JSON Schema: expected a list, found 'a'", id="no list"),
    ],
)
def test_what_is_no_schema_is_said_before_anything_is_sent(schema: dict[str, Any], message: str) -> None:
    """Found on the thousandth run, it would have cost a thousand."""
    with pytest.raises(SchemaProblem) as caught:
        compile_schema(schema)
    assert caught.value.message == message
    assert caught.value.path == tuple(schema)


def test_a_schema_may_be_a_file(tmp_path: Path) -> None:
    """It is shared with the worker's code; the batch keeps it whole, for the file may change or go."""
    (tmp_path / "schemas").mkdir()
    path = tmp_path / "schemas/output.json"
    path.write_text('{"type": "integer"}')
    job_file = opened(tmp_path, {"output_schema": "schemas/output.json"})
    path.unlink()
    spec = job_file.spec.model_dump(mode="json", by_alias=True)
    assert spec["jobs"]["only"]["output_schema"] == {"type": "integer"}
    manifest = {"job_file": {"path": str(job_file.path), "sha256": job_file.sha256}, "spec": spec, "vars": {}}
    for file in (job_file, recorded(manifest | {"overrides": {"vars": {}}})):
        fits = file.templates["only"].fits
        assert fits is not None
        assert (fits(3), fits("3")) == (None, "output: expected a whole number, found '3'")


def test_a_file_that_can_t_be_a_schema_is_named(tmp_path: Path) -> None:
    """With what is wrong with it, and where inside it."""
    (tmp_path / "bad.json").write_text('{"properties": {"n": {"type": "strin"}}}')
    with pytest.raises(JobFileError) as caught:
        opened(tmp_path, {"output_schema": "bad.json"})
    (problem,) = caught.value.problems
    assert problem.message.startswith("'bad.json'/properties/n/type: this is no JSON Schema: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.json", "there is no file 'nowhere.json'"),
        ("../outside.json", "'../outside.json' is outside the job file's folder"),
        ("/etc/passwd", "'/etc/passwd' is outside the job file's folder"),
        ("link.json", "'link.json' is outside the job file's folder"),
        ("folder", "'folder' is a folder"),
        ("pipe", "'pipe' is no regular file"),
        ("text.json", "'text.json' is not JSON"),
        ("deep.json", "'deep.json' is not JSON"),
        ("list.json", "'list.json' is no JSON Schema: expected a mapping, found a list"),
        ("huge.json", "'huge.json' has more than 1.0 MiB, the most that a schema may have"),
        ("a\0b", "'a\0b' can't be read: embedded null byte"),
        ("circle", "'circle' can't be read: "),
    ],
)
def test_a_file_is_read_from_below_the_job_file_only(tmp_path: Path, name: str, message: str) -> None:
    """A job file from somewhere else must not show what is on this machine."""
    base = tmp_path / "base"
    (base / "folder").mkdir(parents=True)
    (tmp_path / "outside.json").write_text("{}")
    (base / "link.json").symlink_to(tmp_path / "outside.json")
    (base / "circle").symlink_to(base / "circle")
    os.mkfifo(base / "pipe")
    for file, text in {"text": "no", "list": "[]", "deep": "[" * 100_000, "huge": " " * 1_100_000}.items():
        (base / f"{file}.json").write_text(text)
    with pytest.raises(SchemaProblem) as caught:
        read(name, base)
    assert caught.value.message.startswith(message)


def test_without_its_library_a_schema_is_a_problem_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra, and most job files have no schema."""
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    opened(tmp_path, {})
    with pytest.raises(JobFileError) as caught:
        opened(tmp_path, {"output_schema": {}})
    (problem,) = caught.value.problems
    assert (problem.message, problem.fix) == (
        "'output_schema' needs the library jsonschema-rs, which is not installed",
        "pip install 'runpod-runner[schema]'",
    )
