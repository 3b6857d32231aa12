"""The memory of ``sdd measure`` on a file of a million completions, against a limit of 2 GB.

    python benchmarks/million.py [--quick]

Prompts with 16 samples each, 25 words a completion, written in an order that scatters each prompt's samples
over the whole file. ``ratio`` is 2 GB over the peak of resident memory of the process that measures all
metrics, among them self-BLEU, ROUGE-L and Vendi scores of wordllama's embeddings. Seconds and bytes are in
``shape``.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common.timing import report

LIMIT = 2e9  # bytes
SAMPLES, WORDS, WAYS = 16, 25, 6


def write(path: Path, num_completions: int) -> None:
    """Writes the completions, sample by sample over all prompts."""
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "klmnrst"])
    num_prompts = num_completions // SAMPLES
    with path.open("w", encoding="utf-8") as file:
        for _ in range(SAMPLES):
            for start in range(0, num_prompts, 4096):
                size = min(4096, num_prompts - start)
                text = words[rng.integers(0, len(words), (size, WORDS))]
                correct, way = rng.random(size) < 0.5, rng.integers(0, WAYS, size)
                file.writelines(
                    json.dumps(
                        {
                            "prompt_id": start + i,
                            "completion": " ".join(text[i]),
                            "correct": bool(correct[i]),
                            "strategy": f"way {way[i]}",
                        }
                    )
                    + "\n"
                    for i in range(size)
                )


def measure(path: Path) -> tuple[float, int, dict]:
    """(seconds, peak bytes, what was printed) of a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "sdd", "measure", str(path), "--json", "--embedder=wordllama"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # Of all children so far the largest; there is only this one. Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return time.perf_counter() - began, peak, json.loads(done.stdout)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes, measures, prints a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small file: whether it runs")
    num_completions = 1600 if parser.parse_args(argv).quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts.jsonl"
        write(path, num_completions)
        size = path.stat().st_size
        seconds, peak, printed = measure(path)
    assert printed["samples"] == num_completions
    assert abs(printed["metrics"]["pass@1"]["value"] - 0.5) < 0.05
    shape = {
        "completions": num_completions,
        "file_bytes": size,
        "peak_bytes": peak,
        "seconds": round(seconds),
    }
    print(json.dumps(report("million_memory", "2 GB", np.array([LIMIT / peak]), shape)))


if __name__ == "__main__":
    main()
