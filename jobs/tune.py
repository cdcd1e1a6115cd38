"""Search the schedule of fine-tuning: trials on the target, judged on its validation part; the best is published.

    python jobs/tune.py --config jobs/configs/demo.yaml tune.num_trials=8 [key=value ...]

Writes `search.html`, and `schedule.yaml`, with which `finetune` finds the best trial's model; trains what is missing
first. Where the mean of the best trials' weights is better on validation, that is published too, and goes on.
Killed or given more trials, it goes on: trials that are over are not repeated. A `tune` section in the file makes the
pipeline do the same.
"""

from door import run
from stages import finetune_run, target_dataset, train

from ray_app.config import Config
from ray_app.errors import ConfigError


def main(config: Config) -> None:
    if config.tune is None:
        raise ConfigError(["tune: unset, so there is nothing to search; leave it out to take the defaults"])
    train(finetune_run(config, target_dataset(config)))


if __name__ == "__main__":
    run(__doc__, main, section="tune")
