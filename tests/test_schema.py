"""The JSON Schema that editors check with, and what `runner init` writes."""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_files import as_yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from terminal import ROOT, lines, runner

from runner import reference, spec
from runner.check import open_job_file
from runner.errors import JobFileError, Problem, RunnerError
from runner.layers import lay
from runner.load import Document, descend, load, locate
from runner.plan import make_plan
from runner.salvage import of_layers, validate
from runner.schema import schema, text
from runner.variants import check_all
from runner.wording import place

DATA = ROOT / "tests/data"
BAD = sorted(path.stem for path in (DATA / "bad").glob("*.yaml"))
GOOD = sorted([*(DATA / "good").glob("*.yaml"), *(ROOT / "jobs").glob("*.yaml")])
EXAMPLES = [
    example
    for page in ("README.md", "docs/job-file.md")
    for example in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]

Place = tuple[int, int]
"""A line and a column, from 1."""


@pytest.fixture(scope="module")
def editor() -> Draft202012Validator:
    """What an editor knows of job files."""
    return Draft202012Validator(schema())


def value(path: Path) -> Any:
    """The file's value as our loader reads it: `on` is text, and 0o17 a number."""
    return load(path).document.value


def test_the_schema_in_the_repository_is_the_one_of_the_models() -> None:
    """An editor that knows another grammar than the validator would teach mistakes. `make schema` mends it."""
    assert (ROOT / "schemas/job.schema.json").read_text() == text()


def test_the_reference_in_the_repository_is_the_one_of_the_models() -> None:
    """And so says what the schema says. `make schema` mends it."""
    assert (ROOT / "docs/job-file.md").read_text() == reference.text()


def test_every_link_of_the_reference_leads_to_a_section() -> None:
    """GitHub makes the anchors of the titles: small letters, no dots and commas, hyphens for spaces."""
    page = reference.text()
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}
    assert len(anchors) == len(titles)
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors


def test_the_schema_is_a_schema() -> None:
    """Of the draft that it declares."""
    assert schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema())


