"""Fixtures and settings of every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("fullconv", deadline=None)  # a loaded machine is no failure
settings.load_profile("fullconv")
torch.set_num_threads(1)  # the test processes fill the processors already


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data kept beside the checkout; the project stands alone without it."""
    path = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"real data is not at {path}")
    return path
