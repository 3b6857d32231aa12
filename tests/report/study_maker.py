"""Writes a study folder whose rollouts have known counts; a helper of the tests, not a test."""

import json
import math
from pathlib import Path

import numpy as np

CONCEPTS = ("birds", "fruits", "tools", "metals", "rivers")


def row(prompt_id, split, counts, entropy, wrong=0, prompt="s a SEP\ns a", text=None):
    """A rollouts record: counts[i] correct completions of concept i, and some wrong ones of concept 0."""
    strategy = [CONCEPTS[i] for i, count in enumerate(counts) for _ in range(count)] + [CONCEPTS[0]] * wrong
    correct = [True] * sum(counts) + [False] * wrong
    return {
        "prompt_id": prompt_id,
        "prompt": prompt,
        "split": split,
        "completion": [text or f"{name} goal" for name in strategy],
        "correct": correct,
        "score": [float(c) for c in correct],
        "strategy": strategy,
        "token_entropy": [entropy] * len(correct),
        "num_tokens": [4] * len(correct),
    }


def write_lines(path: Path, records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_run(folder: Path, evaluations, name="sdd.steps.sdsd", events=(), train=(), num_steps=None) -> None:
    """evaluations: {step: {split: [records]}}; what evaluations.jsonl says is computed from the records."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = max(evaluations) if num_steps is None else num_steps
    config = {"seed": 0, "step": {"name": name}, "train": {"num_steps": steps, "group_size": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    environment = {"versions": {"jax": "0.0.1"}, "device": "cpu", "num_devices": 1, "python": "3.11"}
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = []
    for step, splits in evaluations.items():
        for split, records in splits.items():
            write_lines(folder / f"rollouts/step_{step:06d}/{split}.jsonl", records)
            n = len(records[0]["correct"])
            line = {"step": step, "split": split, "num_prompts": len(records), "num_samples": n}
            lines.append(line | {"metrics": _metrics(records, n)})
    write_lines(folder / "evaluations.jsonl", lines)
    write_lines(folder / "events.jsonl", events)
    write_lines(folder / "metrics.jsonl", train)


def _metrics(records, n):
    share = [np.unique(r["strategy"], return_counts=True)[1].max() / n for r in records]
    values = {
        "top_strategy_share": np.mean(share),
        "token_entropy": np.mean([np.mean(r["token_entropy"]) for r in records]),
    }
    for k in (1, 8, 32):
        values[f"pass@{k}"] = np.mean([at_k(n, [sum(r["correct"])], k) for r in records])
        values[f"distinct_correct@{k}"] = np.mean([at_k(n, correct_counts(r), k) for r in records])
    return {
        k: {"value": float(v), "low": float(v) - 0.01, "high": float(v) + 0.01} for k, v in values.items()
    }


def _plain(item):
    return item[0], float(item[1])


def correct_counts(record):
    pairs = list(zip(record["strategy"], record["correct"]))
    return [pairs.count((name, True)) for name in set(record["strategy"]) - {None}]


def at_k(n, counts, k):
    """Sum over groups of the chance that k of n draws hold one of its members, by exact binomials."""
    return sum(1 - math.comb(n - c, k) / math.comb(n, k) for c in counts)


# Mean number of correct rollouts of each concept, of 64: what each method keeps.
COUNTS = {
    "warm_start": {"id": (12, 10, 8, 6, 4), "larger": (10, 8, 6, 4, 2), "harder": (0, 8, 6, 4, 2)},
    "grpo": {"id": (36, 8, 4, 2, 0), "larger": (34, 8, 4, 2, 0), "harder": (0, 6, 4, 2, 0)},
    "grpo_diversity": {"id": (14, 12, 10, 8, 6), "larger": (13, 11, 9, 8, 6), "harder": (0, 10, 10, 8, 6)},
    "sdsd_k1": {"id": (57, 2, 0, 0, 0), "larger": (48, 1, 0, 0, 0), "harder": (0, 1, 0, 0, 0)},
    "sdsd_k3": {"id": (57, 2, 0, 0, 0), "larger": (49, 1, 0, 0, 0), "harder": (0, 1, 0, 0, 0)},
}
NO_LOSS = {**COUNTS, "sdsd_k1": COUNTS["grpo_diversity"], "sdsd_k3": COUNTS["grpo_diversity"]}


def records(split, means, num_prompts, n, entropy, seed):
    """Counts scatter around the means by Poisson noise, the same wherever the seed is the same."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(num_prompts):
        drawn = rng.poisson(np.array(means) * n / 64)
        if split != "harder" and i % 4 == 0:
            drawn[0] = 0  # the favourite's chain is broken
        while drawn.sum() > n:
            drawn[drawn.argmax()] -= 1
        drawn = [int(count) for count in drawn]
        noise = float(rng.normal(0, 0.01))
        made.append(row(f"{split}-{i}", split, drawn, entropy + noise, n - sum(drawn)))
    return made


def write_study(path: Path, counts=COUNTS, seeds=(0,), entropies=(0.7, 0.4, 0.2, 0.5), final=24, prompts=16):
    """A study of four evaluations a method; entropies are those of the SDSD runs, step by step."""
    for seed in seeds:
        for m, (method, by_split) in enumerate(counts.items()):
            steps = (1300,) if method == "warm_start" else (0, 100, 200, 300)
            evaluations = {}
            for i, step in enumerate(steps):
                share = i / 3 if len(steps) > 1 else 1.0
                last = step == steps[-1]
                evaluations[step] = {
                    split: records(
                        split,
                        (1 - share) * np.array(COUNTS["warm_start"][split]) + share * np.array(means),
                        final if last else prompts,
                        64 if last else 32,
                        entropies[i] if method.startswith("sdsd") else 0.7,
                        seed=1000 * seed + 100 * m + 10 * i,
                    )
                    for split, means in by_split.items()
                }
            sdsd = method.startswith("sdsd")
            train = [
                {"step": s, "loss": 0.1, "teacher_entropy_on_path": 0.1 + s / 900, "token_entropy": 0.5}
                | ({"teacher_entropy_off_path": 1.0} if s % 2 else {"teacher_entropy_off_path": None})
                for s in range(1, 301)
            ]
            write_run(
                path / f"seed_{seed}" / method,
                evaluations,
                name="sdd.steps.sdsd" if sdsd else f"sdd.steps.{method}",
                train=train if sdsd else (),
            )
    return path
