"""Fine-tune on the target log of `data`, from `model.start_from` or the pretrained model (from scratch without either).

python jobs/finetune.py --config jobs/configs/demo.yaml [key=value ...]
"""

from door import run
from stages import finetune_run, target_dataset, train

from ray_app.config import Config


def main(config: Config) -> None:
    train(finetune_run(config, target_dataset(config)))


if __name__ == "__main__":
    run(__doc__, main)
