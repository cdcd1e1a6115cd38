"""What fewer users to learn from would be worth, or how much more would help: the same model from parts of the log.

    python jobs/data_curve.py --config FILE [data_curve.shares='[0.05, 0.1, 0.2, 0.5]'] [key=value ...]

Fine-tunes by the configured schedule, by its parts and from scratch, on each share of the users and on all of them, and
asks every model about all users. Trainings go on side by side, as many as the cluster has room for; killed, the job
goes on with those that are missing. Writes `metrics.json` and `report.html`. With a section `data_curve` in its
configuration the pipeline does the same, and its report shows the curve.
"""

from door import run
from log_stages import finetune_run, target_dataset
from sampling import data_curve_stage

from ray_app.config import Config
from ray_app.errors import ConfigError


def main(config: Config) -> None:
    if config.data_curve is None:
        raise ConfigError(["data_curve: unset, so there are no shares; leave it out to take the defaults"])
    config = config.model_copy(update={"tune": None})
    target = target_dataset(config)
    data_curve_stage(config, target, finetune_run(config, target).start_from)


if __name__ == "__main__":
    run(__doc__, main, section="data_curve")
