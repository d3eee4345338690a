"""Put the page together: one document that asks for nothing from anywhere."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from runner.batch import Folder
from runner.durable import write_whole
from runner.ledger import Ledger
from runner.page import charts, details, overview, pictures, repeat
from runner.page.figures import Figures, fold, left_s
from runner.page.html import Html, cut, dot, join, tag, trusted
from runner.page.said import RUNNING
from runner.values import JsonObject

ICONS = {"pass": "1f7a4d", "fail": "d0524a", "stopped": "d0524a", "refused": "d0524a", RUNNING: "3470c4"}
"""Colours of the dot that a browser shows beside the title; the others are amber."""


def render(
    ledger: Ledger,
    folder: Folder,
    health: JsonObject,
    *,
    now: float,
    there: str = "",
    live: bool = False,
    manifest: JsonObject | None = None,
) -> bytes:
    """
    The page of the batch in *folder*, of which *health* is the report, as UTF-8.

    Args:
        now: Seconds since the epoch: until when a running batch is shown.
        there: Where the batch folder is, seen from the page; empty for the folder itself.
        live: Whether the page is served, and reads itself anew while the batch runs.
        manifest: What the batch ran; None: as the folder's manifest says.

    Raises:
        UsageError: the manifest can't be read.
        RecordError: the ledger can't be read.
    """
    manifest = folder.read_manifest() if manifest is None else manifest
    figures = fold(ledger, folder, health, now=now)
    body = _body(health, manifest, figures, folder.path, there, now)
    return _document(health, body, live=live)


def write(ledger: Ledger, folder: Folder, health: JsonObject, *, now: float) -> None:
    """
    Put the page of a batch into its report.html, whole or not at all.

    Raises:
        RecordError: it can't be written, or the ledger can't be read.
    """
    write_whole(folder.report, render(ledger, folder, health, now=now))


def _body(health: JsonObject, manifest: JsonObject, figures: Figures, path: Path, there: str, now: float) -> Html:
    return join(
        charts.patterns(),
        tag(
            "main",
            overview.verdict(health, now=now, left_s=left_s(figures, health["batch"]["pending"], now=now)),
            overview.endpoints(health),
            overview.jobs(health),
            overview.money(health),
            pictures.times(figures),
            pictures.flow(figures),
            pictures.workers(figures),
            pictures.timeline(figures),
            details.slowest(figures),
            details.failures(figures),
            details.matrix(figures),
            details.files(figures, path, there),
            repeat.commands(health, figures, path, in_shards=manifest.get("shard") is not None),
            repeat.provenance(health, manifest),
            data_live="yes" if health["verdict"] == RUNNING else "no",
        ),
    )


def _document(health: JsonObject, body: Html, *, live: bool) -> bytes:
    style, script = _packed("style.css"), _packed("watch.js") if live else None
    policy = ["default-src 'none'", f"style-src '{_digest(style)}'", "base-uri 'none'", "form-action 'none'"]
    policy.append("img-src data: 'self' file:" if script is None else "img-src data: 'self'")
    if script is not None:
        policy += [f"script-src '{_digest(script)}'", "connect-src 'self'"]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="; ".join(policy)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag(
            "title", f"{health['verdict']}: {cut(health['batch']['name'], overview.NAME_BYTES)} {health['batch']['id']}"
        ),
        tag("link", rel="icon", href=dot(ICONS.get(health["verdict"], "c98a12"))),
        tag("style", trusted(style, within="style")),
        _refresh(health, script),
    )
    end = None if script is None else tag("script", trusted(script, within="script"))
    page = tag("html", head, tag("body", body, end), lang="en")
    return b"<!doctype html>\n" + page.text.encode() + b"\n"


def _refresh(health: JsonObject, script: str | None) -> Html | None:
    """Where scripts are off, the browser itself reads a live page anew."""
    if script is None or health["verdict"] != RUNNING:
        return None
    return tag("noscript", tag("meta", http_equiv="refresh", content="5"))


def _packed(name: str) -> str:
    return (files("runner.page") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
