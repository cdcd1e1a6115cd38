"""Rank the test part of the target log by the fine-tuned model, the same model from scratch and the baselines.

    python jobs/evaluate.py --config jobs/configs/demo.yaml [key=value ...]

Writes `metrics.json` and `report.html`; trains what is missing first.
"""

from door import run
from stages import compared_models, compared_runs, evaluate_stage, target_dataset

from ray_app.config import Config


def main(config: Config) -> None:
    target = target_dataset(config)
    runs = compared_runs(config, target)
    evaluate_stage(config, target, runs, compared_models(config, target, runs))


if __name__ == "__main__":
    run(__doc__, main)
