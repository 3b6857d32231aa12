"""Each benchmark runs, checks that both sides compute the same, and prints what `make bench` is read for."""

import json
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))
KEYS = {"benchmark", "against", "ratio", "low", "high", "shape", "versions"}


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_prints_a_line_a_measurement(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    # Against a framework that is not installed nothing is measured, but the file says so.
    assert lines or "is not measured" in printed.err
    for line in printed.err.splitlines():
        if "is not measured" in line:
            assert line.startswith(f"benchmarks/{path.name}: ") and "; pip install " in line
    for line in lines:
        assert set(line) == KEYS
        assert line["benchmark"].startswith(path.stem) and line["shape"] and "jax" in line["versions"]
        assert 0 < line["low"] <= line["ratio"] <= line["high"]


def test_the_ratio_is_theirs_over_ours(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import time

    from common import timing

    measured = timing.ratios(lambda: time.sleep(0.004), lambda: time.sleep(0.02), repetitions=3)
    assert measured.shape == (3,) and (measured > 2).all()
    line = timing.report("name", "what", measured, {"B": 1})
    assert line["low"] == round(measured.min(), 3) and line["high"] == round(measured.max(), 3)


def test_seconds_of_cpu_count_work_and_not_waiting(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import time

    from common import timing

    def busy(seconds: float, units: float | None):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return units

    calls: list[str] = []
    sides = {
        "a": lambda: (calls.append("a"), busy(0.02, None))[1],
        "b": lambda: (calls.append("b"), busy(0.02, 4.0))[1],
        "asleep": lambda: (calls.append("asleep"), time.sleep(0.02), busy(0.002, None))[2],
    }
    took = timing.cpu_seconds(sides, repetitions=3)
    assert all(seconds.shape == (3,) for seconds in took.values())
    np.testing.assert_allclose(np.median(took["a"]), 0.02, rtol=0.3)
    np.testing.assert_allclose(np.median(took["b"]), 0.02 / 4, rtol=0.3)
    assert np.median(took["asleep"]) < 0.01
    turns = [name for name, before in zip(calls, [None, *calls[:-1]]) if name != before]
    assert turns == ["a", "b", "asleep"] * 2 + ["b", "asleep", "a", "asleep", "a", "b"]


def test_a_missing_peer_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    from common import peers

    monkeypatch.setattr(peers, "MODULES", {"tunix": ("no_such_package.at_all",), "transformers": ("json",)})
    assert peers.installed("sampling.py") == ("transformers",)
    assert peers.installed("whole_step.py", ("tunix",)) == ()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("benchmarks/sampling.py: tunix is not measured")
    assert said[0].endswith("pip install google-tunix==0.1.7")


def test_flops_of_a_step_are_those_of_its_products(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import train_step
    from common import peers

    config, (N, S), (E, F, V) = peers.FULL, (2, 5), (256, 1024, peers.VOCABULARY)
    forward = 0
    for shape in [(E, E)] * 4 + [(E, F)] * 2 + [(F, E)]:  # of a layer: q, k, v, o; gate, up; down
        forward += 2 * N * S * shape[0] * shape[1] * config.num_layers
    forward += 2 * N * S * E * V
    forward += config.num_layers * N * config.num_heads * 2 * (2 * S * S * config.head_dim)
    assert train_step.flops(config, N, S) == 3 * forward
    products = train_step.products(config, N * S)
    attention = 3 * config.num_layers * N * config.num_heads * 2 * (2 * S * S * config.head_dim)
    assert sum(flop for flop, _ in products.values()) == 3 * forward - attention


def test_a_token_takes_the_products_of_the_whole_decoder(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import roofline
    from common import peers

    from sdd.model import make
    from sdd.testing import tiny_mesh

    with jax.set_mesh(tiny_mesh()):
        params = make(peers.TINY, peers.VOCABULARY).init(jax.random.key(0))
    sizes = {jax.tree_util.keystr(path): x.size for path, x in jax.tree_util.tree_leaves_with_path(params)}
    in_matrices = sum(size for path, size in sizes.items() if "kernel" in path)
    assert sum(a * b * times for (a, b), times in roofline.matrices(peers.TINY).items()) == in_matrices


def test_they_exist():
    measured = {"shared_prompt", "blockwise", "sampling", "train_step", "whole_step", "roofline"}
    assert measured <= {path.stem for path in BENCHMARKS}
