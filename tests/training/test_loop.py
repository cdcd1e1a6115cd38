"""The loop on a small task: phases, early stopping, exact resume, and the same numbers on one worker and on two."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_two_workers
from regression import EVERYTHING, TWO_PHASES, Net, Regression, losses, schedule, weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ray_app.errors import TrainingError
from ray_app.schedule import ParamGroup, Phase
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.optimizer import assign_rates
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World


def test_head_phase_leaves_the_backbone_alone() -> None:
    task = Regression(pretrained=True)
    before = weights(task)
    progress = fit(task, schedule(TWO_PHASES.phases[0]), LoopSettings(), World.current(), lambda *_: None)
    after = weights(task)
    assert torch.equal(before["backbone.weight"], after["backbone.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert [record["phase"] for record in progress.records] == ["start", "head", "head"]


def test_frozen_norm_layers_stay_as_they_are_after_a_validation() -> None:
    """Validation put the whole model back into training mode: statistics moved from the second epoch on."""
    task = Regression()
    task.model.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))  # type: ignore[assignment]
    before = weights(task)
    fit(task, schedule(TWO_PHASES.phases[0]), LoopSettings(), World.current(), lambda *_: None)
    assert torch.equal(before["backbone.1.running_mean"], weights(task)["backbone.1.running_mean"])
    fit(task, schedule(Phase(name="full", epochs=1)), LoopSettings(), World.current(), lambda *_: None)
    assert not torch.equal(before["backbone.1.running_mean"], weights(task)["backbone.1.running_mean"])


def test_training_lowers_the_loss() -> None:
    task = Regression(dropout=0.0)
    phase = Phase(name="full", epochs=20, learning_rate=0.05, groups=EVERYTHING)
    progress = fit(task, schedule(phase), LoopSettings(), World.current(), lambda *_: None)
    assert losses(progress)[-1] < losses(progress)[0] / 10


@pytest.mark.parametrize("every", [None, 4])
def test_resume_anywhere_gives_the_same_weights(tmp_path: Path, every: int | None) -> None:
    settings = LoopSettings(seed=3, checkpoint_every_steps=every)
    saved: list[Path] = []

    def save(_: object, snapshot: Snapshot) -> None:
        folder = tmp_path / str(len(saved))
        folder.mkdir()
        snapshot.save(folder)
        saved.append(folder)

    whole = Regression(pretrained=True)
    progress = fit(whole, TWO_PHASES, settings, World.current(), save)
    assert len(saved) == (5 if every is None else 10)
    for folder in saved:
        resumed = Regression(pretrained=True)
        again = fit(resumed, TWO_PHASES, settings, World.current(), lambda *_: None, Snapshot.load(folder))
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(resumed)[name]), (folder.name, name)
        assert again.best == progress.best
        assert losses(again) == pytest.approx(losses(progress), rel=1e-12)


def test_patience_ends_a_phase_with_its_best_weights() -> None:
    task = Regression()
    values = iter([-5.0, -1.0, -2.0, -3.0, -4.0])
    seen: list[dict[str, Tensor]] = []

    def validate() -> dict[str, tuple[float, float]]:
        seen.append(weights(task))
        return {"r": (next(values), 1.0)}

    task.validate = validate  # type: ignore[method-assign]
    phase = Phase(name="full", epochs=50, groups=EVERYTHING, patience=2)
    progress = fit(task, schedule(phase), LoopSettings(), World.current(), lambda *_: None)
    assert len(progress.records) == 4
    assert progress.best == -1.0
    assert torch.equal(task.model.state_dict()["head.weight"], seen[1]["head.weight"])


def test_a_phase_that_never_helps_gives_back_the_earlier_weights() -> None:
    """What validation liked best before the phase is what comes out of it."""
    task = Regression(pretrained=True)
    start = weights(task)
    values = iter([-1.0, -2.0, -3.0])
    task.validate = lambda: {"r": (next(values), 1.0)}  # type: ignore[method-assign]
    fit(
        task,
        schedule(Phase(name="full", epochs=9, groups=EVERYTHING, patience=2)),
        LoopSettings(),
        World.current(),
        lambda *_: None,
    )
    assert torch.equal(task.model.state_dict()["backbone.weight"], start["backbone.weight"])


def test_patience_needs_somebody_to_validate_on() -> None:
    """Every epoch scored 0: patience ended the phase and gave back the weights of its first epoch, or of none."""
    task = Regression(pretrained=True)
    task.validate = lambda: {"r": (0.0, 0.0)}  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"the validation part asks nothing.*data\.split"):
        fit(task, TWO_PHASES, LoopSettings(), World.current(), lambda *_: None)
    progress = fit(task, schedule(TWO_PHASES.phases[0]), LoopSettings(), World.current(), lambda *_: None)
    assert progress.best is None
    assert all("val/r" not in record for record in progress.records)


def test_records_tell_the_best_so_far_before_training_included() -> None:
    task = Regression(pretrained=True)
    values = iter([-2.0, -3.0, -1.0, -4.0])
    task.validate = lambda: {"r": (next(values), 1.0)}  # type: ignore[method-assign]
    progress = fit(task, schedule(Phase(name="full", epochs=3)), LoopSettings(), World.current(), lambda *_: None)
    assert [record.get("val/best") for record in progress.records] == [None, -2.0, -1.0, -1.0]


def test_speed_is_that_of_the_steps_taken_since_a_resume(tmp_path: Path) -> None:
    """Targets and steps of before the resume were counted, its time was not."""

    class Slow(Regression):
        def batches(self, rng: np.random.Generator, first: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().batches(rng, first):
                time.sleep(0.05)
                yield batch

    def save(record: dict[str, float | str], snapshot: Snapshot) -> None:
        if not record:
            snapshot.save(tmp_path)

    settings = LoopSettings(checkpoint_every_steps=5)
    fit(Slow(), schedule(Phase(name="full", epochs=1)), settings, World.current(), save)
    start = Snapshot.load(tmp_path)
    assert start.progress.step == 5
    progress = fit(Slow(), schedule(Phase(name="full", epochs=1)), settings, World.current(), lambda *_: None, start)
    assert progress.records[0]["train/step_time_s"] >= 0.05
    assert progress.records[0]["train/targets_per_s"] <= 8 / 0.05


def test_l2_sp_holds_the_backbone() -> None:
    def moved(strength: float) -> float:
        task = Regression(pretrained=True, dropout=0.0)
        phase = Phase(name="full", epochs=10, learning_rate=0.05, groups=EVERYTHING, l2_sp=strength)
        fit(task, schedule(phase), LoopSettings(), World.current(), lambda *_: None)
        return (task.model.backbone.weight - task.reference["backbone.weight"]).norm().item()

    free, held, tight = moved(0.0), moved(1.0), moved(10.0)
    assert tight < held < free


def test_non_finite_loss_names_phase_epoch_and_step() -> None:
    task = Regression()
    task.poison_at = 4
    with pytest.raises(TrainingError, match=r"phase 'full', epoch 1, step 4.*learning_rate \(now 0.001\)"):
        fit(task, schedule(Phase(name="full", epochs=2)), LoopSettings(), World.current(), lambda *_: None)


def test_every_parameter_needs_a_group_and_every_group_a_parameter() -> None:
    with pytest.raises(TrainingError, match=r"no group covers parameter 'head.weight'"):
        assign_rates(Net(), Phase(name="x", epochs=1, groups=(ParamGroup(match="^backbone"),)))
    with pytest.raises(TrainingError, match=r"'\^haed' matches no parameter"):
        assign_rates(Net(), Phase(name="x", epochs=1, groups=(ParamGroup(match="^haed"), *EVERYTHING)))


def test_the_numbers_of_a_run_stay_what_they_were() -> None:
    """What the toolbox adds is off by default: a schedule that does not name it trains as it did before."""
    settings = LoopSettings(seed=3, checkpoint_every_steps=4)
    progress = fit(Regression(pretrained=True), TWO_PHASES, settings, World.current(), lambda *_: None)
    golden = [4.136468172073364, 3.521067261695862, 2.867222785949707, 1.9365477164586384, 1.8019850850105286]
    assert losses(progress) == pytest.approx(golden, rel=1e-5)


TOOLBOX = TWO_PHASES.model_copy(update={"ema": 0.6, "wise": (0.0, 0.5)})


def _one_of_two(rank: int, folder: Path) -> None:
    for number, phases in enumerate((TWO_PHASES, TOOLBOX)):
        task = Regression(rank, 2, dropout=0.0, pretrained=True)
        fit(task, phases, LoopSettings(), World.current(), lambda *_: None)
        save_file(copy.deepcopy(task.model.state_dict()), folder / f"{number}-{rank}.safetensors")


def test_two_workers_equal_one_at_the_same_global_batch(tmp_path: Path) -> None:
    run_two_workers(_one_of_two, tmp_path)
    for number, phases in enumerate((TWO_PHASES, TOOLBOX)):
        one = Regression(dropout=0.0, pretrained=True)
        fit(one, phases, LoopSettings(), World.current(), lambda *_: None)
        first, second = (load_file(tmp_path / f"{number}-{rank}.safetensors") for rank in (0, 1))
        for name, value in first.items():
            assert torch.equal(value, second[name])
            torch.testing.assert_close(value, one.model.state_dict()[name], rtol=1e-5, atol=1e-6)


def _resume_and_stop(rank: int, folder: Path) -> None:
    settings, phases = LoopSettings(checkpoint_every_steps=4), schedule(TWO_PHASES.phases[1])

    def save(record: dict[str, float | str], snapshot: Snapshot) -> None:
        if rank == 0 and not record:
            snapshot.save(folder)

    whole = fit(Regression(rank, 2), phases, settings, World.current(), save)
    torch.distributed.barrier()
    start = Snapshot.load(folder)
    assert start.progress.step == 4
    resumed = fit(Regression(rank, 2), phases, settings, World.current(), lambda *_: None, start)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-12)

    poisoned = Regression(rank, 2)
    poisoned.poison_at = 5 if rank else None
    with pytest.raises(TrainingError, match=r"not finite in phase 'full', epoch 1, step 5"):
        fit(poisoned, phases, LoopSettings(), World.current(), lambda *_: None)


def test_two_workers_resume_with_the_losses_of_both_and_stop_together(tmp_path: Path) -> None:
    """After a resume all workers went on from the first one's sums, and a loss of one stopped that one alone."""
    run_two_workers(_resume_and_stop, tmp_path)
