"""What people read tables with, for the tests that hold our files against it; it comes with the extra ``frames``."""

from importlib.util import find_spec

import pytest

_MISSING = [name for name in ("pyarrow", "duckdb", "pandas", "polars", "pytz") if find_spec(name) is None]

needs_pyarrow = pytest.mark.skipif("pyarrow" in _MISSING, reason="pip install 'runpod-runner[parquet]'")
needs_frames = pytest.mark.skipif(bool(_MISSING), reason="pip install 'runpod-runner[frames]'")
