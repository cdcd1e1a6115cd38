"""What content costs in training: target positions per CPU-second with it and by ids alone, as JSON.

    python benchmarks/content_speed.py --data FOLDER --config jobs/configs/amazon_beauty_content.yaml --vectors FILE \
        [key=value ...]

The two take turns of 20 steps in one process and one thread, so that whatever else the machine does slows both; batches
are made in their own turn. FILE has the vectors of the texts, and is written where it is not there yet.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from leave_one_out import load_sequences, read_content
from train_plain import timed_task

from ray_app.config import Config, load_config
from ray_app.data.batches import Batch
from ray_app.schedule import ParamGroup
from ray_app.training.stepper import Stepper
from ray_app.training.world import World

TURN, TURNS = 20, 20


class Runner:
    """One model in training, whose turns are timed."""

    def __init__(self, table: pa.Table, items: pa.Table, config: Config, content: np.ndarray | None) -> None:
        phase = config.evaluate.scratch_schedule.phases[0]
        if content is None:
            phase = phase.model_copy(update={"groups": (ParamGroup(match=".*"),)})  # nothing that is content's is there
        self._task = timed_task(table, items, config, content)[0]
        self._stepper = Stepper(
            self._task, phase, World.current(), clip_norm=config.evaluate.scratch_schedule.clip_norm
        )
        self._batches = self._epochs()
        self.speeds = list[float]()

    def turn(self) -> None:
        """Some steps, and what they took."""
        targets, began = 0, time.process_time()
        for batch in itertools.islice(self._batches, TURN):
            self._stepper.take(batch, 1.0)
            targets += len(batch.targets)
        self.speeds.append(targets / (time.process_time() - began))

    def _epochs(self) -> Iterator[Batch]:
        for epoch in itertools.count():
            yield from self._task.batches(np.random.default_rng(epoch), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.config, args.overrides)
    table, num_items, counts = load_sequences(args.data)
    items = pa.table({"item_id": np.arange(num_items), "train_count": counts})
    content = read_content(args.data, config, args.vectors)
    runners = {"ids alone": Runner(table, items, config, None), "content": Runner(table, items, config, content)}
    for runner in runners.values():
        runner.turn()  # the first is slow
        runner.speeds.clear()
    for _ in range(TURNS):
        for runner in runners.values():
            runner.turn()
    speeds = {name: float(np.median(runner.speeds)) for name, runner in runners.items()}
    line = {f"targets per cpu-s, {name}": round(speed) for name, speed in speeds.items()}
    loss = 1 - speeds["content"] / speeds["ids alone"]
    print(json.dumps({**line, "slower by": round(loss, 3), "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
