"""What is wrong with an outputs folder that is elsewhere, as far as a job file tells."""

from collections.abc import Iterator

from runner import extras, locations
from runner.spec import Outputs
from runner.wording import Finding


def problems(outputs: Outputs) -> Iterator[Finding]:
    """What keeps batches from being kept where *outputs* says; nothing where that is a folder of this machine."""
    url = locations.url_in(outputs.dir)
    if url is None:
        return
    scheme = locations.scheme(url)
    needed = {"file": (), "s3": ("fsspec", "s3fs"), "s3a": ("fsspec", "s3fs")}.get(scheme, ("fsspec",))
    for library in needed:
        if not extras.is_there(library):
            yield Finding(("outputs", "dir"), f"{scheme}:// needs {library}, which is not installed", extras.REMOTE)
            return
    if locations.has_password(url):
        yield Finding(
            ("outputs", "dir"),
            "who may log in can't be part of a job file: whoever reads the file could do so",
            "let the environment say it, as it does for the store's own tools",
        )
    if outputs.keep.succeeded is not None or outputs.keep.failed is not None:
        yield Finding(
            ("outputs", "keep"),
            "old batches are only removed from folders of this machine",
            "leave it out, and let a rule of the store remove what is old",
        )
