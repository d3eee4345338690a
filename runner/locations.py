"""Folders that are elsewhere: told from paths by their URL, and what stands for them on this machine."""

import os
import re
from hashlib import blake2b
from pathlib import Path

from runner.errors import UsageError

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", re.DOTALL)
_NAME = ".url"
WRITTEN, READ = "remote", "looked-at"
WHOLE = ".whole"
"""In a folder for looking only: there while the remote one is whole."""


def url_in(text: str | Path | None) -> str | None:
    """
    The URL that *text* is, without a slash at its end; None where it is a path.

    A path that was made of a URL counts, too: pathlib leaves one of its slashes.
    """
    found = None if text is None else _URL.fullmatch(str(text))
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2].rstrip("/")
    return f"file:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


def scheme(url: str) -> str:
    """What speaks *url*, such as ``s3``."""
    return url.partition("://")[0]


def check_is_here(verb: str, *names: str | Path | None) -> None:
    """
    Make sure that none of *names* is a URL, for *verb* is only about folders of this machine.

    Raises:
        UsageError: one is.
    """
    for name in names:
        if (url := url_in(name)) is not None:
            fixes = {"clean": "remove old batches with the store's own tools, or by a rule of the store"}
            raise UsageError(
                f"{url} is elsewhere, and runner {verb} is for folders of this machine",
                fix=fixes.get(verb, "runner status and runner report read it where it is"),
            )


def has_password(url: str) -> bool:
    """Whether *url* gives away how to log in."""
    return "@" in url.partition("://")[2].partition("/")[0]


def cache() -> Path:
    """The folder for what this machine keeps of folders that are elsewhere."""
    if (own := os.environ.get("RUNNER_CACHE_DIR")) is not None and own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "runner"


def here(url: str, kind: str = WRITTEN) -> Path:
    """
    The folder of this machine that stands for the one at *url*; it is made.

    Args:
        url: As `url_in` gives it.
        kind: `WRITTEN` is the folder of who runs batches; `READ` that of who only looks at them.

    Raises:
        UsageError: it can't be made.
    """
    path = cache() / kind / blake2b(url.encode(), digest_size=10).hexdigest()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _NAME).exists():
            aside = path / f"{_NAME}.{os.getpid()}"
            aside.write_text(url)
            aside.replace(path / _NAME)
    except OSError as error:
        raise UsageError(
            f"the folder {path}, which stands for {url} here, can't be made: {error.strerror}",
            fix="name a folder on a local disk with the environment variable RUNNER_CACHE_DIR",
        ) from None
    return path


def base_of(path: Path) -> tuple[Path, str] | None:
    """The folder, *path* or one above it, that `here` made, and its URL; None where there is none."""
    for above in (path, *path.parents):
        if (above / _NAME).is_file():
            return above, (above / _NAME).read_text()
    return None


def url_of(path: Path) -> str | None:
    """The URL that the folder *path* stands for; None where it stands for none."""
    if (found := base_of(path)) is None:
        return None
    below = path.relative_to(found[0]).as_posix()
    return found[1] if below == "." else f"{found[1]}/{below}"


def shown(path: Path) -> str:
    """*path* as a person knows it: by its URL, where it stands for one."""
    return url_of(path) or str(path)


def is_looked_at(path: Path) -> bool:
    """Whether *path* is in a folder for looking only."""
    return path.is_relative_to(cache() / READ)


def is_whole(path: Path) -> bool:
    """Whether the batch that was fetched to *path* has all that its process had to write."""
    return (path / WHOLE).exists()


def written(path: Path) -> Path:
    """The folder of who runs batches for *path*, which may be that of who looks at them."""
    found = base_of(path)
    return path if found is None else here(found[1]) / path.relative_to(found[0])
