"""Prompts of chats, with and without demonstrations; strategies by number; evaluation reads both kinds."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from sdd import evaluate
from sdd.metrics import rollout_metrics
from sdd.tasks import concept_graph
from sdd.tasks._strategies import clusters, stable_id, text_clusters
from sdd.tasks.chat_task import (
    ChatConfig,
    after_thinking,
    chat_task,
    fitting,
    make_prompts,
    reasoning,
    tagged_answer,
)
from sdd.typed import ConfigError
from sdd.types import Grades, Rollouts

EXAMPLE = {"prompt_id": "a/1", "system": "Be brief.", "question": "What is 2 + 2?"}
HEAD = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"
TAUGHT = f"{HEAD}\n\nCorrect solution:\n\n%s\n\nCorrectly solve the original question.{TAIL}"


def prompts_of(chat, **changes):
    config = ChatConfig(**{"tokenizer": chat, "prompt_length": 200, "response_length": 50} | changes)
    return make_prompts(config)


def text(prompts, ids):
    return prompts.tokenizer.decode_special(ids)


def ids_of(prompts, words):
    return prompts.tokenizer.encode(words)


@pytest.mark.parametrize("thinking", [False, True])
def test_prompts_are_what_the_template_writes(chat, thinking):
    prompts = prompts_of(chat, thinking=thinking)
    end = "" if thinking else NO_THOUGHT
    plain, taught = (
        prompts.prompt(EXAMPLE),
        prompts.demonstration_prompt(EXAMPLE, ids_of(prompts, "It is 4.")),
    )
    assert text(prompts, plain) == HEAD + TAIL + end
    assert text(prompts, taught) == TAUGHT % "It is 4." + end
    assert plain.dtype == taught.dtype == np.int32
    # A special token is one id, and both sides end in the same ids.
    tail = ids_of(prompts, TAIL + end).tolist()
    assert tail.count(prompts.tokenizer.stop_ids[0]) == 1
    assert plain[-len(tail) :].tolist() == taught[-len(tail) :].tolist() == tail


def test_a_system_text_of_the_config_replaces_the_examples(chat):
    prompts = prompts_of(chat, system="Be long.")
    assert text(prompts, prompts.prompt(EXAMPLE)).startswith("<|im_start|>system\nBe long.<|im_end|>")
    without = {**EXAMPLE, "system": ""}
    assert text(prompts_of(chat), prompts_of(chat).prompt(without)).startswith("<|im_start|>user\n")


def test_an_empty_demonstration_gives_the_plain_prompt(chat):
    prompts = prompts_of(chat)
    stop = prompts.tokenizer.stop_ids[0]
    for empty in ([], [stop], [stop, 65, 66]):
        assert (
            prompts.demonstration_prompt(EXAMPLE, np.array(empty, np.int32)) == prompts.prompt(EXAMPLE)
        ).all()


def test_a_demonstration_shows_the_tokens_before_its_stop(chat):
    prompts = prompts_of(chat)
    row = [*ids_of(prompts, "It is 4."), prompts.tokenizer.stop_ids[0], *ids_of(prompts, "rest")]
    assert text(prompts, prompts.demonstration_prompt(EXAMPLE, np.array(row))).count("rest") == 0


def test_the_start_of_responses_is_in_prompts_demonstrations_and_verdicts(chat):
    prompts = prompts_of(chat, response_start="<answer>")
    start = ids_of(prompts, "<answer>").tolist()
    plain, taught = prompts.prompt(EXAMPLE), prompts.demonstration_prompt(EXAMPLE, ids_of(prompts, "4"))
    assert text(prompts, plain) == HEAD + TAIL + NO_THOUGHT + "<answer>"
    assert text(prompts, taught) == TAUGHT % "<answer>4" + NO_THOUGHT + "<answer>"
    assert plain[-len(start) :].tolist() == taught[-len(start) :].tolist() == start
    np.testing.assert_array_equal(prompts.demonstration_prompt(EXAMPLE, ids_of(prompts, "")), plain)
    assert len(plain) <= prompts.context_length and len(taught) <= prompts.demonstration_context_length
    assert prompts.text(ids_of(prompts, "4</answer>")) == "<answer>4</answer>"
    assert prompts.text(prompts.response("<answer>4")) == "<answer>4"
    np.testing.assert_array_equal(prompts.response("<answer>4"), prompts.response("4"))


def test_a_demonstration_cannot_end_the_users_turn(chat):
    """Neither by a special token, nor by the text of one typed in single tokens."""
    prompts = prompts_of(chat)
    start = ids_of(prompts, "<|im_start|>")
    typed = np.concatenate([ids_of(prompts, letter) for letter in "<|im_end|>"])
    assert len(start) == 1 and len(typed) == 10
    taught = prompts.demonstration_prompt(EXAMPLE, np.concatenate([ids_of(prompts, "x"), start, typed]))
    assert text(prompts, taught) == TAUGHT % "x<|im_end|>" + NO_THOUGHT
    plain = prompts.prompt(EXAMPLE)
    for special in (start[0], prompts.tokenizer.stop_ids[0]):
        assert (taught == special).sum() == (plain == special).sum()


@pytest.mark.parametrize("how", ["middle", "end"])
def test_only_the_demonstration_is_cut(chat, how):
    prompts = prompts_of(chat, demonstration_length=10, demonstration_cut=how)
    whole = "0123456789abcdefghij"
    for length in (9, 10, 11, 20):
        ids = ids_of(prompts, whole[:length])
        cut = max(length - 10, 0)
        kept = whole[: 10 if how == "end" else 5] + whole[length - 5 : length] if cut else whole[:length]
        shown = kept[:10] if how == "end" else kept
        assert text(prompts, prompts.demonstration_prompt(EXAMPLE, ids)) == TAUGHT % shown + NO_THOUGHT
        assert prompts.demonstration_cut(ids) == cut


def test_no_row_is_longer_than_the_task_says(chat):
    """Every example that fits has room for the longest demonstration, whatever its question is."""
    prompts = prompts_of(chat, prompt_length=120, response_length=30)
    rng = np.random.default_rng(0)
    lengths = []
    for _ in range(200):
        letters = rng.choice(list("ab \nü€{}$"), rng.integers(1, 60))
        example = {**EXAMPLE, "question": "".join(letters)}
        if not prompts.fits(example):
            assert len(prompts_of(chat).prompt(example)) > 120 - 8
            continue
        assert len(prompts.prompt(example)) <= 120 == prompts.context_length
        shown = prompts.demonstration_prompt(example, np.full(77, 65, np.int32))
        assert text(prompts, shown).endswith("Correctly solve the original question." + TAIL + NO_THOUGHT)
        assert f"user\n{example['question']}\n\nCorrect" in text(prompts, shown)
        lengths.append(len(shown))
    assert 120 < max(lengths) <= prompts.demonstration_context_length and len(lengths) > 20


def test_what_does_not_fit_is_refused_with_its_name(chat):
    prompts = prompts_of(chat, prompt_length=20)
    assert not prompts.fits(EXAMPLE)
    with pytest.raises(ValueError, match=r"^a/1: a prompt of \d+ tokens; at most 20 fit"):
        prompts.prompt(EXAMPLE)
    with pytest.raises(ConfigError, match=r"config.task.prompt_length=20: .*of here none of 1 prompts fits"):
        fitting(prompts, [EXAMPLE], 0, "here")
    short = {**EXAMPLE, "system": "", "question": "?"}
    wide = prompts_of(chat, prompt_length=60)
    assert fitting(wide, [short, EXAMPLE, short, short], 2, "here") == ([short, short], 1)


def test_thinking_is_shown_when_asked_for(chat):
    row = "<think>\nhm\n</think>\n\nIt is 4."
    for shown, expected in ((True, row), (False, "It is 4.")):
        prompts = prompts_of(chat, demonstration_thinking=shown)
        taught = prompts.demonstration_prompt(EXAMPLE, ids_of(prompts, row))
        assert text(prompts, taught) == TAUGHT % expected + NO_THOUGHT


def test_a_response_ends_as_the_template_ends_a_turn(chat):
    prompts = prompts_of(chat)
    row = prompts.response("It is 4.")
    assert text(prompts, row) == "It is 4.<|im_end|>" and prompts.text(row) == "It is 4."


def test_bad_settings_are_refused_in_one_line(chat, make_chat):
    for changes, message in (
        ({"tokenizer": ""}, r"config.task.tokenizer='': .*valid: "),
        ({"tokenizer": "nowhere"}, r"config.task.tokenizer='nowhere': .*no such file"),
        ({"chat_template": "nowhere"}, r"no chat template 'nowhere'"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            prompts_of(chat, **changes)
        assert "\n" not in str(error.value)
    for changes, message in (
        ({"prompt_length": 0}, "prompt_length is 0; valid: 1 or more"),
        ({"cluster_threshold": 1.5}, "cluster_threshold is 1.5"),
        ({"teacher_text": "{question}"}, r"teacher_text has \{demonstration\} 0 times"),
        ({"date": "today"}, "date is 'today'"),
    ):
        with pytest.raises(ValueError, match=message):
            ChatConfig(**changes)
    # A template that answers a long question under another header.
    crooked = "{{ messages[-1].content }}<|im_end|>{% if messages[-1].content | length > 40 %}!{% endif %}A:"
    with pytest.raises(ConfigError, match=r"config.task.chat_template='': .*student reads .*teacher"):
        prompts_of(make_chat(crooked))


def test_the_date_is_the_configs(make_chat):
    dated = make_chat("{{ strftime_now('%d %b %Y') }}: {{ messages[-1].content }}<|im_end|>")
    prompts = prompts_of(dated, date="2001-02-03")
    assert text(prompts, prompts.prompt(EXAMPLE)).startswith("03 Feb 2001: Be brief.")


@pytest.mark.parametrize(
    "response, answer",
    [
        ("<answer>\nA\n</answer>", "A"),
        ("<answer> A", "A"),
        ("<answer>B</answer> or <answer>A</answer>", "A"),
        ("<answer>A</answer> so it is B", "A"),
        ("<answer></answer>", ""),
        ("A", None),
        ("</answer>A", None),
        ("<Answer>A</Answer>", None),
    ],
)
def test_tagged_answer(response, answer):
    assert tagged_answer(response) == answer


def test_parts_of_a_response():
    response = "<think>one</think><reasoning>\ntwo\n</reasoning>\n<answer>A</answer>"
    assert after_thinking("<think>one</think>two") == "two" and after_thinking("two") == "two"
    assert reasoning(response) == "one\ntwo" and reasoning("three") == "three"


def test_stable_ids():
    assert stable_id(("9", "18")) == 1186782459  # of another process: it is the same in every run
    ids = {stable_id(i) for i in range(2000)}
    assert len(ids) == 2000 and min(ids) >= 0 and max(ids) < 2**31 and max(ids) > 2**30


def test_clusters_by_the_mean_similarity_of_their_members():
    angles = np.deg2rad([0, 3, 90, 93, 180, 1])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [5], [1], [2], [1], [9]])
    assert clusters(vectors, 0.9).tolist() == [0, 0, 1, 1, 2, 0]
    assert clusters(vectors, -0.99).tolist() == [0] * 6
    assert clusters(np.array([[0, 0], [1, 0], [0, 0]]), 0.9).tolist() == [-1, 0, -1]
    assert clusters(np.zeros((2, 3)), 0.9).tolist() == [-1, -1]
    # 40 and 80 degrees: neighbours are similar (0.77), the ends are not (0.17), so their mean decides.
    fan = np.deg2rad([0, 40, 80])
    fan = np.stack([np.cos(fan), np.sin(fan)], axis=1)
    assert len(set(clusters(fan, 0.7).tolist())) == 2 and len(set(clusters(fan, 0.4).tolist())) == 1


def test_clusters_do_not_hang_on_the_order():
    rng = np.random.default_rng(1)
    vectors = np.repeat(np.eye(4), 5, axis=0) + 0.1 * rng.normal(size=(20, 4))
    found = clusters(vectors, 0.7)
    assert found.tolist() == sorted(found.tolist()) and found.max() == 3
    order = rng.permutation(20)
    again = clusters(vectors[order], 0.7)
    assert ((again[:, None] == again) == (found[order][:, None] == found[order])).all()


def first_letter(texts):
    """An embedder for tests: texts that begin alike are alike."""
    return np.array([[float(text[0] == letter) for letter in "abc"] + [0.01] for text in texts])


def test_text_clusters(monkeypatch):
    import sdd.embedders

    monkeypatch.setattr(sdd.embedders, "load", lambda spec: first_letter)
    assert text_clusters("any", 0.9)(["ab", " ", "b", "a"]).tolist() == [0, -1, 1, 0]
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"config.task.embedder='nothing': .*valid: wordllama"):
        text_clusters("nothing", 0.9)


# What evaluation makes of strategies that cannot be listed.


def rollouts_of(task, examples, responses):
    rows = [row for group in responses for row in group]
    response_NxT = np.zeros((len(rows), task.response_length), np.int32)
    mask_NxT = np.zeros(response_NxT.shape, bool)
    for n, row in enumerate(rows):
        response_NxT[n, : len(row)], mask_NxT[n, : len(row)] = row, True
    zero_NxT = np.zeros(response_NxT.shape, np.float32)
    context_BxP = np.zeros((len(examples), 4), np.int32)
    return Rollouts(
        context_BxP, np.full(len(examples), 4), response_NxT, mask_NxT, zero_NxT, zero_NxT, zero_NxT
    )


def small_task(chat, monkeypatch, embedder="", strategy=lambda text: -1):
    import sdd.embedders

    monkeypatch.setattr(sdd.embedders, "load", lambda spec: first_letter)
    config = ChatConfig(tokenizer=chat, prompt_length=200, response_length=20, embedder=embedder)
    prompts = make_prompts(config)
    return chat_task(
        "small",
        config,
        prompts,
        splits=("test",),
        source=lambda split: [EXAMPLE],
        judge=lambda example, text: (0.5 if text == "half" else float("4" in text), strategy(text)),
    )


def test_clusters_are_told_within_a_prompt(chat, monkeypatch):
    task = small_task(chat, monkeypatch, embedder="any")
    examples = [EXAMPLE, {**EXAMPLE, "prompt_id": "a/2"}]
    words = [["c4", "a4", "c", ""], ["b", "a", "b4", "half"]]
    rollouts = rollouts_of(task, examples, [[task.tokenizer.encode(w) for w in group] for group in words])
    grades = evaluate.grade(task, examples, rollouts)
    assert grades.strategy_N.tolist() == [0, 1, 0, -1, 0, 1, 0, 2]
    assert grades.strategy_N.dtype == np.int32
    assert grades.correct_N.tolist() == [True, True, False, False, False, False, True, False]
    assert grades.score_N.tolist() == [1, 1, 0, 0, 0, 0, 1, 0.5]
    assert grades.right_prefix_N.tolist() == [-1] * 8


def test_numbers_of_strategies_are_ranked_within_a_prompt(chat, monkeypatch):
    numbers = {"p4": 900, "q4": 7, "r": 2**31 - 1, "s": -1}
    task = small_task(chat, monkeypatch, strategy=numbers.get)
    examples = [EXAMPLE, {**EXAMPLE, "prompt_id": "a/2"}]
    words = [["p4", "q4", "p4", "r"], ["s", "r", "s", "r"]]
    rollouts = rollouts_of(task, examples, [[task.tokenizer.encode(w) for w in group] for group in words])
    grades = evaluate.grade(task, examples, rollouts)
    assert grades.strategy_N.tolist() == [900, 7, 900, 2**31 - 1, -1, 2**31 - 1, -1, 2**31 - 1]
    samples = evaluate.group_samples(rollouts, grades, 4, len(task.strategies), (1, 2, 4))
    assert samples.strategy_BxN.tolist() == [[1, 0, 1, 2], [-1, 0, -1, 0]] and samples.num_strategies == 3
    metrics = rollout_metrics(samples)
    assert metrics["distinct@4"].tolist() == [3, 1]
    assert metrics["distinct_correct@4"].tolist() == [2, 0]
    # Two of four draws: 1 - 1/6 for the pair that is alike, 1/2 for each of the others.
    np.testing.assert_allclose(metrics["distinct@2"][0], 5 / 6 + 1 / 2 + 1 / 2)
    records = evaluate.prompt_records(task, examples, "test", rollouts, grades, 4)
    assert records[0]["strategy"] == ["900", "7", "900", "2147483647"]
    assert records[1]["strategy"] == [None, "2147483647", None, "2147483647"]
    assert records[0]["completion"][1] == "q4"


def test_a_task_that_tells_no_strategies_has_no_metrics_of_them(chat, monkeypatch):
    task = small_task(chat, monkeypatch)
    rollouts = rollouts_of(task, [EXAMPLE], [[task.tokenizer.encode(w) for w in ("4", "5")]])
    grades = evaluate.grade(task, [EXAMPLE], rollouts)
    samples = evaluate.group_samples(rollouts, grades, 2, 0, (1,))
    assert samples.num_strategies == 0 and samples.strategy_BxN.tolist() == [[-1, -1]]
    assert not [name for name in rollout_metrics(samples) if "distinct@" in name or "strategy" in name]
    assert evaluate.prompt_records(task, [EXAMPLE], "t", rollouts, grades, 2)[0]["strategy"] == [None, None]


def test_listed_strategies_stay_as_they_are():
    task = concept_graph.make(concept_graph.Config(), "", 0)
    zero = np.zeros((4, 1), np.float32)
    rollouts = Rollouts(np.zeros((2, 1), int), np.ones(2, int), zero.astype(int), zero > 0, zero, zero, zero)
    grades = Grades(np.ones(4, bool), np.ones(4), np.array([5, -1, 3, 3]), np.zeros(4, int))
    samples = evaluate.group_samples(rollouts, grades, 2, len(task.strategies), (1,))
    assert samples.strategy_BxN.tolist() == [[5, -1], [3, 3]] and samples.num_strategies == 8


def test_supervised_rows_need_references(chat, monkeypatch):
    task = small_task(chat, monkeypatch)
    with pytest.raises(ConfigError, match=r"small has no reference solutions.*valid: .*sdd.tasks.gsm8k"):
        task.supervised(EXAMPLE, np.random.default_rng(0), 2)


def test_the_configs_say_what_their_fields_mean():
    from sdd.tasks import gsm8k, mcq, reasoning_gym, science_qa

    for module in (gsm8k, mcq, reasoning_gym, science_qa):
        documented = f"{ChatConfig.__doc__}\n{module.Config.__doc__}"
        for field in dataclasses.fields(module.Config):
            assert re.search(rf"\b{field.name}\b", documented), (module.__name__, field.name)
    assert not jax.config.jax_enable_x64
