"""Every command of the README runs, in its order, in a copy of the repository: what a new user does.

Long ones are shortened by documented options; `CHANGES` says which. A command that is not in it fails the
test, so that none is left out unnoticed. `make` would install an environment of its own: its recipes run in
this one.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)

STUDY = (
    "--config.num_steps=10 --config.warm_start_steps=10 --config.num_prompts=8 --config.num_samples=4 "
    "--config.final_num_prompts=8 --config.final_num_samples=4 --seeds=1"
)
RUN = (
    "--config.train.num_steps=10 --config.eval.num_prompts=8 --config.eval.num_samples=4 "
    "--config.eval.final_num_prompts=8 --config.eval.final_num_samples=4"
)
# Beginning of a command -> what is put behind it. "": it runs as it stands.
CHANGES = {
    "make demo": STUDY + " --config.methods=sdsd_k1,grpo",
    "make test": "tests/test_lookup.py tests/test_layers.py",
    'eval "$(sdd completion bash)"': "",
    "sdd doctor": "",
    "sdd run experiments/concept_graph/smoke.py": "",
    "sdd run experiments/concept_graph/warm_start.py": RUN,
    "sdd run experiments/concept_graph/sdsd.py": RUN,
    "sdd watch": "",  # is asked for its page, and interrupted
    "sdd report": "",
    "sdd run experiments/concept_graph/study.py": STUDY + " --config.methods=sdsd_k1",
    "sdd run experiments/study/methods.py": STUDY + " --config.methods=sdsd_k1,csd",
    "sdd sample": "--num_prompts=8",
    "sdd measure": "",
    "sdd eval": "--num_prompts=8 --num_samples=4",
    "sdd init": "",
    "python -m pytest test_my_method.py": "",
    "sdd run my_method_config.py": "",
    "python launch/local.py": "",
    "python launch/slurm.py": "",
}


def commands() -> list[str]:
    """Of the blocks without a language, without comments."""
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall((ROOT / "README.md").read_text())]
    lines = [re.sub(r"\s+#\s.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def changed(command: str) -> str:
    """The command as it is run here."""
    found = [start for start in CHANGES if command == start or command.startswith(f"{start} ")]
    assert found, f"{command}: say in CHANGES how it is run"
    return f"{command} {CHANGES[max(found, key=len)]}".strip()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of the repository, and the environment in which ``sdd`` and ``python`` are those of the copy."""
    folder = tmp_path_factory.mktemp("home") / "sdd"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\0"
    ):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    bin = folder / ".venv" / "bin"
    bin.mkdir(parents=True)
    for name, call in (("python", ""), ("sdd", "-m sdd")):
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (bin / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()  # newer than what make compares it with
    ours = {"XLA_FLAGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}  # a make within a make says more
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= {
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "COLUMNS": "200",
    }
    return folder, environment


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs a command line and returns what it prints; fails with it unless the exit code is 0."""
    done = subprocess.run(
        command,
        shell=True,
        executable="/bin/bash",
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs the last line of a target's recipe, with what stands behind the target."""
    words = command.split()
    recipe = run(shlex.join([*words[:2], "--dry-run"]), folder, environment).splitlines()[-1]
    return run(shlex.join([*shlex.split(recipe), *words[2:]]), folder, environment)


def watch(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Starts ``sdd watch``, reads the page at the address that it prints, and ends it as its help says."""
    with subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            page = urllib.request.urlopen(address, timeout=300).read().decode()
            process.terminate()  # like Ctrl-C, which a shell's background jobs do not hear
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "<html" in page
    return page


def test_every_command_runs_in_the_order_of_the_readme(home):
    folder, environment = home
    printed = {}
    for command in commands():
        how = {"make": make, "sdd watch": watch}
        start = next((start for start in how if command.startswith(f"{start} ")), None)
        printed[command] = how.get(start, run)(changed(command), folder, environment)
        print(f"{command}: ran", flush=True)
    for name in (
        "demo/report.html",
        "demo/claims.json",
        "demo/figures",
        "study/claims.json",
        "sdsd/metrics.jsonl",
    ):
        assert (folder / "runs" / name).exists(), name
    said = next(text for command, text in printed.items() if command.startswith("sdd measure"))
    assert "right answers" in said and "ways" in said
    tested = next(text for command, text in printed.items() if command.startswith("python -m pytest"))
    assert "passed" in tested


def test_no_change_is_left_over():
    used = {max((s for s in CHANGES if f"{c} ".startswith(f"{s} ")), key=len, default="") for c in commands()}
    assert used == set(CHANGES)
