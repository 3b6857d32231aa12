import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import common, sweep

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "sweep.py"
GRID = ["--grid=config.step.num_demos=1,2", "--grid=config.seed=0,1"]
NAMES = [f"num_demos={n}_seed={s}" for n in (1, 2) for s in (0, 1)]


def finish(
    folder: Path,
    value: float = 0.25,
    wanted: tuple[str, ...] = ("id",),
    splits: tuple[str, ...] = ("id",),
    step: int = 4,
) -> None:
    """A run folder as sdd leaves it behind, as far as a sweep reads it."""
    folder.mkdir(parents=True)
    config = {"train": {"num_steps": 4}, "eval": {"splits": wanted}}
    (folder / "config.json").write_text(json.dumps(config))
    estimate = {"value": value, "low": value - 0.125, "high": value + 0.125}
    names = ("pass@1", "pass@4", "pass@16", "distinct@16", "distinct_correct@1", "distinct_correct@16")
    nothing = {"value": None, "low": None, "high": None}
    metrics = {**dict.fromkeys(names, estimate), "distinct_correct@4": nothing}
    lines = [
        {"step": s, "split": split, "num_prompts": 8, "num_samples": 16, "metrics": metrics}
        for s in (2, step)
        for split in splits
    ]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_grid_is_every_combination():
    assert sweep.grid(["config.a.b=1,2", "--config.seed=0"]) == [
        ["--config.a.b=1", "--config.seed=0"],
        ["--config.a.b=2", "--config.seed=0"],
    ]


def test_a_list_is_a_line_a_run():
    text = "--config.eval.ks=1,2 --noconfig.writers.progress\n\n# a note\n--config.x='a b' # why\n"
    assert sweep.listed(text) == [
        ["--config.eval.ks=1,2", "--noconfig.writers.progress"],
        ["--config.x=a b"],
    ]


def test_runs_are_named_by_what_differs():
    names = [run.name for run in sweep.named(sweep.grid(["config.step.name=a.b,c/d", "config.seed=0"]))]
    assert names == ["name=a.b_seed=0", "name=c-d_seed=0"]
    (run,) = sweep.named([["--config.step.name=a", "--config.task.name=b", "--noconfig.x"]])
    assert run.name == "config.step.name=a_config.task.name=b_noconfig.x"


@pytest.mark.parametrize(
    "folder, finished",
    [
        ({}, True),
        ({"splits": ("id", "harder")}, True),
        ({"wanted": ("id", "harder"), "splits": ("id", "harder")}, True),
        ({"wanted": ("id", "harder")}, False),  # one of its splits is still to come
        ({"splits": ("harder",)}, False),
        ({"step": 3}, False),
    ],
)
def test_a_run_is_finished_when_all_splits_have_the_last_step(tmp_path, folder, finished):
    finish(tmp_path / "run", **folder)
    assert bool(sweep.final(tmp_path / "run")) == finished


def test_a_folder_that_is_not_there_or_was_cut_off_is_not_finished(tmp_path):
    assert sweep.final(tmp_path / "nothing") == {}
    finish(tmp_path / "run")
    with open(tmp_path / "run" / "evaluations.jsonl", "a") as file:
        file.write('{"step": 4, "spl')
    assert sweep.final(tmp_path / "run") == {}


