"""The run records that were published with arXiv 2605.05724, where they are at hand."""

import os
from pathlib import Path

import pytest

RUNS = ("cifar", "nanochat_d12", "pg_main")
"""The headline runs; the others are controls."""


def published_runs() -> Path:
    """The folder of runs; skips the test where there is none."""
    places = [
        Path(os.environ.get("LABTRAIL_PUBLISHED_RUNS", "")),
        Path(__file__).parents[1] / "shared/data/published-runs",
    ]
    places += [parent / "shared/data/published-runs" for parent in Path(__file__).resolve().parents]
    for place in places:
        if (place / "pg_main").is_dir():
            return place
    pytest.skip("the published runs are not here; set LABTRAIL_PUBLISHED_RUNS to the folder release_artifacts")
