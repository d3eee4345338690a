"""DuckDB, pandas and polars read what a batch leaves behind, as it is: no cast, no option, no JSON by hand."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from frames import needs_frames
from happened import a_run, an_ending, carried, skipped
from old_batches import a_batch
from terminal import ROOT

from runner import forms
from runner.batch import Folder
from runner.events import Event
from runner.states import Outcome
from runner.values import MISSING

pytestmark = needs_frames

PROMPTS = ("a horse", "=SUM(A1)", 'said "hi", twice', "two\nlines", "Pferd ü 🐴", "007")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A grid of prompts and seeds: a few runs failed, one was skipped."""
    events: list[Event] = []
    for index in range(24):
        prompt, seed = PROMPTS[index % len(PROMPTS)], index // len(PROMPTS)
        run = replace(
            a_run(f"{index:032x}", index=index, given={"prompt": prompt}),
            row={"prompt": prompt, "words": len(prompt.split()), "weight": index / 8},
            matrix={"seed": seed},
        )
        if index == 23:
            events.append(skipped(run))
        elif index % 5 == 4:
            told = {"type": "ValueError", "message": f"no {prompt}", "traceback": "Traceback"}
            events += carried(run, an_ending(Outcome.FAILED, output=MISSING, error=told))
        else:
            output = {"score": index / 4, "label": prompt, "boxes": [{"x": index}], "is_horse": index % 2 == 0}
            ending = an_ending(output=output, artifacts=(f"artifacts/{index}.png",), execution_time_ms=index)
            events += carried(run, ending)
    folder = a_batch(tmp_path, events, planned={"photos": 24})
    forms.write(folder, ["csv", "parquet"])
    return folder


