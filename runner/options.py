"""What a batch is asked to run, and how."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TextIO

from runner.batch import Folder
from runner.records import record
from runner.row_slice import RowSlice
from runner.shards import Shard
from runner.values import JsonObject


@record(frozen=True)
class Options:
    """
    What to run, and how.

    Attributes:
        file: The job file.
        only: Jobs to run; empty: all.
        overrides: Values for `vars`.
        profile: The file's profile to use; None: the file as it is without any.
        limit: At most this many runs of each job; None: all.
        rows: The slice of each job's rows to run, as ``10:20``; None: all.
        where: An expression that rows must satisfy, too; None: no more than the file says.
        output_dir: The folder for the batches of all job files; None: as the job file or its default says.
        resume: Go on with the newest unfinished batch, if there is one.
        fresh: Start a new batch beside an unfinished one, and take no result from an earlier one (``reuse``).
        shard: Run only this part of all runs, as one of so many that make the batch; None: all runs.
        batch_id: What all shards of the batch call it: its folder. None: there are no shards.
        repeat: Run this batch again, as a new one; *file* and what is chosen of it are then its own.
        local_url: The base URL of a served local endpoint to use instead of an embedded one; None: embed.
        token_env: The environment variable that holds its token.
        drain_s: After the first signal, how long to follow what is in flight.
        batch: Go on with this one; None: as *resume* and *fresh* say.
        retry_failed: Run again what did not succeed.
        accept_changes: Go on also with runs that are other than when the batch was started.
        take_over: Write to a remote folder though another process may be at work there.
        cancel: End it for good: cancel what is in flight at RunPod, skip what was never sent.
        echo: Where to say the log as well; None: nowhere.
    """

    file: Path
    only: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    limit: int | None = None
    rows: RowSlice | None = None
    where: str | None = None
    output_dir: Path | None = None
    resume: bool = False
    fresh: bool = False
    shard: Shard | None = None
    batch_id: str | None = None
    repeat: Folder | None = None
    local_url: str | None = None
    token_env: str = "RUNNER_LOCAL_TOKEN"
    drain_s: float = 25.0
    batch: Folder | None = None
    retry_failed: bool = False
    accept_changes: bool = False
    take_over: bool = False
    cancel: bool = False
    echo: TextIO | None = None

    @classmethod
    def of_batch(cls, folder: Folder, **more: Any) -> "Options":
        """
        What the batch in *folder* was asked to run, to go on with it; *more* replaces what its manifest says.

        Raises:
            UsageError: its manifest is gone or damaged.
        """
        told = folder.read_manifest()
        chosen = told["overrides"]
        known: dict[str, Any] = {
            "only": tuple(chosen["jobs"]),
            "overrides": chosen["vars"],
            "profile": chosen.get("profile"),
            "limit": chosen["limit"],
            "rows": RowSlice.parse(chosen["rows"]) if "rows" in chosen else None,
            "where": chosen.get("where"),
            "shard": Shard.parse(chosen["shard"]) if "shard" in chosen else None,
            "batch_id": told["shard"]["batch_id"] if "shard" in chosen else None,
            "local_url": told["local_url"],
            "batch": folder,
        }
        return cls(Path(told["job_file"]["path"]), **known | {k: v for k, v in more.items() if v is not None})

    @property
    def chosen(self) -> JsonObject:
        """What was chosen of the file, as the manifest records it: a resume must choose the same."""
        chosen: JsonObject = {"vars": dict(self.overrides), "jobs": sorted(self.only), "limit": self.limit}
        rows = None if self.rows is None else str(self.rows)
        shard = None if self.shard is None else str(self.shard)
        more = {"profile": self.profile, "rows": rows, "where": self.where, "shard": shard}
        return chosen | {name: value for name, value in more.items() if value is not None}
