"""Packed data files: unpacked line by line in constant memory, and never silently cut short."""

import gzip
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from row_sources import PACK, ZSTD, never

from runner.inputs import packed
from runner.inputs.base import MAX_LINE_BYTES, BadRow
from runner.inputs.delimited import MAX_ROW_BYTES
from runner.inputs.packed import PACKINGS
from runner.inputs.source import DataFile

ROWS = [{"n": number, "text": f"row {number * 7919 % 10_007}"} for number in range(20_000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
"""More than one piece of every packing: a file that is cut is then cut in the middle of rows."""

each_packing = pytest.mark.parametrize("packing", PACK)


def read(folder: Path, name: str, data: bytes) -> list[object]:
    """The rows of a file, and last what is wrong with it, as a person reads it."""
    (folder / name).write_bytes(data)
    found: list[object] = []
    try:
        found += DataFile(folder / name).rows(never)
    except BadRow as bad:
        found.append(f"{bad.message}; {bad.fix}")
    return found


@each_packing
def test_members_and_padding_are_one_file(tmp_path: Path, packing: str) -> None:
    """Shards are joined with cat, and tapes are padded with zeros."""
    pack, cut = PACK[packing], len(LINES) // 3
    skipped = [b"\x50\x2a\x4d\x18\3\0\0\0abc"] if packing == "zst" else []  # as tools for seeking write it
    for between in (b"", b"\0" * 4, b"\0" * 200_000, *skipped):
        data = pack(LINES[:cut]) + between + pack(b"") + between + pack(LINES[cut:]) + between
        assert read(tmp_path, f"a.jsonl.{packing}", data) == ROWS


@each_packing
def test_a_file_that_is_cut_is_told(tmp_path: Path, packing: str) -> None:
    """Wherever it is cut: rows that are missing at the end would be missing in the results."""
    whole = PACK[packing](LINES)
    name = PACKINGS[packing].name
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        *_, last = read(tmp_path, f"a.jsonl.{packing}", whole[:length])
        assert last == f"the file ends before its {name} data does; copy it again", length


@each_packing
def test_a_file_that_is_damaged_is_told(tmp_path: Path, packing: str) -> None:
    """One byte in the middle; every packing but a zstd of old has a checksum. What follows the data is no padding."""
    whole = bytearray(PACK[packing](LINES))
    name = PACKINGS[packing].name
    assert read(tmp_path, f"a.jsonl.{packing}", bytes(whole) + b"x" * 20)[-1] == (
        f"the {name} data is damaged; copy it again"
    )
    whole[len(whole) // 2] ^= 0xFF
    assert read(tmp_path, f"a.jsonl.{packing}", bytes(whole)) != ROWS


@each_packing
def test_a_file_that_is_not_packed_is_told(tmp_path: Path, packing: str) -> None:
    """Somebody has unpacked it, and kept the name."""
    name = PACKINGS[packing].name
    assert read(tmp_path, f"a.jsonl.{packing}", LINES) == [
        f"expected {name} data, as the file's name says; pack it again, or name it without .{packing}"
    ]


def endless(packing: str, size_bytes: int) -> bytes:
    """A line of so many bytes, packed in a few pieces."""
    piece = b"x" * 2**20
    if packing == "gz":
        return b"".join(gzip.compress(piece) for _ in range(size_bytes // len(piece)))
    return PACK[packing](piece) * (size_bytes // len(piece))


@each_packing
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_without_end_is_refused_in_constant_memory(tmp_path: Path, packing: str, kind: str) -> None:
    """A few kilobytes hold 2 GB, and a job file is no way to take a machine down."""
    tracemalloc.start()
    try:
        (found,) = read(tmp_path, f"a.{kind}.{packing}", endless(packing, 2**31 if packing == "zst" else 2**28))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == "a line is longer than 64 MiB; write one row a line"
    assert peak < 3 * MAX_LINE_BYTES


@pytest.mark.parametrize("line", [b"x" * 1000 + b"\n", b'x","' + b"y" * 1000 + b"\n"], ids=["a field", "fields"])
def test_a_csv_row_without_end_is_refused_in_constant_memory(tmp_path: Path, line: bytes) -> None:
    """A quote that is never closed makes one row of a whole file."""
    data = gzip.compress(b'a,b\n"' + line * 100_000)
    tracemalloc.start()
    try:
        found = read(tmp_path, "a.csv.gz", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["a quote in this row is never closed; write a quote inside quotes twice"]
    assert (
        peak < 10 * MAX_ROW_BYTES
    )  # while it reads, the csv module keeps 4 bytes for each character, and grows in steps


def test_memory_that_a_file_asks_for_is_bounded(tmp_path: Path) -> None:
    """Both can ask for gigabytes in their first bytes."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 2**20}]
    data = lzma.compress(LINES, filters=filters)
    assert read(tmp_path, "a.jsonl.xz", data) == [
        "unpacking this xz data takes more than 128 MiB of memory; pack it again, without --long or the like"
    ]
    compressor = ZSTD.ZstdCompressor(options={ZSTD.CompressionParameter.window_log: 28})
    data = compressor.compress(b"{}\n") + compressor.flush()
    assert read(tmp_path, "a.jsonl.zst", data) == [
        "unpacking this zstd data takes more than 128 MiB of memory; pack it again, without --long or the like"
    ]


def test_what_the_strongest_settings_make_is_read(tmp_path: Path) -> None:
    """The bound is for files that were made to hurt."""
    level = {ZSTD.CompressionParameter.compression_level: 22, ZSTD.CompressionParameter.window_log: 27}
    strongest: dict[str, Callable[[bytes], bytes]] = {
        "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        "zst": lambda data: bytes(ZSTD.compress(data, options=level)),
    }
    for packing, pack in strongest.items():
        assert read(tmp_path, f"a.jsonl.{packing}", pack(LINES)) == ROWS


def test_only_the_last_suffix_tells_a_packing() -> None:
    """In capitals, too."""
    names = ["a.csv.gz", "A.CSV.ZST", "a.gz.csv", "gz", ".xz", "a.csv", "a.bz2"]
    assert [packed.packing_of(os.fspath(name)) for name in names] == ["gz", "zst", "", "", "xz", "", "bz2"]