SETTLED_AT = datetime(1970, 1, 1, 0, 1, 43, tzinfo=UTC)
SCORES = {seed: [n / 4 for n in range(24) if n // 6 == seed and n % 5 != 4 and n != 23] for seed in range(4)}
MEANS = [(seed, sum(scores) / len(scores)) for seed, scores in SCORES.items()]
FORMS = ("jsonl", "csv", "parquet")


@pytest.mark.parametrize("form", FORMS)
def test_duckdb_reads_it(folder: Folder, form: str) -> None:
    """Grouped by a parameter, with times as times."""
    import duckdb

    seed, score = ("matrix.seed", "output.score") if form == "jsonl" else ('"matrix.seed"', '"output.score"')
    with duckdb.connect() as db:
        table = f"'{folder.form(form)}'"
        assert db.sql(f"SELECT count(*) FROM {table}").fetchall() == [(24,)]
        means = f"SELECT {seed}, avg({score}) FROM {table} WHERE state = 'succeeded' GROUP BY 1 ORDER BY 1"
        assert db.sql(means).fetchall() == MEANS
        assert db.sql(f"SELECT DISTINCT settled_at FROM {table}").fetchall() == [(SETTLED_AT,)]
        if form == "parquet":
            prompts = db.sql(f'SELECT "row.prompt" FROM {table} ORDER BY index LIMIT 6').fetchall()
            assert prompts == [(prompt,) for prompt in PROMPTS]
            (boxes,) = db.sql(f"SELECT sum(CAST(output->>'$.boxes[0].x' AS INT)) FROM {table}").fetchall()
            assert boxes == (sum(n for n in range(23) if n % 5 != 4),)
            assert db.sql(f"SELECT artifacts[1] FROM {table} WHERE index = 3").fetchall() == [("artifacts/3.png",)]


def _pandas(folder: Folder, form: str) -> Any:
    import pandas

    path = folder.form(form)
    if form == "jsonl":
        return pandas.json_normalize(pandas.read_json(path, lines=True).to_dict("records"))
    return pandas.read_csv(path) if form == "csv" else pandas.read_parquet(path)


def _polars(folder: Folder, form: str) -> Any:
    import polars

    path = folder.form(form)
    if form == "jsonl":
        frame = polars.read_ndjson(path)
        return frame.with_columns(
            polars.col("matrix").struct.field("seed").alias("matrix.seed"),
            polars.col("output").struct.field("score").alias("output.score"),
        )
    return polars.read_csv(path) if form == "csv" else polars.read_parquet(path)


@pytest.mark.parametrize("form", FORMS)
def test_pandas_reads_it(folder: Folder, form: str) -> None:
    """Grouped by a parameter."""
    frame = _pandas(folder, form)
    assert len(frame) == 24
    means = frame[frame["state"] == "succeeded"].groupby("matrix.seed")["output.score"].mean()
    assert list(means.items()) == MEANS
    if form == "parquet":
        assert list(frame["row.prompt"][:6]) == list(PROMPTS)
        assert frame["settled_at"][0].to_pydatetime() == SETTLED_AT
        assert (frame["row.words"].dtype, frame["row.weight"].dtype) == ("int64", "float64")
        assert [*frame["artifacts"][3]] == ["artifacts/3.png"]


@pytest.mark.parametrize("form", FORMS)
def test_polars_reads_it(folder: Folder, form: str) -> None:
    """Grouped by a parameter."""
    import polars

    frame = _polars(folder, form)
    assert len(frame) == 24
    succeeded = frame.filter(polars.col("state") == "succeeded")
    assert succeeded.group_by("matrix.seed").agg(polars.col("output.score").mean()).sort("matrix.seed").rows() == MEANS
    if form == "parquet":
        assert frame["row.prompt"][:6].to_list() == list(PROMPTS)
        assert frame["settled_at"][0] == SETTLED_AT
        assert frame["output.is_horse"].dtype == polars.Boolean
        assert frame["artifacts"][3].to_list() == ["artifacts/3.png"]


def test_the_examples_of_the_documentation_work(folder: Folder) -> None:
    """Whoever copies them has an answer."""
    import duckdb

    text = (ROOT / "docs/results.md").read_text().replace("batches/horses/latest", str(folder.path))
    (sql,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with duckdb.connect() as db:
        found = [db.sql(one).fetchall() for one in sql.split(";") if one.strip()]
    assert [(seed, mean) for seed, _, mean in sorted(found[0])] == MEANS
    exec(python, {})


def _duckdb_rows(path: Path) -> int:
    import duckdb

    with duckdb.connect() as db:
        return len(db.sql(f"SELECT * FROM '{path}'").fetchall())


def _pandas_rows(path: Path) -> int:
    import pandas

    return len(pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path))


def _polars_rows(path: Path) -> int:
    import polars

    return len(polars.read_csv(path) if path.suffix == ".csv" else polars.read_parquet(path))


@pytest.mark.parametrize("rows", [_duckdb_rows, _pandas_rows, _polars_rows])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_empty_batch_is_an_empty_table(tmp_path: Path, form: str, rows: Callable[[Path], int]) -> None:
    """Not an error in the morning after a night in which nothing ran."""
    folder = a_batch(tmp_path)
    forms.write(folder, [form])
    assert rows(folder.form(form)) == 0


@pytest.mark.parametrize("rows", [_duckdb_rows, _pandas_rows, _polars_rows])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_hostile_keys_and_values_are_read(tmp_path: Path, form: str, rows: Callable[[Path], int]) -> None:
    """Rows of strangers, outputs of models."""
    texts = ["", " ", '"', "a,b", "a\r\nb", "\x1b[31m", "=1+1", "\u2028", "🐴", "'", "null", "x" * 5000]
    keys = {"A": 1, "a": "b", "": 2, "a.b": [1], "sélect": None, "row": {"row": 1}, "x y": 2**70}
    events: list[Event] = []
    for index, text in enumerate(texts):
        run = replace(a_run(f"k{index}", index=index), row=keys | {"t": text, "mixed": text if index % 2 else index})
        events += carried(run, an_ending(output=text if index % 3 else {"t": text}))
    folder = a_batch(tmp_path, events, planned={"photos": len(texts)})
    forms.write(folder, [form])
    assert rows(folder.form(form)) == len(texts)