def parts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that the schema describes, with what it says of it."""
    found = schema()
    for name, part in {"": found, **found["$defs"]}.items():
        yield from ((f"{name}.{key}", described) for key, described in part.get("properties", {}).items())


def test_every_key_explains_itself() -> None:
    """Hover text is the documentation that people read."""
    definitions = schema()["$defs"]
    silent = [
        name
        for name, part in parts()
        if "description" not in definitions.get(part.get("$ref", "").rpartition("/")[2], part)
    ]
    assert silent == []


def test_defaults_and_examples_are_what_a_file_may_say() -> None:
    """An editor writes them into the file."""
    found = schema()
    for name, part in parts():
        checked = Draft202012Validator(part | {"$defs": found["$defs"]})
        for written in [*part.get("examples", []), *([part["default"]] if "default" in part else [])]:
            assert checked.is_valid(written), f"{name}: {written!r}"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_good_file_is_good_for_both(path: Path, editor: Draft202012Validator) -> None:
    """An editor that underlines what runs teaches people to look away."""
    open_job_file(path, env={})
    assert [error.message for error in editor.iter_errors(value(path))] == []


def all_values() -> dict[str, list[Any]]:
    """What the good files have, by the place in the grammar where they have it."""
    found: dict[str, list[Any]] = {}

    def walk(part: Any, loc: tuple[int | str, ...]) -> None:
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            found.setdefault(place((*loc, key)), []).append(inner)
            if not loc or place(loc) == "profiles.*":  # where a layer stands, besides what it is laid over
                found.setdefault(f"{place(loc)}.{key}".lstrip("."), []).append(inner)
            if isinstance(inner, dict | list):
                walk(inner, (*loc, key))

    for path in GOOD:
        walk(value(path), ())
    return found


ELSEWHERE = all_values()


def test_good_files_have_every_key() -> None:
    """What no file has is checked by neither."""
    models: list[tuple[str, type[spec.Spec]]] = [*spec.MODELS.items(), ("endpoints.*", spec.LocalEndpoint)]
    known = {f"{where}.{key}".lstrip(".") for where, model in models for key in spec.keys(model)}
    assert known - set(ELSEWHERE) == set()


def test_what_init_writes_is_good_for_both(tmp_path: Path, editor: Draft202012Validator) -> None:
    """Its first line names the schema, so the editor opens it with no mark."""
    assert runner("init", cwd=tmp_path).code == 0
    path = tmp_path / "first.yaml"
    open_job_file(path, env={})
    assert list(editor.iter_errors(value(path))) == []
    assert (tmp_path / "schemas/job.schema.json").read_text() == text()


@pytest.mark.parametrize("written", EXAMPLES, ids=lambda text: text.split(":")[0])
def test_an_example_of_a_page_is_good_for_both(written: str, tmp_path: Path, editor: Draft202012Validator) -> None:
    """People copy them. What an example leaves out is made up around it."""
    path = tmp_path / "job.yaml"
    path.write_text(written)
    example = value(path)
    jobs = [*example.get("jobs", {}).values(), example.get("defaults", {})]
    named = {job["endpoint"]: {"id": "x"} for job in jobs if "endpoint" in job}
    endpoints = named | example.get("endpoints", {}) or {"x": {"id": "x"}}
    filled = {"version": 1, "name": "x", "vars": {"style": "ink"}} | example | {"endpoints": endpoints}
    filled.setdefault("jobs", {"x": {"endpoint": next(iter(endpoints)), "input": {"x": 1}}})
    path.write_text(as_yaml(filled))
    for handler in re.findall(r"[\w/]+\.py(?=:handler)", written):
        (tmp_path / handler).parent.mkdir(exist_ok=True)
        (tmp_path / handler).write_text("def handler(job): ...\n")
    for job in filled["jobs"].values():
        file = job.get("rows", {}).get("file")
        if file is not None:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text("prompt,lang\na horse,en\n")
    make_plan(open_job_file(path, env={}))
    assert [error.message for error in editor.iter_errors(filled)] == []


ONLY_THE_VALIDATOR = [
    # YAML itself: a schema is given values, and never sees how they were written.
    *(r"^duplicate key", r"^a key must be text", r"starts with a zero$", r"^JSON has no number", r"^tag '"),
    *(r"^this number is too large$", r"^'<<' merges", r"^a template must be quoted"),
    # Templates and expressions are a language of their own.
    *(r"^unknown (name|filter|test) '", r" (has|have) no '", r"^the job has no (rows|matrix)$", r"is never closed$"),
    *(r"^not (a template|an expression)", r"^'\$\{\{' is not", r"is not available in a job file$"),
    *(r"is for 'input' only$", r"takes no argument$"),
    # One key speaks of another, or of all runs. A pattern can't compare, either: 7d and 168h are the same time.
    *(r"^unknown endpoint", r"needs to know what a second", r"^the matrix has no", r"^no combination is left"),
    *(r"^the file has no var", r"^these jobs wait", r"is in 'needs' already$", r"can't need itself$"),
    *(r"^unknown job '", r"^'when' (needs|sees|is neither)", r"^'needs' has no '", r"is for the 'input' of a job"),
    *(r"^all \d+ runs would write", r"goes to .* already$", r" is (below|above) '"),
    *(r"^RunPod's '(execution_timeout|ttl)' is", r"^looks are at (least|most)", r"^a duration is at most"),
    *(r"^all items of 'for' would", r"^an artifact is at most", r"^'retry_when' never acts", r"is not looked at where"),
    *(r"^cron takes a day", r"' never comes$"),
    *(r"^who may log in can't be part", r"^old batches are only removed from folders of this machine$"),
    *(r"can't be used in mode batch", r"is the batch_key, which", r"^batch_key needs an input"),
    # A schema within the schema, which may be of any draft.
    *(r"^this is no JSON Schema", r"in this schema$", r"' is not JSON$"),
    # Files on this machine, and where paths lead.
    r"^unknown time zone",
    *(r"^there is no folder", r"^the glob '.* leads out", r"^no file in '", r"' is a link "),
    *(r"folder: only files below",),
    *(r"^there is no file", r"^no file matches", r"is a folder$", r"defines no '", r"data file 'rows/notes.txt'$"),
    *(r"^an artifact's path", r"^a part of this path", r"^'\.+ *' is no part", r"can't be part of a path$"),
    *(r"^no program '", r"is not executable$", r"is for a shell", r"is no command"),
    *(r"is outside the job file's folder$", r"is a device on Windows", r"are taken by files in the making$"),
    # Rows, once they are read, and the environment.
    *(r"^the first run of job", r"^row \d+:"),
    *(r"is not a reference$", r"^environment variable", r"once its variables are there$"),
]
"""What a schema can't say, by the words of the message. All other problems it marks, at the same place."""


