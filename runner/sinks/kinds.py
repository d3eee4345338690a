"""Every form of the results, by name. A new form is one file here and one line."""

from runner.sinks import delimited, lines, openai, parquet
from runner.sinks.base import Sink

KINDS: dict[str, Sink] = {
    "jsonl": lines.write_jsonl,
    "json": lines.write_array,
    "csv": delimited.write,
    "parquet": parquet.write,
    "openai": openai.write,
}
"""Those that `runner results` writes; ``spec.RESULT_KINDS`` names those that a job file can ask for."""

TABLES = ("csv", "parquet")
"""Those that have columns."""

NEEDS = {"parquet": parquet.LIBRARY}
"""The library that a form needs, where an extra brings it."""