@pytest.mark.parametrize("launcher", ["", "launch/slurm.py --wait --nodes 2"])
def test_dry_run_prints_what_is_left(launcher, golden, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finish(tmp_path / "runs" / "sweep" / NAMES[1])
    command = ["run", "c.py", "--workdir", "runs/sweep", "--config.train.num_steps=4"]
    assert sweep.main(["--dry_run", *GRID, "--launcher", launcher, "--", *command]) == 0
    golden(f"sweep_{'slurm' if launcher else 'here'}.txt", capsys.readouterr().out)


def test_the_table_has_pass_at_1_and_the_largest_k(tmp_path, capsys):
    for i, name in enumerate(NAMES[:3]):
        finish(tmp_path / name, value=0.25 + i / 8)
    assert sweep.main(["--table", *GRID, "--", "run", "c.py", f"--workdir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "pass@16" in out and "pass@4" not in out and "0.250 [0.125, 0.375]" in out
    with open(tmp_path / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == NAMES
    assert [row["split"] for row in rows] == ["id"] * 3 + ["not finished"]
    assert [row["pass@1 value"] for row in rows] == ["0.25", "0.375", "0.5", ""]
    assert {name.split()[0] for name in rows[0]} == {
        "run",
        "split",
        "pass@1",
        "pass@16",
        "distinct_correct@16",
    }
    assert float(rows[2]["distinct_correct@16 low"]) == 0.375


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--grid=step.num_demos=1"], "valid: config.KEY=VALUE,VALUE"),
        (["--grid=config.a=1,"], "valid: config.KEY=VALUE,VALUE"),
        (["--grid=config.a=1,1"], "two runs would be called a=1"),
        ([], "valid: --grid, once an axis, or --list FILE"),
        (["--list=no_such_file"], "no_such_file"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        sweep.main([*arguments, "--", "run", "c.py", "--workdir=w"])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_this_machine_cannot_read_is_refused(capsys):
    with pytest.raises(SystemExit):
        sweep.main([*GRID, "--", "run", "c.py", "--workdir=gs://bucket/sweep"])
    assert "valid: a folder of this machine" in capsys.readouterr().err.splitlines()[-1]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(*paths: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < limit, f"not there: {paths}"
        time.sleep(0.05)


def test_a_signal_goes_to_the_runs_that_run_and_the_others_do_not_begin(stand_in):
    grid = ["--grid=config.save=0.2,1.5,0.3", "--jobs=2"]  # the first has saved long before the second
    job = start(stand_in, *grid, "--", "run", "--count=600", "--workdir=runs")
    folders = [stand_in / "runs" / f"save={seconds}" for seconds in (0.2, 1.5, 0.3)]
    wait_for(*(folder / "log_0" for folder in folders[:2]))
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=30)
    assert job.returncode == common.STOPPED
    assert "save=0.2: exit code 75" in out and "save=1.5: exit code 75" in out
    assert "save=0.3: started" not in out
    assert (stand_in / "runs" / "save=0.2.log").read_text().splitlines()[0] == "start 0"


@pytest.mark.parametrize("launcher", ["", f"{ROOT}/launch/local.py --devices 1"])
def test_a_run_that_fails_does_not_keep_the_others(stand_in, launcher):
    (stand_in / "list").write_text("--config.fail=1\n--config.fail=0\n")
    job = start(stand_in, "--list=list", "--launcher", launcher, "--", "run", "--workdir=runs")
    out, _ = job.communicate(timeout=30)
    assert job.returncode == 1
    assert "fail=1: exit code 1" in out and "fail=0: exit code 0" in out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_of_sdd_are_interrupted_and_resumed(tmp_path):
    small = ["--config.train.num_steps=3", "--config.train.checkpoint_every=1", "--config.eval.every=0"]
    command = ["--grid=config.seed=0,1", "--", "run", "experiments/concept_graph/smoke.py", *small]
    command += [f"--workdir={tmp_path / 'sweep'}"]
    job = start(ROOT, *command)
    first, second = (tmp_path / "sweep" / f"seed={seed}" for seed in (0, 1))
    wait_for(second / "metrics.jsonl", seconds=300)
    job.send_signal(signal.SIGINT)
    out, _ = job.communicate(timeout=120)
    assert job.returncode == common.STOPPED, out
    assert sweep.final(first) and not sweep.final(second)
    before = os.stat(first / "evaluations.jsonl").st_mtime_ns

    again = start(ROOT, *command)
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    assert "2 runs, 1 of them finished" in out and "seed=0: started" not in out
    assert os.stat(first / "evaluations.jsonl").st_mtime_ns == before
    log = (tmp_path / "sweep" / "seed=1.log").read_text()
    assert "resum" in log.lower(), log
    with open(tmp_path / "sweep" / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    last = [json.loads(line) for line in (second / "evaluations.jsonl").read_text().splitlines()]
    expected = {line["split"]: line["metrics"]["pass@1"]["value"] for line in last if line["step"] == 3}
    assert {row["split"]: float(row["pass@1 value"]) for row in rows if row["run"] == "seed=1"} == expected
