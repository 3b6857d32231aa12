"""Several processes compute what one computes with as many devices: numbers, texts, parameters."""

from pathlib import Path

import pytest

FSDP = "--config.mesh.fsdp=2"
TWO_CALLS = "--config.eval.rows_per_call=16"  # of four prompts each: a process's are not next to each other
AHEAD = ("--config.train.async_steps=1", "--config.step.importance_clip=2.0")
CASES = {
    "grpo": ("--config.step.name=sdd.steps.grpo",),
    "sft": ("--config.step.name=sdd.steps.sft",),  # learns from rows that the task writes
    "sampling layout": (
        "--config.mesh.sampling.data=2",
        "--config.mesh.sampling.fsdp=1",
        "--config.mesh.sampling.tensor=2",
    ),
    # The second call has two prompts, which process 0 gets both.
    "no prompts": ("--config.eval.num_prompts=6", TWO_CALLS),
    "likelihood": ("--config.eval.likelihood_samples=2",),
    "ahead": AHEAD,
    "micro batches": ("--config.train.micro_batches=2", "--config.train.updates_per_batch=2"),
}


@pytest.fixture(scope="module")
def alone(finished, tmp_path_factory):
    """``alone(*flags)``: the folder of one process with four devices."""
    known = {}

    def run(*flags):
        if flags not in known:
            known[flags] = finished(tmp_path_factory.mktemp("alone") / "run", 1, 4, *flags)
        return known[flags]

    return run


def test_two_processes(finished, alone, same_numbers, tmp_path):
    """The tolerances are those of `same_numbers`: 1e-5 in metrics and parameters, 1e-6 in evaluations."""
    same_numbers(finished(tmp_path / "run", 2, 2, FSDP, TWO_CALLS), alone(FSDP, TWO_CALLS))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_in_other_runs(finished, alone, same_numbers, tmp_path, case):
    flags = (FSDP, *CASES[case])
    same_numbers(finished(tmp_path / "run", 2, 2, *flags), alone(*flags))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_processes(finished, same_numbers, tmp_path):
    whole = finished(tmp_path / "alone", 1, 8, FSDP)
    same_numbers(finished(tmp_path / "run", 4, 2, FSDP, timeout=500), whole)


@pytest.mark.slow
def test_rows_go_and_come_back_in_any_layout(started, free_port, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    script = str(Path(__file__).parent / "rows.py")
    with started([script], 2, 2, tmp_path, own=lambda p: [address, "2", str(p)]) as job:
        assert job.codes(90) == [0, 0], job.everything()
    assert all("all rows came back" in job.said(p) for p in range(2))


@pytest.mark.slow
def test_all_processes_compile_the_same_shapes(finished, tmp_path):
    """Of two prompts a process, one process's are often shorter than another's."""
    flags = (FSDP, "--config.step.name=shapes_step", f"--config.step.folder={tmp_path}")
    finished(tmp_path / "run", 4, 1, *flags, "--config.eval.every=0")
    written = [(tmp_path / f"process_{p}.txt").read_text() for p in range(4)]
    assert written[0] and written == written[:1] * 4
