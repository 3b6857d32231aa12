"""The store gives back, prompt by prompt, what went in: checked against a dict in memory."""

import gc
import subprocess
import sys
import tempfile
import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.measure import store as store_lib
from sdd.measure.records import Completion, MeasureError
from sdd.measure.store import Group, Store


def make(prompt_id: str, completion: str = "c", **fields) -> Completion:
    plain = Completion(prompt_id, f"text of {prompt_id}", completion, True, None, None, None, "")
    return plain._replace(**fields)


def random_completions(n: int, prompts: int, seed: int = 0) -> list[Completion]:
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    return [
        make(
            f"p{rng.integers(prompts)}",
            f"completion {i}",
            correct=pick(True, False),
            score=pick(None, float(rng.random())),
            strategy=pick(None, "a", "b"),
            answer=pick(None, "1", ""),
            split=pick("id", "harder"),
        )
        for i in range(n)
    ]


def grouped(completions: list[Completion]) -> dict[tuple[str, str], list[Completion]]:
    """The truth: a dict in memory, in first-seen order."""
    groups = defaultdict(list)
    for c in completions:
        groups[c.split, c.prompt_id].append(c)
    return groups


def same(group: Group, key: tuple[str, str], completions: list[Completion]) -> None:
    assert (group.key, group.prompt) == (key, completions[0].prompt)
    assert group.completions == [c.completion for c in completions]
    assert group.strategy == [c.strategy for c in completions]
    assert group.answer == [c.answer for c in completions]
    score = [np.nan if c.score is None else c.score for c in completions]
    np.testing.assert_array_equal(group.score, np.array(score))
    assert group.score.dtype == np.float64
    correct = [c.correct for c in completions]
    if None in correct:
        assert group.correct is None
    else:
        assert group.correct.dtype == bool and group.correct.tolist() == correct


@pytest.mark.parametrize("order", ["as drawn", "grouped", "interleaved"])
@pytest.mark.parametrize("remembered", [2, 50_000])
def test_groups_are_those_of_a_dict_in_memory(monkeypatch, order, remembered):
    monkeypatch.setattr(store_lib, "_BATCH", 7)
    monkeypatch.setattr(store_lib, "_REMEMBERED", remembered)
    completions = random_completions(500, 40)
    if order == "grouped":
        completions.sort(key=lambda c: (c.split, c.prompt_id))
    if order == "interleaved":
        completions = [c for i in range(40) for c in completions[i::40]]
    truth = grouped(completions)
    with Store() as store:
        for start in range(0, 500, 11):
            store.add(completions[start : start + 11])
            assert len(store._rows) <= remembered
        found = list(store.groups())
        assert [group.key for group in found] == list(truth)
        for group in found:
            same(group, group.key, truth[group.key])
        keys = list(truth)[::-3]
        for key, group in zip(keys, map(store.group, keys), strict=True):
            same(group, key, truth[key])
            assert store.group(key).completions == group.completions
        sizes = {key: len(members) for key, members in truth.items()}
        assert store.sizes_by_key() == sizes and list(store.prompts()) == list(sizes.items())
        assert store.sizes().tolist() == list(sizes.values()) and store.sizes().dtype == np.int64
        assert (store.num_prompts, store.num_completions) == (len(truth), 500)
        assert store.splits() == {
            split: (
                sum(key[0] == split for key in truth),
                sum(size for key, size in sizes.items() if key[0] == split),
            )
            for split in dict.fromkeys(key[0] for key in truth)
        }
        assert store.warnings() == []


texts = st.text(max_size=5) | st.sampled_from(["\ud800", "\0", "a\0b", "", "é", "\udfff\ud800"])
lots = st.lists(
    st.builds(
        make,
        texts,
        texts,
        correct=st.sampled_from([True, False, None]),
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        strategy=st.none() | texts,
        answer=st.none() | texts,
        split=st.sampled_from(["", "a", "\0", "1"]),
    ),
    max_size=20,
)


@given(lots)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_text_comes_back(completions):
    truth = grouped(completions)
    with Store() as store:
        store.add(completions)
        found = list(store.groups())
        assert [group.key for group in found] == list(truth)
        for group in found:
            same(group, group.key, truth[group.key])
            same(store.group(group.key), group.key, truth[group.key])


def test_an_empty_store():
    with Store() as store:
        assert list(store.groups()) == [] and store.sizes().shape == (0,)
        assert (store.num_prompts, store.num_completions, store.splits(), store.warnings()) == (0, 0, {}, [])


