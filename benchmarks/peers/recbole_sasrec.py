"""RecBole 1.2.1 SASRec, full cross-entropy: two blocks, d 64, history 50, batch 128, its own defaults otherwise.

PYTHONPATH=. ENV/bin/python benchmarks/peers/recbole_sasrec.py --data FOLDER [--budget-s S] [--until NDCG]
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from meter import MAX_HISTORY, Meter, Stop, arguments
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

NAME = "log"


def write_atomic_file(meter: Meter, folder: Path) -> None:
    """The train part, and two stand-ins at the end of each user for RecBole's own split to cut off."""
    log = pd.DataFrame({"user_id:token": meter.users, "item_id:token": meter.items, "timestamp:float": meter.positions})
    last = log.groupby("user_id:token").tail(1)
    stand_ins = [last.assign(**{"timestamp:float": last["timestamp:float"] + more}) for more in (1, 2)]
    (folder / NAME).mkdir()
    pd.concat([log, *stand_ins]).to_csv(folder / NAME / f"{NAME}.inter", sep="\t", index=False)


def settings_of(folder: Path) -> dict[str, object]:
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": MAX_HISTORY,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,
        "n_layers": 2,
        "hidden_size": 64,
        "loss_type": "CE",
        "train_batch_size": 128,
        "learning_rate": 1e-3,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def main() -> None:
    meter = Meter(arguments(__doc__))
    sys.argv = sys.argv[:1]  # RecBole reads it too
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(Stop):
        folder = Path(name)
        write_atomic_file(meter, folder)
        os.chdir(folder)  # RecBole writes its logs where it stands
        train(meter, Config(model="SASRec", dataset=NAME, config_dict=settings_of(folder)))


def train(meter: Meter, config: Config) -> None:
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    batches, _, _ = data_preparation(config, dataset)
    model = SASRec(config, batches.dataset)
    trainer = Trainer(config, model)
    tokens = dataset.field2id_token["item_id"]
    ours = torch.as_tensor([0 if token == "[PAD]" else int(token) for token in tokens])
    theirs = torch.zeros(meter.num_items + 1, dtype=torch.long)
    theirs[ours] = torch.arange(len(tokens))

    @torch.no_grad()
    def score(histories: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        rows = {"item_id_list": theirs[torch.from_numpy(histories)], "item_length": torch.from_numpy(lengths)}
        scores = torch.full((len(histories), meter.num_items + 1), -torch.inf)
        scores[:, ours] = model.full_sort_predict(Interaction(rows))
        return scores.numpy()

    def validate() -> None:
        meter.pause()
        model.eval()
        meter.validate(score)

    def counted_loss(rows: Interaction) -> torch.Tensor:
        # Called before the step's work, so what is counted is the step before.
        meter.step(counted_loss.targets)
        counted_loss.targets = len(rows)
        return model.calculate_loss(rows)

    counted_loss.targets = 0
    epoch = 0
    while True:
        meter.start()
        try:
            trainer._train_epoch(batches, epoch, loss_func=counted_loss)
        except Stop:
            validate()
            raise
        meter.step(counted_loss.targets)
        counted_loss.targets = 0
        validate()
        epoch += 1


if __name__ == "__main__":
    main()
