"""JUnit XML of a batch: what CI shows of it, whatever foreign text is in it."""

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from happened import a_run, an_ending, carried, error, skipped
from made_batches import Shape, made
from old_batches import a_batch
from terminal import runner, write

from runner import junit, report
from runner.batch import Folder
from runner.events import Event
from runner.ledger import Ledger
from runner.states import Outcome, Verdict
from runner.values import MISSING, JsonObject, dump

ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
    "system-out": set(),
}
"""The elements that the schema of Jenkins' xUnit plugin knows, with those of its attributes that we use."""

INSIDE = {
    "testsuites": ["testsuite"],
    "testsuite": ["testcase", "system-out"],
    "testcase": ["failure", "error", "skipped"],
}
"""What may be in each, in this order."""


def read(document: bytes) -> Element:
    """The root of *document*, which fits the schema as far as it goes."""
    root = ElementTree.fromstring(document)
    for element in root.iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
        places = [INSIDE.get(element.tag, []).index(child.tag) for child in element]
        assert places == sorted(places)
        for name in {"tests", "failures", "errors", "skipped"} & element.attrib.keys():
            assert element.attrib[name].isdecimal()
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    return root


def folded(folder: Folder, spec: JsonObject | None = None) -> bytes:
    """The document of the batch in *folder*."""
    manifest = folder.read_manifest()
    if "spec" not in manifest:
        jobs = {job: {"endpoint": "sdxl"} for job in manifest["plan"]}
        manifest["spec"] = {"jobs": jobs, "endpoints": {"sdxl": {}}, **(spec or {})}
        folder.manifest.write_bytes(dump(manifest))
    with Ledger.read_only(folder.ledger) as ledger:
        return junit.document(ledger, report.fold(ledger, report.told(ledger, folder)))


def failed(key: str, index: int, message: str, outcome: Outcome = Outcome.FAILED) -> list[Event]:
    """What happens to a run that does not succeed."""
    return carried(a_run(key, index=index), an_ending(outcome, output=MISSING, error=error(message)))


def test_each_run_is_a_case_and_the_verdict_is_one(tmp_path: Path) -> None:
    """In words that CI has colours for."""
    events = [
        *carried(a_run("aaaa1"), an_ending(execution_time_ms=539)),
        *failed("aaaa2", 1, "no horse\nat all"),
        *failed("aaaa3", 2, "it was cancelled", Outcome.CANCELLED),
        skipped(a_run("aaaa4", index=3)),
    ]
    folder = a_batch(tmp_path, events, planned={"photos": 6}, verdict=Verdict.FAIL)
    root = read(folded(folder, {"thresholds": {"failed": "< 1%"}}))
    assert root.attrib == {
        "name": f"horses {folder.id}",
        "tests": "7",
        "failures": "3",
        "errors": "2",
        "time": "0.539",
    }
    assert [(suite.attrib["name"], suite.attrib["tests"], suite.attrib["skipped"]) for suite in root] == [
        ("horses", "2", "0"),
        ("horses.photos", "5", "1"),
    ]
    assert {suite.attrib["timestamp"] for suite in root} == {"2027-01-15T08:00:00"}
    shown = {case.attrib["name"]: [(why.tag, why.attrib["message"]) for why in case] for case in root.iter("testcase")}
    assert shown == {
        "verdict": [("failure", "fail")],
        "failed < 1%": [("failure", "failed < 1%: 17%")],
        "0 aaaa1": [],
        "1 aaaa2": [("failure", "no horse")],
        "2 aaaa3": [("error", "it was cancelled")],
        "3 aaaa4": [("skipped", shown["3 aaaa4"][0][1])],
        "pending": [("error", "2 runs are pending")],
    }
    (failure,) = root.findall(".//testcase[@name='1 aaaa2']/failure")
    assert (failure.attrib["type"], failure.text) == ("failed", "worker w1\nno horse\nat all")


@pytest.mark.parametrize(
    "hostile",
    [
        ']]></failure></testcase><testcase name="all is well"/>',
        '"><!-- & &amp; <![CDATA[ <?php ?>',
        "".join(map(chr, range(32))) + "\x7f\x85\ufffe\uffff\U0001f40e",
        "\n\n\r\n\t",
    ],
    ids=["markup", "entities", "control characters", "white space"],
)
def test_hostile_errors_stay_text(tmp_path: Path, hostile: str) -> None:
    """What a handler raises is foreign, and a file that no parser takes hides every other failure."""
    folder = a_batch(tmp_path, failed("aaaa1", 0, f"x{hostile}"), planned={"photos": 1}, verdict=Verdict.FAIL)
    root = read(folded(folder))
    assert [case.attrib["name"] for case in root.iter("testcase")] == ["verdict", "0 aaaa1"]
    (failure,) = root.findall("testsuite[2]/testcase/failure")
    allowed = re.sub("[^\t\n\r\x20-\ufffd\U00010000-\U0010ffff]", "\ufffd", hostile)
    assert failure.text == f"worker w1\nx{allowed}"


