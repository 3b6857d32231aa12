import io
import json
import os
import stat
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd import logfile, writers


def lines(path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- values -----------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_floats_read_back_to_the_same_bits(number):
    back = json.loads(writers.to_line({"x": number, "f32": np.float64(number)}))
    assert [np.float64(back[name]).tobytes() for name in ("x", "f32")] == [np.float64(number).tobytes()] * 2


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_float32_reads_back_to_the_same_bits(number):
    back = json.loads(writers.to_line({"x": np.float32(number)}))
    assert np.float32(back["x"]).tobytes() == np.float32(number).tobytes()


def test_scalars_and_arrays_of_numpy_and_jax():
    record = {
        "numpy": (np.int32(3), np.bool_(True), np.float16(0.5), np.str_("a")),
        "jax": [jnp.float32(0.25), jnp.int32(7), jnp.bfloat16(1.5), jnp.array([1, 2])],
        "not finite": [float("nan"), np.float32("inf"), jnp.float32("-inf"), np.array([1.0, np.nan])],
        "plain": [None, True, 2, "x"],
        3: 4,
    }
    assert json.loads(writers.to_line(record)) == {
        "numpy": [3, True, 0.5, "a"],
        "jax": [0.25, 7, 1.5, [1, 2]],
        "not finite": [None, None, None, [1.0, None]],
        "plain": [None, True, 2, "x"],
        "3": 4,
    }


@pytest.mark.parametrize("text", ["a\nb\r\u2028\x85c", "\x1b[31mred", "\ud800 lone", "é 漢 🙂", "\0"])
def test_any_text_stays_on_its_line_and_reads_back(text):
    line = writers.to_line({"completion": text})
    assert all(32 <= byte < 127 for byte in line[:-1]) and line.endswith(b"\n")
    assert json.loads(line) == {"completion": text}


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), 1j])
def test_what_json_cannot_say_is_refused_in_one_line(value):
    with pytest.raises(
        TypeError, match=r"cannot write a (object|set|ndarray|complex) as JSON: .*valid: "
    ) as error:
        writers.to_line({"x": [value]})
    assert "\n" not in str(error.value)


# ---- whole files ------------------------------------------------------------------------------------------


def test_whole_files_read_back_and_leave_nothing_else(tmp_path):
    writers.write_json_atomic(tmp_path / "a" / "config.json", {"seed": np.int64(1), "x": float("nan")})
    writers.write_lines_atomic(str(tmp_path / "a" / "r.jsonl"), ({"i": i} for i in range(3)))
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == {"seed": 1, "x": None}
    assert lines(tmp_path / "a" / "r.jsonl") == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert sorted(os.listdir(tmp_path / "a")) == ["config.json", "r.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.jsonl"
    writers.write_lines_atomic(path, [{"old": 1}])

    def records():
        yield {"new": 1}
        assert lines(path) == [{"old": 1}]  # nothing of the new file shows before it is whole
        raise RuntimeError("grader died")

    with pytest.raises(RuntimeError, match="grader died"):
        writers.write_lines_atomic(path, records())
    assert lines(path) == [{"old": 1}] and os.listdir(tmp_path) == ["r.jsonl"]


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path):
    path = tmp_path / "claims.json"
    writers.write_json_atomic(path, {"old": 1})
    with path.open() as reader:
        writers.write_json_atomic(path, {"new": 2})
        assert json.load(reader) == {"old": 1}
    assert json.loads(path.read_text()) == {"new": 2}


def test_a_whole_file_has_the_usual_permissions(tmp_path):
    writers.write_json_atomic(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("{}")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "b.json").stat().st_mode
    )


# ---- resume -----------------------------------------------------------------------------------------------


