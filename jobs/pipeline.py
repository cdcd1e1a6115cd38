"""Raw logs to a registered recommender: prepare, pretrain, (tune,) fine-tune, rank, evaluate, predict, register.

    python jobs/pipeline.py --config jobs/configs/demo.yaml [key=value ...]
    ray job submit --working-dir . -- python jobs/pipeline.py --config jobs/configs/demo.yaml [key=value ...]

Every stage finds what exists and does what is missing: run again, it is quick; killed, it goes on.
"""

from door import run
from stages import (
    compared_models,
    compared_runs,
    evaluate_stage,
    predict_stage,
    register_stage,
    show_examples,
    target_dataset,
)

from ray_app.config import Config


def main(config: Config) -> None:
    target = target_dataset(config)
    runs = compared_runs(config, target)
    models = compared_models(config, target, runs)
    evaluation_uri = evaluate_stage(config, target, runs, models)
    model_uri = next(iter(models.values()))
    predict_stage(config, target, model_uri)
    register_stage(config, target, model_uri, evaluation_uri)
    show_examples(config, target, model_uri)


if __name__ == "__main__":
    run(__doc__, main)