def test_of_a_large_batch_only_what_failed_is_a_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts are of all runs all the same."""
    folder = made(tmp_path, Shape(runs=100, pictures=0, failing=0.2))
    everything = read(folded(folder))
    monkeypatch.setattr(junit, "MOST_CASES", 3)
    root = read(folded(folder))
    for word in ("tests", "failures", "errors"):
        assert root.attrib[word] == everything.attrib[word]
    assert int(root.attrib["failures"]) > 8
    for suite in root.findall("testsuite")[1:]:
        cases = suite.findall("testcase")
        assert len(cases) <= 3
        assert all(len(case) for case in cases)
        left = int(suite.attrib["tests"]) - len(cases)
        assert suite.findtext("system-out") == f"{left} more runs are counted here, and in results.jsonl one by one"


def test_an_endless_error_is_cut(tmp_path: Path) -> None:
    """A handler that prints its image into the exception makes no CI artifact of a gigabyte."""
    folder = a_batch(tmp_path, failed("aaaa1", 0, "x" * 1_000_000), verdict=Verdict.FAIL)
    assert len(folded(folder)) < 12_000


def test_a_batch_leaves_the_files_that_its_job_file_asks_for(tmp_path: Path) -> None:
    """CI and node_exporter find them where they are told to look, whatever the batch came to."""
    write(
        tmp_path,
        {
            "handler.py": "def handler(job):\n    raise ValueError('no <horse>')\n",
            "job.yaml": "version: 1\nname: horses\nendpoints: {local: {handler: 'handler.py:handler'}}\n"
            "jobs: {photos: {endpoint: local, input: {x: 1}}}\noutputs: {reports: [junit, prometheus]}\n",
        },
    )
    metrics = tmp_path / "node" / "horses.prom"
    metrics.parent.mkdir()
    ran = runner("run", "job.yaml", "--quiet", "--prometheus", metrics, cwd=tmp_path)
    assert ran.code == 1
    folder = (tmp_path / "batches/horses/latest").resolve()
    root = read((folder / "junit.xml").read_bytes())
    assert [why.attrib["message"] for why in root.iter("failure")] == ["fail", "no <horse>"]
    assert 'runner_runs{batch="horses",job_name="photos",state="failed"} 1\n' in (folder / "runner.prom").read_text()
    assert metrics.read_text() == (folder / "runner.prom").read_text()
    assert [path.name for path in metrics.parent.iterdir()] == ["horses.prom"]
    again = runner("report", folder, "--format", "junit", cwd=tmp_path)
    assert (again.code, again.out, again.err) == (0, (folder / "junit.xml").read_text(), "")
    told = runner("report", folder, "--format", "prometheus", "--output", tmp_path / "x.prom", cwd=tmp_path)
    assert (told.code, told.out, (tmp_path / "x.prom").read_text()) == (0, "", metrics.read_text())


def test_metrics_that_can_not_be_written_are_said_and_change_nothing_else(tmp_path: Path) -> None:
    """The batch has passed, and cron's mail says what to mend."""
    write(
        tmp_path,
        {
            "handler.py": "def handler(job):\n    return 1\n",
            "job.yaml": "version: 1\nname: horses\nendpoints: {local: {handler: 'handler.py:handler'}}\n"
            "jobs: {photos: {endpoint: local, input: {x: 1}}}\n",
        },
    )
    ran = runner("run", "job.yaml", "--quiet", "--prometheus", "gone/x.prom", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == (
        f"error: {tmp_path}/gone/x.prom can't be written: No such file or directory\n"
        "  help: see that its folder is there and has room, or name another file with --output\n"
    )
    ran = runner("run", "job.yaml", "--prometheus", "x.txt", cwd=tmp_path)
    assert (ran.code, ran.err) == (
        2,
        "error: --prometheus x.txt: node_exporter reads files whose names end in .prom\n"
        "  help: write --prometheus x.prom\n",
    )
