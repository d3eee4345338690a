"""Every kind of data file, by suffix. A new kind is one file here and one line."""

from runner.inputs import delimited, jsonl, parquet, whole
from runner.inputs.base import Reader

KINDS: dict[str, Reader] = {
    "csv": delimited.read_csv,
    "tsv": delimited.read_tsv,
    "jsonl": jsonl.read,
    "json": whole.read_json,
    "yaml": whole.read_yaml,
    "yml": whole.read_yaml,
    "parquet": parquet.read,
}
"""``spec.DATA_KINDS`` names them for users."""
