import pytest
import torch

from ray_app.models.device import device_of


@pytest.mark.parametrize(
    ("wanted", "there", "expected"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_a_gpu_is_used_where_one_is_wanted_and_there(
    wanted: bool, there: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(wanted) == torch.device(expected)