@pytest.mark.parametrize("name", BAD)
def test_of_a_bad_file_an_editor_marks_what_is_a_matter_of_form(
    name: str, monkeypatch: pytest.MonkeyPatch, editor: Draft202012Validator
) -> None:
    """And marks nothing that the validator lets pass. A problem of form is seen, or listed above, never both."""
    monkeypatch.chdir(DATA / "bad")
    path = Path(f"{name}.yaml")
    try:
        document = load(path).document
    except JobFileError:
        return  # no YAML that we read, or no mapping: there is no value to look at
    with pytest.raises(RunnerError) as raised:
        make_plan(open_job_file(path, env={}))
    assert isinstance(raised.value, JobFileError)
    problems = [one for one in raised.value.problems if one.file == str(path) and not one.warning]
    errors = list(editor.iter_errors(document.value))
    for problem in problems:
        message = re.sub(r" \(in jobs? '.*\)$", "", problem.message)  # those that share a default
        listed = any(re.search(words, message) for words in ONLY_THE_VALIDATOR)
        assert any(marks(document, error, problem) for error in errors) != listed, problem.message
    for error in errors:
        assert any(marks(document, error, problem) or covers(document, error, problem) for problem in problems)


def marks(document: Document, error: ValidationError, problem: Problem) -> bool:
    """Whether the editor's *error* is where the validator has its *problem*."""
    if any(marks(document, inner, problem) for inner in nearest(error)):
        return True
    at, path = (problem.line, problem.column), tuple(error.absolute_path)
    within = list(error.absolute_schema_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        return any(at in places(document, (*path, key), of_key=True) for key in keys(error) if key not in known)
    if "propertyNames" in within:
        return at in places(document, (*path, str(error.instance)))
    if "allOf" in within or error.validator == "not":  # keys that go, or don't go, together: one of them is named
        return at in places(document, path) or any(at in places(document, (*path, key)) for key in keys(error))
    return at in places(document, path)


def keys(error: ValidationError) -> list[str]:
    """The keys of what is wrong, where it is a mapping."""
    return list(error.instance) if isinstance(error.instance, dict) else []


def nearest(error: ValidationError) -> list[ValidationError]:
    """The errors of the alternative that is meant: an endpoint with a handler is local, and a number is not null."""
    alternatives: dict[object, list[ValidationError]] = {}
    for inner in error.context or ():
        alternatives.setdefault(inner.schema_path[0], []).append(inner)

    def strangeness(errors: list[ValidationError]) -> tuple[bool, bool, int]:
        whole = {inner.validator for inner in errors if not inner.path}
        return "type" in whole, bool(whole & {"required", "oneOf"}), len(errors)

    least = min(map(strangeness, alternatives.values()), default=None)
    return [inner for errors in alternatives.values() if strangeness(errors) == least for inner in errors]


def covers(document: Document, error: ValidationError, problem: Problem) -> bool:
    """Whether *problem* is inside the part that *error* speaks of: an artifact of a misspelled kind is of none."""
    node = descend(document.root, list(error.absolute_path))
    assert node is not None
    start, end = ((mark.line + 1, mark.column + 1) for mark in (node.start_mark, node.end_mark))
    return bool(error.absolute_path) and start <= (problem.line, problem.column) <= end


def places(document: Document, path: tuple[int | str, ...], *, of_key: bool = False) -> set[Place]:
    """Where the key at *path* stands, and where its value does."""
    marks = [locate(document.root, path, at_key=at_key) for at_key in ({True} if of_key else {True, False})]
    return {(mark.line + 1, mark.column + 1) for mark in marks} if descend(document.root, path) else set()


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 7, 1.5, 2.0, 10**20, "", "x", "-", "a.csv", "*.csv", "handlers/echo.py:handler"),
        *("10%", "0%", "100%", "101%", "5s", "0s", "0.0s", "366d", "1", " 1s ", "1 s\n", "٣s", "5/s", "0/s", "5/0s"),
        *("p95 < 3s", "< 1%", "< 1", "< 1.5", "< 0.5", "5 USD", "0 USD", "async", "fail", "timed_out", "jsonl"),
        *("${X}", "${X:-y}", "$${X}", "${{ x }}", "{{ x }}", "{{ output.a }}", "https://x.y", "http://x.y", "local"),
        *([], {}, [[]], [{}], [None], {"a": 1}, {"path": "a"}, {"path": "a", "text": None}, ["x"], [{"a": 1}]),
        *({"file": "-"}, {"id": "x"}, {"handler": "handlers/echo.py:handler"}, {"a": [1]}, {"a_key": 1}),
        {"endpoint": "local", "input": 1},
    ]
).map(copy.deepcopy)
MODELS: list[type[spec.Spec]] = [*spec.MODELS.values(), spec.LocalEndpoint, spec.Defaults]
KEYS = st.sampled_from([key for model in MODELS for key in [*spec.keys(model), "x", "", "a b", "é"]])

