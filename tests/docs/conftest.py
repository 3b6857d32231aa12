"""The Python of the documentation, written to where its first line says: ``# my_package/my_step.py``."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets() -> dict[str, str]:
    """Path that the first line names -> code, of every Python block of the documentation."""
    found = {}
    for page in PAGES:
        for language, code in FENCE.findall(page.read_text()):
            if language == "python" and (match := re.match(r"# (my_package/\w+\.py)\n", code)):
                assert match[1] not in found, f"{match[1]} is there twice"
                found[match[1]] = code
    return found


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The folder that holds the documentation's package, on ``sys.path``."""
    folder = tmp_path_factory.mktemp("docs")
    for name, code in snippets().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


class Trained(NamedTuple):
    """A run folder, and split -> metric -> value of its last evaluation."""

    workdir: Path
    final: dict[str, Any]


@pytest.fixture(scope="session")
def trained(written, tmp_path_factory) -> Trained:
    """The documentation's method on the documentation's task, from random parameters."""
    from sdd import config, loop

    c = config.default("my_package.my_task", "my_package.my_step")
    c.model.num_layers, c.model.width, c.model.head_dim, c.model.mlp_dim = 1, 32, 8, 64
    c.train.num_steps, c.train.prompts_per_step, c.train.group_size, c.train.checkpoint_every = 40, 16, 32, 0
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-2, 1
    c.eval.splits, c.eval.every, c.eval.bootstrap = ("id", "harder"), 0, 20
    c.eval.num_prompts = c.eval.final_num_prompts = 11
    c.eval.num_samples = c.eval.final_num_samples = 16
    c.writers.progress = False
    workdir = tmp_path_factory.mktemp("run")
    return Trained(workdir, loop.run(config.resolve(c), workdir))
