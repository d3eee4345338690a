"""The official `runpod` package, for the tests that hold us against it; it comes with the extra ``sdk``."""

from importlib.util import find_spec

import pytest

needs_sdk = pytest.mark.skipif(find_spec("runpod") is None, reason="pip install 'runpod-runner[sdk]'")
