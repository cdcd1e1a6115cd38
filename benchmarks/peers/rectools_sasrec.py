"""RecTools 0.19 SASRec, sampled softmax with 256 negatives: two blocks, d 64, history 50, batch 128.

PYTHONPATH=. ENV/bin/python benchmarks/peers/rectools_sasrec.py --data FOLDER [--budget-s S] [--until NDCG]
"""

import contextlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from meter import MAX_HISTORY, Meter, Stop, arguments
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Watch(Callback):
    """Clocks the steps; validates between epochs."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """The epoch's first step is next."""
        self.meter.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, _: int) -> None:
        """A step is done."""
        try:
            self.meter.step(int((batch["y"] != 0).sum()))
        except Stop:
            self._validate(module)
            raise

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """All steps of the epoch are done."""
        self._validate(module)

    def _validate(self, module: LightningModule) -> None:
        self.meter.pause()
        backbone = module.torch_model.eval()
        # Where our item ids stand in RecTools' own table; items without a training event do not stand there.
        known = module.data_preparator.item_id_map
        theirs = torch.as_tensor(known.convert_to_internal(np.arange(1, self.meter.num_items + 1), strict=False))
        ours = torch.as_tensor(known.convert_to_external(theirs.numpy()).astype(np.int64))
        internal = torch.zeros(self.meter.num_items + 1, dtype=torch.long)
        internal[ours] = theirs

        @torch.no_grad()
        def score(histories: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            # Padded on the left, as RecTools does.
            places = (np.arange(MAX_HISTORY)[None] - (MAX_HISTORY - lengths)[:, None]) % MAX_HISTORY
            sessions = internal[torch.from_numpy(np.take_along_axis(histories, places, axis=1))]
            table = backbone.item_model.get_all_embeddings()
            found = backbone.encode_sessions({"x": sessions}, table)[:, -1] @ table.T
            scores = torch.full((len(histories), self.meter.num_items + 1), -torch.inf)
            scores[:, ours] = found[:, theirs]
            return scores.numpy()

        try:
            self.meter.validate(score)
        finally:
            module.torch_model.train()


def main() -> None:
    settings = arguments(__doc__)
    meter = Meter(settings)
    frame = pd.DataFrame(
        {
            Columns.User: meter.users,
            Columns.Item: meter.items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(meter.positions, unit="D"),
        }
    )

    def trainer() -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        return Trainer(
            max_epochs=settings.epochs,
            accelerator="cpu",
            devices=1,
            enable_checkpointing=False,
            callbacks=[Watch(meter)],
            **quiet,
        )

    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=MAX_HISTORY,
        loss="sampled_softmax",
        n_negatives=256,
        batch_size=128,
        lr=1e-3,
        dropout_rate=0.2,
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
    )
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    with contextlib.suppress(Stop):
        model.fit(Dataset.construct(frame))


if __name__ == "__main__":
    main()