NO_SCHEMA_SAYS = r"^a duration is at most|^expected (a whole number|version 1), found \d+\.0"
"""What the models refuse and a schema can't: 2.0 is an integer to it."""


@settings(
    derandomize=True, max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_what_the_validator_takes_the_schema_takes(
    tmp_path: Path, editor: Draft202012Validator, data: st.DataObject
) -> None:
    """And what the models refuse the schema refuses: whatever a good file loses, gains or has in another place."""
    changed = value(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 3))):
        change(changed, data)
    for name in ("data", "handlers"):
        if not (tmp_path / name).exists():
            (tmp_path / name).symlink_to(DATA / "good" / name)
    path = tmp_path / "job.yaml"
    path.write_text(as_yaml(changed))
    marked = [error.message for error in editor.iter_errors(changed)]
    found = [*of_layers(changed), *validate(lay(changed).value)[0]]
    wrong = [one.message for one in found if not re.search(NO_SCHEMA_SAYS, one.message)]
    assert marked or not wrong
    try:
        checked = check_all(path, overrides={}, env={})
    except RunnerError:
        return
    assert marked == [] or not all(one.warning for one in checked.problems)


def change(part: Any, data: st.DataObject) -> None:
    """Change one place of a job file: leave something out, put it in, or put another file's in its place."""
    loc: tuple[int | str, ...] = ()
    for _ in range(data.draw(st.integers(0, 5))):
        step = data.draw(st.sampled_from(ways(part)))
        if not isinstance(part[step], dict | list) or not part[step]:
            break
        part, loc = part[step], (*loc, step)
    at, what = data.draw(st.sampled_from(ways(part))), data.draw(st.integers(0, 5))
    if what == 0 and len(part) > 1:
        del part[at]
    elif what == 1 and isinstance(part, dict):
        part[data.draw(KEYS)] = data.draw(WRONG)
    elif what == 2:
        part[at] = data.draw(WRONG)
    elif isinstance(part, dict) and (others := [name for name in ELSEWHERE if name.rpartition(".")[0] == place(loc)]):
        name = data.draw(st.sampled_from(others))
        key = at if name.endswith("*") else name.rpartition(".")[2]
        part[key] = copy.deepcopy(data.draw(st.sampled_from(ELSEWHERE[name])))


def ways(part: Any) -> list[Any]:
    """The keys or positions of a mapping or a list."""
    return list(part) if isinstance(part, dict) else list(range(len(part)))


def test_what_init_writes_runs_as_it_is(tmp_path: Path) -> None:
    """It is the first minute with the tool."""
    ran = runner("init", "project", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("next: runner run project/first.yaml\n")
    told = runner("validate", "project/first.yaml", cwd=tmp_path).out.splitlines()
    assert told[0] == "project/first.yaml: ok (1 job, 4 runs)"
    assert told[1].startswith("  begins every day at 02:00; next: ")
    assert len(told) == 2
    assert runner("run", "project/first.yaml", cwd=tmp_path).code == 0
    found = lines(tmp_path / "project/batches/first/latest/results.jsonl")
    assert sorted(one["output"]["words"] for one in found) == [5, 6, 10, 12]


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """The folder may hold somebody's work."""
    (tmp_path / "README.md").write_text("mine")
    ran = runner("init", cwd=tmp_path)
    assert (ran.code, ran.err) == (
        2,
        "error: . has README.md already, and init overwrites nothing\n  help: name an empty folder\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
