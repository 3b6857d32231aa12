"""Batches: order, epochs, shares of processes, resume. Padding."""

import itertools
import json

import numpy as np
import pytest

from sdd.data import batches, columns_for, pad_left, pad_right


class Numbers:
    """A source that remembers which indices were read."""

    def __init__(self, length):
        self.length, self.read = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert type(index) is int and 0 <= index < self.length
        self.read.append(index)
        return {"prompt_id": f"train/{index}", "value": index}


def values(iterator, count=None):
    return [[example["value"] for example in batch] for batch in itertools.islice(iterator, count)]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def test_every_epoch_holds_every_example_in_another_order():
    read = flat(values(batches(Numbers(10), batch_size=4, seed=0), 10))
    epochs = [tuple(read[i : i + 10]) for i in range(0, 40, 10)]  # batches straddle epochs
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 4
    assert flat(values(batches(Numbers(10), batch_size=4, seed=0), 10)) == read
    assert flat(values(batches(Numbers(10), batch_size=4, seed=1), 10)) != read


def test_unshuffled_single_epoch_is_the_source_in_order_with_a_short_last_batch():
    iterator = batches(Numbers(7), batch_size=3, seed=0, shuffle=False, num_epochs=1)
    assert values(iterator) == [[0, 1, 2], [3, 4, 5], [6]]
    two = flat(values(batches(Numbers(7), batch_size=3, seed=0, num_epochs=2)))
    assert sorted(two) == sorted(list(range(7)) * 2)


@pytest.mark.parametrize("process_count", [2, 3, 6])
def test_processes_together_read_what_one_process_reads(process_count):
    alone = values(batches(Numbers(20), batch_size=6, seed=3), 9)
    sources = [Numbers(20) for _ in range(process_count)]
    shares = [
        values(batches(s, batch_size=6, seed=3, process_index=p, process_count=process_count), 9)
        for p, s in enumerate(sources)
    ]
    assert [flat(parts) for parts in zip(*shares, strict=True)] == alone
    assert all(s.read == flat(share) for s, share in zip(sources, shares, strict=True))  # its own share only


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_resumed_equals_undisturbed(stop):
    undisturbed = values(batches(Numbers(11), batch_size=4, seed=5), 16)
    first = batches(Numbers(11), batch_size=4, seed=5)
    values(first, stop)
    state = json.loads(json.dumps(first.get_state()))
    resumed = batches(Numbers(11), batch_size=4, seed=5)
    values(resumed, 2)  # whatever it did before is forgotten
    resumed.set_state(state)
    assert values(resumed, 16 - stop) == undisturbed[stop:]
    # ... and with another number of processes
    half = batches(Numbers(11), batch_size=4, seed=5, process_index=1, process_count=2)
    half.set_state(state)
    assert values(half, 3) == [batch[2:] for batch in undisturbed[stop : stop + 3]]


@pytest.mark.parametrize(
    "length, options, words",
    [
        (0, {}, "empty"),
        (5, {"batch_size": 3, "process_count": 2}, "batch_size=3"),
        (5, {"batch_size": 0}, "batch_size=0"),
        (5, {"process_index": 2, "process_count": 2}, "process_index=2"),
        (5, {"num_epochs": 0}, "num_epochs=0"),
    ],
)
def test_bad_sizes_are_refused(length, options, words):
    with pytest.raises(ValueError, match=words) as error:
        batches(Numbers(length), **{"batch_size": 2, "seed": 0, **options})
    assert "\n" not in str(error.value)


def test_padding():
    rows = [np.array([4, 5, 6]), np.array([], dtype=np.int32), np.array([7])]
    tokens, length = pad_left(rows, 3, 9)
    np.testing.assert_array_equal(tokens, [[4, 5, 6], [9, 9, 9], [9, 9, 7]])
    np.testing.assert_array_equal(length, [3, 0, 1])
    assert tokens.dtype == length.dtype == np.int32
    tokens, mask = pad_right(rows, 4, 4)  # a pad id that is also a real token: the mask tells
    np.testing.assert_array_equal(tokens, [[4, 5, 6, 4], [4, 4, 4, 4], [7, 4, 4, 4]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert tokens.dtype == np.int32 and mask.dtype == bool
    assert pad_left([], 3, 0)[0].shape == pad_right([], 3, 0)[1].shape == (0, 3)


@pytest.mark.parametrize("pad", [pad_left, pad_right])
def test_a_row_too_long_is_refused(pad):
    with pytest.raises(ValueError, match="row 1 has 4 tokens; the padded length is only 3"):
        pad([np.zeros(3, int), np.zeros(4, int)], 3, 0)


@pytest.mark.parametrize("longest", [5, 16, 100, 128, 129, 8192, 10240])
def test_columns_are_of_few_sizes_and_hold_what_they_must(longest):
    sizes = [columns_for(needed, longest) for needed in range(longest + 1)]
    assert all(needed <= size <= longest for needed, size in enumerate(sizes))
    assert len(set(sizes)) <= 8 and sizes[-1] == longest
    assert all(size % 16 == 0 or size == longest for size in sizes)
