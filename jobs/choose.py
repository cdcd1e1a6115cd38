"""Rank candidate backbones for labelled pictures or texts by what their frozen features tell of the labels.

    python jobs/choose.py --config FILE choose.candidates='[{backbone: ..., weights: ...}, ...]' [key=value ...]

The file is one of task.kind: classify; its other settings of `classifier` hold for every candidate. Nothing is
trained. Features are computed once by the cluster, one candidate after another, and kept for training; judgements are
kept beside them.
"""

from door import run
from picture_stages import target_dataset
from runs import bars, console

from ray_app.config import Config
from ray_app.content.candidates import Judgement, judge, with_candidate
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError, UserError
from ray_app.picture_config import Candidate
from ray_app.report.candidates import advice, candidates_table


def main(config: Config) -> None:
    if config.choose is None or len(set(config.choose.candidates)) < 2:
        raise ConfigError(["choose.candidates: name at least two, for example [{backbone: torchvision:resnet50}, ...]"])
    rank_candidates(config, config.choose.candidates, target_dataset(config))


def rank_candidates(config: Config, candidates: tuple[Candidate, ...], pictures: PictureSet) -> None:
    """Judge each, show all, and say which to take; one that cannot be had does not hold up the others.

    Raises:
        ConfigError: none of them can be had.
    """
    judged, failed = dict[Candidate, Judgement](), dict[Candidate, str]()
    for candidate in candidates:
        try:
            with bars(candidate.backbone) as progress:
                judged[candidate] = judge(pictures, with_candidate(config, candidate), progress)
        except UserError as error:
            failed[candidate] = str(error)
    reasons = [f"cannot be judged: {candidate.backbone}: {reason}" for candidate, reason in failed.items()]
    if not judged:
        raise ConfigError(["choose.candidates: none is left", *reasons])
    console.print(candidates_table(judged))
    for line in (*reasons, advice(judged)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    run(__doc__, main, section="choose")
