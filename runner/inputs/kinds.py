"""Every kind of data file, by suffix. A new kind is one file here and one line."""

from runner.inputs import delimited, jsonl
from runner.inputs.base import Reader

KINDS: dict[str, Reader] = {
    "csv": delimited.read_csv,
    "tsv": delimited.read_tsv,
    "jsonl": jsonl.read,
}
