"""Write the top-k items of every user of the target log to parquet: user_id, item_id, rank, score.

    python jobs/predict.py --config jobs/configs/demo.yaml predict.k=20 predict.history=all [key=value ...]

`predict.history=before_test` gives exactly the lists that evaluation scored, `predict.diversity=0.3` lists that repeat
themselves less, and `predict.together=true` also what is bought together with each item. Trains what is missing first.
"""

from door import run
from stages import finetune_run, main_model, predict_stage, target_dataset, train

from ray_app.config import Config


def main(config: Config) -> None:
    target = target_dataset(config)
    tuned = finetune_run(config, target)
    train(tuned)
    predict_stage(config, target, main_model(config, target, tuned))


if __name__ == "__main__":
    run(__doc__, main)
