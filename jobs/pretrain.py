"""Train the model on the source log of `pretrain.data`.

python jobs/pretrain.py --config jobs/configs/demo.yaml [key=value ...]
"""

from door import run
from log_stages import pretrain_run
from stages import target_dataset, train

from ray_app.config import Config
from ray_app.errors import ConfigError


def main(config: Config) -> None:
    if config.pretrain is None:
        raise ConfigError(["pretrain: not set; it names the source log and its schedule"])
    train(pretrain_run(config, target_dataset(config)))


if __name__ == "__main__":
    run(__doc__, main)
