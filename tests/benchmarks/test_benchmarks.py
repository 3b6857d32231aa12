"""Each benchmark runs, checks that both sides compute the same, and prints what `make bench` is read for."""

import json
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("*.py"))
KEYS = {"benchmark", "against", "ratio", "low", "high", "shape", "versions"}


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_prints_a_line_a_measurement(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    runpy.run_path(str(path), run_name="__main__")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines
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


def test_they_exist():
    assert {"shared_prompt", "blockwise"} <= {path.stem for path in BENCHMARKS}
