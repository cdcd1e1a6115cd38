"""Trials on a share of the users: less work in each, and what is best there is trained on all of them."""

import io

import pytest
import searching
from rich.console import Console
from tuning_log import MakeSearch

from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset, thinned
from ray_app.errors import ConfigError
from ray_app.training.world import World
from ray_app.tuning.search import Search
from ray_app.tuning.space import Candidate
from ray_app.tuning.trials import Trial


def test_files_of_users_are_left_out_whole(make_search: MakeSearch) -> None:
    search = make_search("whole")
    whole = search.dataset
    assert isinstance(whole, Dataset)
    quarter = thinned(whole, 0.25)
    assert quarter.part_uris == whole.part_uris[: len(whole.part_uris) // 4]
    assert quarter.num_items == whole.num_items
    assert thinned(whole, 1.0) is whole
    assert len(thinned(whole, 1e-9).part_uris) == 1
    part = Search.begin(search.config, quarter, search.config.model.start_from)
    assert part.key != search.key
    steps = [one.run_of(Candidate("configured")).begin(World.current()).steps_per_epoch for one in (search, part)]
    assert 0 < steps[1] < steps[0] / 2


def test_the_best_schedule_trains_on_all_users(source: tuple[Config, Dataset, str]) -> None:
    config, dataset, start = source
    config = apply_overrides(config, ["name=shares", "tune={num_trials: 1, data_share: 0.5}"])
    search = Search.begin(config, thinned(dataset, 0.5), start)
    key = search.space.key(Candidate("configured"))
    search.trials().keep(Trial(number=0, strategy="configured", values={}, key=key, state="finished", score=0.1))
    run = searching.tuned_run(config, dataset, start, Console(file=io.StringIO()))
    assert run.dataset is dataset
    assert not run.is_published()
    whole = Search.begin(apply_overrides(config, ["tune.data_share=1"]), dataset, start)
    assert run.key == whole.run_of(Candidate("configured")).key != search.run_of(Candidate("configured")).key


def test_pictures_have_a_setting_of_their_own() -> None:
    given = {"task": {"kind": "classify"}, "pictures": {}, "classifier": {}}
    with pytest.raises(ConfigError, match=r"of pictures fewer are trained on by pictures\.train_share"):
        parse_config({**given, "tune": {"data_share": 0.5}})
