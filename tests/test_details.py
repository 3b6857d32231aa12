"""Token details against the rollouts that they were made of, and pictures against the graphs."""

import numpy as np
import pytest

from sdd import details
from sdd.tasks.base import Drawing, Node
from sdd.tasks.concept_graph_config import EOS
from sdd.testing import graded_batch, tiny_task


def answers(task, examples):
    """Of each example: its chains in order, the first of them twice, and a path that leaves the graph."""
    rows = []
    for e in examples:
        chains = [np.array([*chain, EOS], np.int32) for chain in e["chains"]]
        stray = next(i for i in range(70, 20, -1) if i not in e["nodes"])
        rows.append([*chains, chains[0], np.array([e["chains"][0][0], stray, EOS], np.int32)])
    return rows


@pytest.fixture(scope="module")
def batch():
    task = tiny_task()
    examples = [task.source("harder")[i] for i in range(4)]
    graded = graded_batch(task, answers(task, examples), examples)
    rng = np.random.default_rng(0)
    logp_NxT = np.where(graded.rollouts.mask_NxT, -rng.exponential(2, graded.rollouts.mask_NxT.shape), 0)
    return task, examples, graded.rollouts._replace(model_logp_NxT=logp_NxT.astype(np.float32))


def test_tokens_come_back_from_the_file(batch, tmp_path):
    task, examples, rollouts = batch
    made = details.details_of(task.tokenizer, rollouts, details.drawings_of(task, examples, rollouts))
    (tmp_path / "x.npz").write_bytes(details.to_bytes(made))
    found = details.read(tmp_path / "x.npz")
    ends = np.cumsum(found.length_N)
    assert len(ends) == len(rollouts.mask_NxT)
    for n, (end, length) in enumerate(zip(ends, found.length_N)):
        tokens = rollouts.response_NxT[n][rollouts.mask_NxT[n]]
        np.testing.assert_array_equal(found.token_M[end - length : end], tokens)
        logp = rollouts.model_logp_NxT[n][rollouts.mask_NxT[n]]
        np.testing.assert_allclose(found.logp_M[end - length : end], logp, rtol=1e-3)
        words = " ".join(found.pieces[int(t)] for t in found.token_M[end - length : end])
        assert words == task.tokenizer.decode(tokens)
    assert details.to_bytes(made) == details.to_bytes(made._replace(length_N=made.length_N.copy()))


def test_pictures_show_the_graph_and_the_path(batch):
    task, examples, rollouts = batch
    pictures = details.drawings_of(task, examples, rollouts)
    group = len(rollouts.mask_NxT) // len(examples)
    for b, (example, picture) in enumerate(zip(examples, pictures)):
        labels = [node.label for node in picture["nodes"]]
        assert len(set(node[1:3] for node in picture["nodes"])) == len(labels)  # none hides another
        drawn = {(labels[i], labels[j]) for i, j in picture["edges"]}
        prompt = task.tokenizer.decode(task.prompt(example)).removeprefix("<bos> ").split(" <sep> ")
        assert drawn == {tuple(edge.split()) for edge in prompt[:-1]}
        kinds = {node.label: node.kind for node in picture["nodes"]}
        assert [n for n, k in kinds.items() if k in ("start", "goal")] == prompt[-1].split()[1:]
        live = {prompt[-1].split()[2]}
        for _ in drawn:  # backwards from the goal
            live |= {a for a, b in drawn if b in live}
        assert {n for n, k in kinds.items() if k == "dead"} == set(labels) - live
        assert picture["of"][:-1] == [*range(group - 2), 0] and picture["of"][-1] == group - 2
        for i, row in enumerate(picture["of"]):
            response = picture["responses"][row]
            every = labels + [node.label for node in response["nodes"]]
            tokens = rollouts.response_NxT[b * group + i][rollouts.mask_NxT[b * group + i]]
            words = task.tokenizer.decode(tokens).removesuffix(" <eos>").split()
            assert [every[p] for p in response["path"]] == [prompt[-1].split()[1], *words]
            broken = (every[response["path"][-2]], every[response["path"][-1]]) not in drawn
            assert broken == bool(response["nodes"]) == (i == group - 1)


def test_a_picture_that_is_another_for_each_response_is_refused(batch):
    task, examples, rollouts = batch
    task = task._replace(draw=lambda example, response: Drawing((Node(str(response), 0, 0),), ()))
    with pytest.raises(ValueError, match=r"concept_graph: the drawing of a response to harder/0 must begin"):
        details.drawings_of(task, examples, rollouts)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", None])
def test_a_file_that_is_torn_or_missing_is_named_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz: ") as error:
        details.read(tmp_path / "x.npz")
    assert "\n" not in str(error.value)
