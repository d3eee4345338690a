"""How a batch is gone on with or repeated, and what exactly ran."""

from collections.abc import Iterable
from pathlib import Path
from shlex import join, quote

from runner.page.figures import Figures
from runner.page.html import Html, cut, tag
from runner.page.overview import section
from runner.page.said import RUNNING
from runner.page.tables import facts
from runner.values import JsonObject

COMMAND_BYTES = 2_000
FACT_BYTES = 600
INPUTS = 10


def commands(health: JsonObject, figures: Figures, folder: Path, *, in_shards: bool = False) -> Html:
    """What to type next. *in_shards*: of a batch that is divided, of which some commands take a part only."""
    lines = [
        tag("li", tag("span", what), tag("code", cut(command, COMMAND_BYTES)))
        for what, command in _commands(health, figures, quote(str(folder)), in_shards)
    ]
    return section("next", "What to do next", tag("ul", lines, class_="commands"))


def _commands(health: JsonObject, figures: Figures, folder: str, in_shards: bool) -> Iterable[tuple[str, str]]:
    totals = health["batch"]
    if health["verdict"] == RUNNING:
        yield "Watch it", f"runner {'status' if in_shards else 'watch'} {folder}"
        yield "End it for good", f"runner cancel {folder}"
    elif totals["pending"]:
        yield "Go on with it", f"runner resume {folder}"
    elif totals["succeeded"] < totals["runs"]:
        yield "Run again what did not succeed", f"runner resume {folder} --retry-failed"
    examples = [run for one in figures.failures for run in one.examples]
    if examples:
        yield "See all of one run", f"runner show {folder} {examples[0].key[:12]}"
        yield "Take out what failed", f"runner results {folder} --state failed --format csv --output failed.csv"
    elif totals["succeeded"]:
        yield "Take the results out", f"runner results {folder} --format csv --output results.csv"
    if not in_shards:
        yield "Run it again, as a new batch", f"runner run --repeat {folder}"


def provenance(health: JsonObject, manifest: JsonObject) -> Html:
    """What ran: enough to know it again."""
    totals, git = health["batch"], manifest["git"]
    commit = None
    if git is not None:
        commit = git["commit"] + (", with changes not committed" if git["dirty"] else "")
    inputs = [
        tag("div", f"{cut(one['path'], FACT_BYTES)}, sha256 ", tag("code", one["sha256"]))
        for one in manifest["inputs"][:INPUTS]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return section(
        "provenance",
        "What ran",
        facts(
            [
                ("Batch", totals["id"]),
                ("Started", totals["started_at"]),
                ("Ended", totals["ended_at"]),
                ("Job file", cut(manifest["job_file"]["path"], FACT_BYTES)),
                ("Its sha256", tag("code", manifest["job_file"]["sha256"])),
                ("Data", inputs or None),
                ("Commit", commit),
                ("Typed", tag("code", cut(join(manifest["argv"]), COMMAND_BYTES))),
                ("In", cut(manifest["working_directory"], FACT_BYTES)),
                ("Host", cut(manifest["host"], FACT_BYTES)),
                ("Versions", cut(versions, FACT_BYTES)),
            ]
        ),
    )
