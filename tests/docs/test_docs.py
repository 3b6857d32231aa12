"""Links, commands, keys, names and files of the documentation exist."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from sdd import config, experiment, lookup, overrides, run, study
from sdd.measure import command as measure
from sdd.measure import conditions
from sdd.shell import UsageError

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
names = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def commands(page: Path) -> list[str]:
    """Lines of blocks without a language, joined where a backslash says so, and commands within the text."""
    blocks = [
        block.replace("\\\n", " ") for language, block in FENCE.findall(page.read_text()) if not language
    ]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = [code for code in CODE.findall(prose(page)) if " " in code and "..." not in code]
    started = ("sdd ", "python ", "make ")
    return [line for line in (*lines, *inline) if line.startswith(started)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def check_run(args: list[str]) -> None:
    """Raises unless ``sdd run ARGS`` would start: the file, the options, the keys and the values."""
    changes, rest = overrides.split(args)
    wants_help = "--help" in rest
    options = run.parsed([arg for arg in rest if arg != "--help"], wants_help)
    path = Path(options.file) if options.file.startswith("my_package/") else ROOT / options.file
    module = experiment.load(path)
    changed = overrides.apply(experiment.get_config(module), changes)
    if hasattr(module, "run"):
        getattr(module, "resolve", study.resolve)(changed)  # of its own where it is not one of `sdd.study`
    else:
        assert options.seeds is None
        config.resolve(changed)


def check_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "python" and words[1].startswith("launch/"):
        assert (ROOT / words[1]).exists()  # its own options: tests/launch/test_pages.py
        words = ["sdd", *words[words.index("--") + 1 :]] if "--" in words else []
    match words:
        case ["sdd", "run", "my_method_config.py", *_]:  # of `sdd init`; tests/readme runs it
            pass
        case ["sdd", "run", *args] if args not in ([], ["FILE", "--help"]):
            check_run(args)
        case ["sdd", "report", folder]:
            assert folder.startswith("runs/")
        case ["sdd", "measure", *args] if args not in ([], ["FILE", "--help"]):
            for condition in measure._parse(args).fail_if:
                conditions.parse(condition)
        case ["python", "-m", module, *_]:
            lookup.resolve(module)
        case ["python", path, *_]:
            assert (ROOT / path).exists() or "NAME" in path
        case ["make", *args]:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert all(arg in targets or "=" in arg for arg in args)


@names
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


@names
def test_commands_would_start(page, written, monkeypatch):
    monkeypatch.chdir(written)
    for line in commands(page):
        try:
            check_command(line)
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error


def test_commands_are_found_and_a_wrong_one_is_refused(written):
    found = [line for page in PAGES for line in commands(page)]
    assert sum(line.startswith("sdd run") for line in found) >= 15
    assert sum(line.startswith("python launch/local.py") for line in found) >= 3
    for wrong in (
        "sdd run experiments/concept_graph/smok.py --workdir=runs/a",
        "sdd run experiments/concept_graph/smoke.py --workdir=runs/a --config.step.num_demo=2",
        "sdd run experiments/concept_graph/smoke.py --workdir=runs/a --config.eval.ks=4,99",
        "python launch/local.py -- run experiments/concept_graph/smoke.py --workdir=runs/a --mesh.fsdp=4",
        "make dmeo",
        "sdd measure a.jsonl --basline b.jsonl",
        "sdd measure a.jsonl --fail-if='pass@1'",
    ):
        with pytest.raises((AssertionError, ValueError, UsageError)):
            check_command(wrong)


def test_the_library_without_the_rest_runs(written, capsys):
    runpy.run_path(str(written / "my_package" / "library.py"))
    assert capsys.readouterr().out.startswith("Estimate(value=")


@names
def test_keys_exist(page):
    loaded = {
        name: experiment.load(ROOT / "experiments" / folder / f"{name}.py")
        for folder, name in (
            *(("concept_graph", "sdsd"), ("concept_graph", "grpo")),
            *(("science_qa", "qwen3_8b_sdsd"), ("smollm2", "grpo")),
        )
    }
    known = {key for module in loaded.values() for key in overrides.flatten(experiment.get_config(module))}
    sections = {key.rsplit(".", i)[0] for key in known for i in (1, 2)}
    for code in CODE.findall(prose(page)):
        if re.fullmatch(r"config(\.\w+)+", code) and not code.endswith(".json"):
            assert code in known | sections, code
        for change in re.findall(r"--(?:no)?config\.[a-z_.]+(?:=[^\s`]+)?", code):
            if not change.startswith("--config.step.name") and not change.startswith("--config.task.name"):
                overrides.apply(experiment.get_config(loaded["sdsd"]), [change])


@names
def test_names_and_files_exist(page):
    for code in CODE.findall(prose(page)):
        if re.fullmatch(r"sdd(\.\w+)+", code):
            lookup.resolve(code)
        if re.fullmatch(r"(sdd|tests|benchmarks|experiments|launch|docs)/[\w/.]+(\.py|\.md)", code):
            assert (ROOT / code).exists(), code


def test_the_options_of_methods_exist():
    page = (ROOT / "docs" / "methods.md").read_text()
    fields = {
        name
        for step in ("sft", "grpo", "grpo_diversity", "sdsd")
        for name in vars(lookup.resolve(f"sdd.steps.{step}.Config"))["__dataclass_fields__"]
    }
    headings = re.findall(r"^### [^:\n]+: (.+)$", page, re.MULTILINE)
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [\w., ]+ \|", page, re.MULTILINE)
    named = {name for text in (*headings, *rows) for name in CODE.findall(text)}
    assert named >= {"divergence", "num_demos", "trust_region", "clip_low", "kl_coefficient"}
    assert {name for text in headings for name in CODE.findall(text)} <= fields
    assert {"normalise_advantages", "loss_mean"} <= fields & named


def test_the_map_shows_the_rooms_in_their_order():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    rooms = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["ROOMS"]
    assert [room for row in rows for room in CODE.findall(row)] == [r for r in rooms if r != "__main__"]


def test_thresholds_and_margins_are_those_of_the_code():
    from sdd import claims, health

    limits = health.Thresholds()
    text = " ".join((ROOT / "docs" / "runaway.md").read_text().split())
    assert f"fell by more than {limits.teacher_accuracy_drop} from its best" in text
    assert f"rose by {limits.teacher_entropy_rise} nats or more" in text
    assert f"to at least {limits.teacher_entropy_factor} times" in text
    assert f"{limits.token_entropy_factor} times its lowest" in text
    assert f"pass@1 fell by more than {limits.pass_drop}" in text
    assert f"below {limits.distinct_fraction} of" in text and f"rose by {limits.pass_rise} or more" in text
    assert f"at least -{claims.MARGIN} " in (ROOT / "docs" / "claims.md").read_text()
    assert list(claims.STATEMENTS) == re.findall(
        r"^\| (C\d) \|", (ROOT / "docs" / "claims.md").read_text(), re.MULTILINE
    )
