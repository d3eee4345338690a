"""What a batch is asked to run, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.values import JsonObject


@dataclass(frozen=True)
class Options:
    """
    What to run, and how.

    Attributes:
        file: The job file.
        only: Jobs to run; empty: all.
        overrides: Values for `vars`.
        limit: At most this many runs of each job; None: all.
        output_dir: The folder for the batches of all job files; None: as the job file or its default says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one.
        local_url: The base URL of a served local endpoint to use instead of an embedded one; None: embed.
        token_env: The environment variable that holds its token.
        drain_s: After the first signal, how long to follow what is in flight.
    """

    file: Path
    only: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    output_dir: Path | None = None
    resume: bool = False
    fresh: bool = False
    local_url: str | None = None
    token_env: str = "RUNNER_LOCAL_TOKEN"
    drain_s: float = 25.0

    @property
    def chosen(self) -> JsonObject:
        """What was chosen of the file, as the manifest records it: a resume must choose the same."""
        return {"vars": dict(self.overrides), "jobs": sorted(self.only), "limit": self.limit}
