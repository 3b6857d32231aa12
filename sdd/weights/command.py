"""``sdd convert``: its arguments, its output, its exit code."""

import argparse
import sys
from collections.abc import Sequence

from sdd.terminal import shown

HELP = """sdd convert: weights from one format to another

usage:
  sdd convert SRC DST [--to=hf|params] [--dtype=TYPE] [--max-shard-gb=X]

  SRC                    a folder with config.json and model.safetensors (or its shards with an
                         index), a .gguf file, or a run's folder (its newest checkpoint)
  DST                    a new folder; it appears whole or not at all
  --to=hf                config.json, safetensors and the tokenizer of a folder or a .gguf file, as
                         transformers loads them (default)
  --to=params            a checkpoint for --config.train.init_from
  --dtype=TYPE           float32, bfloat16 or float16; auto (default): as in SRC, and float32 where
                         SRC is quantised, of mixed types, or a checkpoint
  --max-shard-gb=X       a larger model is cut into files of at most X gigabytes (default 5)

Llama 2 and 3, SmolLM2, Mistral, Qwen2.5, Qwen3, OLMo 2 and 3, Gemma 2 and 3 (text) are read and
written. --config.train.init_from reads all of SRC's formats too: nothing must be converted to train.

examples:
  sdd convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2
  sdd convert runs/smollm2 trained --dtype=bfloat16
  sdd convert models/qwen3-8b runs/qwen3 --to=params

exit codes:
  0    converted
  2    bad usage or bad input: one line says where and what is valid
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        from sdd.weights.errors import WeightsError

        raise WeightsError(f"{message} (see sdd convert --help)")


def run(args: Sequence[str]) -> int:
    """``sdd convert``: returns the exit code; errors are one line on stderr."""
    from sdd.progress import working
    from sdd.typed import ConfigError

    try:
        options = _parse(args)
        from sdd.weights import convert

        with working(f"converting {options.source}"):
            done = convert.convert(
                options.source, options.target, options.to, options.dtype, options.max_shard_gb * 1e9
            )
    except ConfigError as error:
        print(f"sdd: {shown(error)}", file=sys.stderr)
        return 2
    size = f"{done.num_bytes / 1e9:.3g} GB" if done.num_bytes >= 1e9 else f"{done.num_bytes / 1e6:.3g} MB"
    kind = f"{done.architecture.family}, {done.num_tensors} tensors, {done.dtype}"
    print(shown(f"{options.target}: {kind}, {size}"))
    if done.no_tokenizer:
        print(shown(f"{options.target}: no tokenizer: {done.no_tokenizer}"))
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="sdd convert", add_help=False, allow_abbrev=False)
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--to", choices=("hf", "params"), default="hf")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--max-shard-gb", type=_gigabytes, default=5.0)
    return parser.parse_intermixed_args(list(args))


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; valid: a number above 0")
    return value
