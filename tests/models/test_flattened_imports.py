"""A process that only answers does without torch's compiler: some 100 MB and seconds."""

import subprocess
import sys

SCENE = """
import sys
import numpy as np, torch
from ray_app.data.sequences import Ragged
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape
from ray_app.tasks.scorer import ModelScorer

for likeness in (0, 4):
    alike = torch.rand(30, 4).half() if likeness else None
    content = torch.rand(30, 6).half() if likeness else None
    shape = SequenceShape(16, 1, 2, 32, 20, content_dim=6 if likeness else 0, likeness_dim=likeness)
    model = SequenceModel(shape, torch.arange(30), 0, content=content, alike=alike).eval()
    scores = ModelScorer(model, torch.device("cpu")).scores(Ragged(np.array([1, 2, 3], np.int32), np.array([0, 3])))
    assert np.isfinite(scores[0, 1:]).all()
assert "torch._dynamo" not in sys.modules
assert "sympy" not in sys.modules
"""


def test_nothing_that_compiles_is_imported_to_answer() -> None:
    subprocess.run([sys.executable, "-c", SCENE], check=True)
