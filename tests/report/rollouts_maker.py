"""Writes run folders whose rollouts are known to the token; a helper of the tests, not a test."""

import json
from pathlib import Path

import numpy as np

from sdd import details

WORDS = ("a0", "b1", "c2", "goal", "<eos>", "<b>x</b>", "\x1b[31m", "‮rtl", "שלום", "語", "🙂", "\ud800")
LOGP = (-0.01, -0.1, -0.4, -0.8, -1.2, -2.0, -3.5, -7.0)


def rollouts(rng, number, length=5, strategies=("birds", "fruits", None), words=WORDS):
    """``[(tokens, strategy, correct, logp a token), ...]``."""
    made = []
    for _ in range(number):
        tokens = [str(words[i]) for i in rng.integers(0, len(words), rng.integers(1, length + 1))]
        logp = rng.choice(LOGP, len(tokens)).tolist()
        made.append((tokens, strategies[rng.integers(len(strategies))], bool(rng.random() < 0.5), logp))
    return made


def drawing(group, start="s", goal="goal"):
    """A picture of two nodes and the words of each response; a word that is neither is a stray."""
    nodes = [[start, 0.0, 0.5, "start"], [goal, 1.0, 0.5, "goal"]]
    responses = []
    for tokens, *_ in group:
        strays = [w for w in dict.fromkeys(tokens) if w != goal]
        added = [[w, (i + 1) / (len(strays) + 1), 1.0, "stray"] for i, w in enumerate(strays)]
        responses.append(
            {"nodes": added, "path": [0, *(1 if w == goal else 2 + strays.index(w) for w in tokens)]}
        )
    return {
        "nodes": nodes,
        "edges": [[0, 1]],
        "text": "two nodes",
        "responses": responses,
        "of": [*range(len(group))],
    }


def write_file(folder: Path, step, split, prompts, more=None, with_details=True, draw=True):
    """prompts: {prompt_id: rollouts}; more: {prompt_id: fields beside the usual ones}."""
    path = folder / f"rollouts/step_{step:06d}/{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines, pieces = [], {}
    for prompt_id, group in prompts.items():
        tokens, strategy, correct, _ = zip(*group)
        line = {"prompt_id": prompt_id, "prompt": f"prompt of {prompt_id} <q> \u202e", "split": split}
        line |= {
            "completion": [" ".join(t) for t in tokens],
            "correct": list(correct),
            "strategy": list(strategy),
        }
        line |= {"score": [float(c) for c in correct], "token_entropy": [0.5] * len(group)}
        lines.append(line | {"num_tokens": [len(t) for t in tokens]} | (more or {}).get(prompt_id, {}))
        for word in (w for t in tokens for w in t):
            pieces.setdefault(word, len(pieces))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if with_details:
        every = [one for group in prompts.values() for one in group]
        made = details.Details(
            np.array([len(one[0]) for one in every], np.int32),
            np.array([pieces[w] for one in every for w in one[0]], np.uint16),
            np.array([x for one in every for x in one[3]], np.float16),
            {i: word for word, i in pieces.items()},
            [drawing(group) for group in prompts.values()] if draw else [],
        )
        path.with_name(f"{split}.details.npz").write_bytes(details.to_bytes(made))


def write_run(folder: Path, evaluations, train=None, **options):
    """evaluations: {step: {split: {prompt_id: rollouts}}}; train: {step: (prompts, fields)}."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"seed": 0, "train": {"num_steps": max(evaluations)}}))
    lines = []
    for step, splits in evaluations.items():
        for split, prompts in splits.items():
            write_file(folder, step, split, prompts, **options)
            n = len(next(iter(prompts.values())))
            line = {"step": step, "split": split, "num_prompts": len(prompts), "num_samples": n}
            lines.append(json.dumps(line | {"metrics": {}}) + "\n")
    (folder / "evaluations.jsonl").write_text("".join(lines))
    for step, (prompts, more) in (train or {}).items():
        write_file(folder, step, "train", prompts, more, **options)


def write_study(path: Path, seeds=(0,), methods=("warm_start", "grpo", "sdsd_k1"), prompts=4, n=8, **options):
    """Random rollouts; the training batch of each step has demonstrations, one of them of another prompt."""
    for seed in seeds:
        for m, method in enumerate(methods):
            steps = (1300,) if method == "warm_start" else (0, 50, 100)
            rng = np.random.default_rng([seed, m])
            evaluations = {
                t: {s: {f"{s}/{i}": rollouts(rng, n) for i in range(prompts)} for s in ("id", "harder")}
                for t in steps
            }
            train = {t: batch(rng) for t in steps if 0 < t < 1000}
            write_run(path / f"seed_{seed}" / method, evaluations, train, **options)
    return path


def batch(rng, size=4):
    """Two prompts: row 0 has no teacher, row 1 one of the other prompt, the others row 0 and the next."""
    prompts = {f"train/{i}": rollouts(rng, size) for i in range(2)}
    more = {}
    for line, name in enumerate(prompts):
        rows = [[], [size * (1 - line) + 2], *([line * size, line * size + 1] for _ in range(size - 2))]
        more[name] = {"demonstrations": rows}
    return prompts, more