def test_a_key_that_is_not_there_is_refused():
    with Store() as store:
        store.add([make("a")])
        with pytest.raises(MeasureError, match=r'no prompt "b\\n" in split "id"; valid: '):
            store.group(("id", "b\n"))


def test_one_can_add_after_reading():
    with Store() as store:
        store.add([make("a", "1"), make("b", "2")])
        assert len(list(store.groups())) == 2
        store.add([make("a", "3"), make("c", "4")])
        assert [group.completions for group in store.groups()] == [["1", "3"], ["2"], ["4"]]


def test_the_last_step_is_read_and_that_is_said():
    with Store() as store:
        store.add(make(p, f"{p}{step}", step=step) for step in (5, 20, 7) for p in ("a", "b", "a"))
        store.add([make("old", step=5), make("none", step=None)])
        assert [(g.key[1], g.completions) for g in store.groups()] == [("a", ["a20", "a20"]), ("b", ["b20"])]
        assert (store.num_prompts, store.num_completions, store.splits()) == (2, 3, {"": (2, 3)})
        assert store.sizes().tolist() == [2, 1]
        with pytest.raises(MeasureError):
            store.group(("", "old"))
        (warning,) = store.warnings()
        assert "only the last, step 20, is measured (3 completions; 8 of others are left out)" in warning


def test_different_texts_of_one_prompt_id_are_counted(monkeypatch):
    for remembered in (1, 50_000):
        monkeypatch.setattr(store_lib, "_REMEMBERED", remembered)
        with Store() as store:
            for _ in range(3):
                store.add([make("a"), make("b"), make("c", prompt=""), make("d")])
            assert store.warnings() == []
            store.add(
                [make("b", prompt="x"), make("a"), make("b", prompt="y"), make("b"), make("d", prompt="")]
            )
            (warning,) = store.warnings()
            assert "1 of 4 prompts have one prompt_id and different texts" in warning and '"b"' in warning
            assert store.sizes().tolist() == [4, 6, 3, 4]
            store.add([make("d", prompt="x")])
            assert "2 of 4 prompts" in store.warnings()[0]
            assert store.group(("", "b")).prompt == "text of b"


def test_a_text_that_comes_later_is_taken():
    with Store() as store:
        store.add(
            [make("a", prompt=""), make("a", prompt="here"), make("a", prompt=""), make("a", prompt="here")]
        )
        assert store.group(("", "a")).prompt == "here" and store.warnings() == []
        store.add([make("a", prompt="there")])
        assert store.group(("", "a")).prompt == "here" and len(store.warnings()) == 1


def test_memory_is_bounded_and_many_prompts_are_fast():
    def completions():
        for i in range(30_000):
            yield make(str(i % 10_000), "x" * 1000 + str(i), prompt="y" * 100)

    tracemalloc.start()
    with Store() as store:
        store.add(completions())
        count = sum(len(group.completions) for group in store.groups())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 30_000 and store.num_prompts == 10_000
    assert peak < 15e6  # of 30 MB


# ---- the file ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder where temporary files go."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def test_the_file_goes_whatever_happens(folder):
    with Store() as store:
        store.add([make("a")])
        assert len(list(folder.iterdir())) == 1
        assert next(folder.iterdir()).stat().st_mode & 0o077 == 0  # prompts may be private
    assert not list(folder.iterdir())
    with pytest.raises(KeyError), Store() as store:
        store.add([make("a")])
        raise KeyError
    assert not list(folder.iterdir())
    store = Store()
    store.add([make("a")])
    del store
    gc.collect()
    assert not list(folder.iterdir())


def test_the_file_goes_when_the_process_fails(folder):
    program = (
        "import os, tempfile\nfrom sdd.measure.store import Store\n"
        "from sdd.measure.records import Completion\n"
        f"tempfile.tempdir = {str(folder)!r}\n"
        "store = Store(); store.add([Completion('a', 'p', 'c', True, None, None, None, '')])\n"
        "print(len(os.listdir(tempfile.tempdir))); raise RuntimeError('oh no')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(store_lib.__file__).parents[2],
    )
    assert done.stdout == "1\n" and "oh no" in done.stderr
    assert not list(folder.iterdir())


def test_a_full_disk_is_one_line(folder):
    with Store() as store:
        store._file.execute("PRAGMA max_page_count = 20")
        with pytest.raises(
            MeasureError, match=r"cannot be written \(database or disk is full\); valid: TMPDIR"
        ):
            store.add(make(str(i), "x" * 1000) for i in range(10_000))
    assert not list(folder.iterdir())


def test_no_place_for_temporary_files_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(MeasureError, match=r"no temporary file can be made .*; valid: TMPDIR"):
        Store()
