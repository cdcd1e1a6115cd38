"""Rank candidate backbones for labelled pictures or texts by what their frozen features tell of the labels.

    python jobs/choose.py --config FILE choose.candidates='[{backbone: ..., weights: ...}, ...]' [key=value ...]

The file is one of task.kind: classify; its other settings of `classifier` hold for every candidate. Nothing is
trained. Features are computed once by the cluster, one candidate after another, and kept for training; judgements are
kept beside them. Of a candidate that was fine-tuned for these pictures before the outcome stands beside; the report of
a pipeline whose configuration has `choose` shows the same.
"""

from door import run
from picture_stages import target_dataset
from runs import bars, console

from ray_app.config import Config
from ray_app.content.candidates import judge_all
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError
from ray_app.picture_config import Candidate
from ray_app.report.candidates import advice, candidates_table
from ray_app.tasks.outcomes import outcomes_of


def main(config: Config) -> None:
    if config.choose is None or len(set(config.choose.candidates)) < 2:
        raise ConfigError(["choose.candidates: name at least two, for example [{backbone: torchvision:resnet50}, ...]"])
    rank_candidates(config, config.choose.candidates, target_dataset(config))


def rank_candidates(config: Config, candidates: tuple[Candidate, ...], pictures: PictureSet) -> None:
    """Judge each, show all, and say which to take; one that cannot be had does not hold up the others.

    Raises:
        ConfigError: none of them can be had.
    """
    with bars("judge") as progress:
        judged, failed = judge_all(pictures, config, candidates, progress)
    reasons = [f"cannot be judged: {candidate.backbone}: {reason}" for candidate, reason in failed.items()]
    if not judged:
        raise ConfigError(["choose.candidates: none is left", *reasons])
    console.print(candidates_table(judged, outcomes_of(pictures, config, judged)))
    for line in (*reasons, advice(judged)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    run(__doc__, main, section="choose")