def test_truncate_keeps_the_bytes_of_whole_lines_up_to_the_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "x":0.1}\n{"x": 2.50, "step": 2}\n'
    bad = b'\xff\xfe\n[1]\n7\n{"no": "step"}\n{"step": "1"}\n\n{"step": 1, "x"\n'
    path.write_bytes(good + bad + b'{"step": 3}\n{"step": 4, "lo')
    assert writers.truncate_after(path, 2) == 9
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_truncate_at_every_byte_of_a_crash(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = [writers.to_line({"step": step, "loss": 1 / step}) for step in (1, 2, 3)]
    for size in range(len(b"".join(whole)) + 1):
        path.write_bytes(b"".join(whole)[:size])
        writers.truncate_after(path, 2)
        complete = sum(len(b"".join(whole[: n + 1])) - 1 <= size for n in (0, 1))  # without the end of line
        assert path.read_bytes() == b"".join(whole[:complete])


def test_truncate_leaves_a_clean_or_missing_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert writers.truncate_after(path, 5) == 0 and not path.exists()
    path.write_bytes(b'{"step": 5}\n')
    before = path.stat()
    assert writers.truncate_after(path, 5) == 0
    assert path.stat().st_ino == before.st_ino and path.stat().st_mtime_ns == before.st_mtime_ns


def write_steps(workdir, steps, resume_step):
    logs = writers.open_writers(workdir, resume_step=resume_step)
    for step in steps:
        logs.log_metrics(step, {"loss": np.float32(1) / step})
        logs.log_event(step, "runaway", "longer")
    logs.close()


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path):
    write_steps(tmp_path / "straight", range(1, 7), resume_step=0)
    write_steps(tmp_path / "resumed", range(1, 6), resume_step=0)
    with open(tmp_path / "resumed" / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "lo')
    write_steps(tmp_path / "resumed", range(4, 7), resume_step=3)
    for name in ("metrics.jsonl", "events.jsonl"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


# ---- logs -------------------------------------------------------------------------------------------------


def test_each_log_gets_its_line_at_once(tmp_path):
    logs = writers.open_writers(tmp_path / "run")
    logs.log_metrics(jnp.int32(1), {"loss": jnp.float32(0.5), "grad_norm": float("inf")})
    logs.log_timings(1, {"seconds": 2.0, "sample_seconds": 1.5, "update_seconds": 0.5})
    logs.log_evaluation(1, "id", 128, 32, {"pass@1": (np.float64(0.5), 0.25, float("nan"))})
    logs.log_event(1, "nonfinite", "the loss is nan")
    run = tmp_path / "run"  # nothing is flushed or closed yet
    assert lines(run / "metrics.jsonl") == [{"step": 1, "loss": 0.5, "grad_norm": None}]
    assert list(lines(run / "timings.jsonl")[0]) == ["step", "seconds", "sample_seconds", "update_seconds"]
    pass_at_1 = {"value": 0.5, "low": 0.25, "high": None}
    evaluation = {
        "step": 1,
        "split": "id",
        "num_prompts": 128,
        "num_samples": 32,
        "metrics": {"pass@1": pass_at_1},
    }
    assert lines(run / "evaluations.jsonl") == [evaluation]
    assert lines(run / "events.jsonl") == [{"step": 1, "event": "nonfinite", "message": "the loss is nan"}]
    logs.flush(fsync=True)
    logs.close()


def test_append_goes_on_below_a_torn_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    for step in (2, 3):
        log = logfile.open_log(path)
        log.write(writers.to_line({"step": step}))
        log.close()
    assert path.read_bytes() == b'{"step": 1}\n{"st\n{"step": 2}\n{"step": 3}\n'


def test_a_metric_called_step_is_refused(tmp_path):
    logs = writers.open_writers(tmp_path)
    with pytest.raises(ValueError, match=r"'step' is taken in metrics\.jsonl"):
        logs.log_metrics(1, {"step": 2})
    logs.close()


def test_other_hosts_write_nothing(tmp_path):
    logs = writers.open_writers(tmp_path / "run", enabled=False, tensorboard=True)
    logs.log_metrics(1, {"loss": 1.0})
    logs.log_event(1, "resumed", "")
    logs.flush(fsync=True)
    logs.close()
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_finite_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    logs = writers.open_writers(tmp_path, tensorboard=True, resume_step=0)
    logs.log_metrics(1, {"loss": jnp.float32(0.5), "grad_norm": float("nan")})
    logs.log_evaluation(1, "larger", 8, 4, {"distinct@8": (2.0, 1.0, 3.0)})
    logs.log_event(1, "runaway", "longer")
    logs.close()
    [events] = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(tag in content for tag in (b"train/loss", b"eval_larger/distinct", b"runaway"))
    assert b"grad_norm" not in content


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'sdd\[tensorboard\]'"):
        writers.open_writers(tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


# ---- progress ---------------------------------------------------------------------------------------------


def shown(terminal: bool, total: int, start: int = 0, enabled: bool = True, text: str = "loss 0.1") -> str:
    out = io.StringIO()
    console = rich.console.Console(
        file=out, force_terminal=terminal, width=120, color_system=None, _environ={"TERM": "xterm"}
    )
    with writers.progress(total, start, enabled, console) as update:
        for step in range(start + 1, total + 1):
            update(step, text)
    return out.getvalue()


def test_without_a_terminal_a_plain_line_at_every_tenth():
    output = shown(terminal=False, total=300, start=100).splitlines()
    assert [line.split()[1] for line in output] == [f"{step}/300" for step in range(120, 301, 20)]
    assert all(
        "steps/s  elapsed 0:00:00  left 0:00:0" in line and line.endswith("loss 0.1") for line in output
    )


def test_the_rate_and_the_time_left_count_this_process_only(monkeypatch):
    clock = iter([1000.0, 1100.0])
    monkeypatch.setattr("sdd.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    with writers.progress(1000, 600, console=rich.console.Console(file=out, width=20)) as update:
        update(650)  # 50 steps in 100 s; 350 are left
    assert out.getvalue() == "step 650/1000  0.5 steps/s  elapsed 0:01:40  left 0:11:40\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_counted_has_a_name(terminal):
    out = io.StringIO()
    console = rich.console.Console(
        file=out, force_terminal=terminal, width=120, color_system=None, _environ={"TERM": "xterm"}
    )
    with writers.progress(4, console=console, unit="prompt") as update:
        update(4)
    assert "prompts/s" in out.getvalue() and "step" not in out.getvalue()


@pytest.mark.parametrize(("total", "start"), [(3, 0), (1, 0), (5, 5)])
def test_short_and_finished_runs(total, start):
    assert len(shown(terminal=False, total=total, start=start).splitlines()) == total - start


def test_a_terminal_gets_a_bar():
    output = shown(terminal=True, total=40)
    assert "━" in output and "40/40" in output and "steps/s" in output and "loss 0.1" in output


@pytest.mark.parametrize("terminal", [True, False])
def test_text_cannot_act_on_the_terminal_or_style_itself(terminal):
    output = shown(terminal, total=1, text="[red]x[/red] \x1b]0;owned\x07 a\nb")
    assert r"[red]x[/red] \x1b]0;owned\x07 a\nb" in output and "\x1b]0;" not in output


def test_switched_off_it_shows_nothing():
    assert shown(terminal=True, total=3, enabled=False) == ""


def test_a_log_in_a_store_is_uploaded_whole_and_seldom(tmp_path):
    target, now = epath.Path(tmp_path / "metrics.jsonl"), [0.0]
    target.write_bytes(b'{"step": 1}\n{"st')  # what a crash left
    log = logfile.ObjectLog(target, lambda: now[0])
    log.write(b'{"step": 2}\n')
    log.flush()
    assert target.read_bytes() == b'{"step": 1}\n{"st'
    now[0] = 31.0
    log.flush()
    assert target.read_bytes() == b'{"step": 1}\n{"st\n{"step": 2}\n'
    log.write(b'{"step": 3}\n')
    logfile.sync(log)
    assert target.read_bytes().endswith(b'{"step": 3}\n')
    log.write(b'{"step": 4}\n')
    log.close()
    assert target.read_bytes().endswith(b'{"step": 4}\n')
