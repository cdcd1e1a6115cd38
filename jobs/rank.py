"""Fit the ranker of `ranker` around the fine-tuned model: candidates from all evidence, ordered by boosted trees.

    python jobs/rank.py --config jobs/configs/amazon_beauty_hybrid.yaml [key=value ...]

Trains what is missing first.
"""

from door import run
from stages import finetune_run, main_model, target_dataset, train

from ray_app.config import Config
from ray_app.errors import ConfigError


def main(config: Config) -> None:
    if config.ranker is None:
        raise ConfigError(["ranker: unset, so there is nothing to fit; `ranker: {}` takes the defaults"])
    target = target_dataset(config)
    tuned = finetune_run(config, target)
    train(tuned)
    main_model(config, target, tuned)


if __name__ == "__main__":
    run(__doc__, main)
