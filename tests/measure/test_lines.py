"""Reading lines: every bad one is named and passed over, nothing is held that need not be."""

import gzip
import itertools
import json
import sys
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.measure.lines import Line, files, read
from sdd.measure.records import BadLine, MeasureError


def split(path, **options):
    """(good lines, messages of the bad ones)."""
    lines = list(read(path, **options))
    return [x for x in lines if isinstance(x, Line)], [str(x) for x in lines if isinstance(x, BadLine)]


def refused(path, match: str) -> str:
    with pytest.raises(MeasureError, match=match) as error:
        list(read(path))
    message = str(error.value)
    assert message.isprintable() and ("; valid: " in message or "; run: " in message)
    return message


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSON", "a.ndjson", "a.jsonl.gz", "a.json.gz"])
@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n", b"\n\n  \n"])
def test_whole_lines_are_read_with_their_numbers(write, name, end):
    path = write(
        name,
        "\ufeff".encode() + b'{"a": 1}',
        b"",
        b"  \t\r",
        {"b": "é"},
        '{"c": "漢\u2028"}'.encode(),
        end=end,
    )
    good, bad = split(path)
    assert not bad
    assert [line.record for line in good] == [{"a": 1}, {"b": "é"}, {"c": "漢\u2028"}]
    assert [line.where for line in good] == [f"{path}:{n}" for n in (1, 4, 5)]


BAD = [
    (b'{"a": 1', "not valid JSON (Expecting ',' delimiter, column 8); valid: one JSON object a line"),
    (b"[1, 2]", "a list of 2 instead of an object; valid: one JSON object a line"),
    (b"null", "null instead of an object"),
    (b'"\\u001b[31m"', '"\\x1b[31m" instead of an object'),
    (b'{"a": "\xff"}', "byte 8 of the line (0xff) is not UTF-8; valid: UTF-8 text"),
    (b'{"a": "\xed\xa0\x80"}', "byte 8 of the line (0xed) is not UTF-8"),
    (b"[" * 100_000, "JSON that is nested too deeply"),
    (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON (a number of too many digits)"),
    (b'{"a": "\x1b"}', "not valid JSON (Invalid control character at, column 8)"),
    (b'\xef\xbb\xbf{"a": 1}', "not valid JSON (Unexpected UTF-8 BOM"),
    (b'{"a": 1}{"a": 2}', "not valid JSON (Extra data, column 9)"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_bad_line_is_named_and_the_next_is_read(write, line, message, name):
    path = write(name, {"a": 0}, b"", line, {"b": 2})
    good, bad = split(path)
    assert [x.record for x in good] == [{"a": 0}, {"b": 2}]
    assert [x.where for x in good] == [f"{path}:1", f"{path}:4"]
    assert len(bad) == 1 and bad[0].startswith(f"{path}:3: {message}") and bad[0].isprintable()


def test_a_file_that_is_cut_off_at_any_byte(write):
    line = '{"text": "é漢"}'.encode()
    data = b"\n".join([line] * 3) + b"\n"
    for size in range(1, len(data)):
        path = write("cut.jsonl", data[:size], end=b"")
        good, bad = split(path)
        rest = size % (len(line) + 1)
        assert len(good) == size // (len(line) + 1) + (rest == len(line))
        assert len(bad) == (0 < rest < len(line))
        for message in bad:
            assert (
                message.startswith(f"{path}:{len(good) + 1}: ")
                and "the file seems cut off; valid: " in message
            )


def test_a_long_line_never_enters_memory(tmp_path):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"a": 2}\n')
    tracemalloc.start()
    good, bad = split(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the limit and what is read at once
    assert [line.record["a"] for line in good] == [1, 2]
    assert bad == [f"{path}:2: a line of 50000010 bytes; valid: at most 16777216 bytes"]


def test_the_limit_is_exact_and_holds_for_compressed_files(write):
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = write(name, b'{"a": 12}', b'{"a": 123}', b'{"a": 1}')  # 10, 11 and 9 bytes with their ends
        good, bad = split(path, max_bytes=10)
        assert [line.record["a"] for line in good] == [12, 1]
        assert bad == [f"{path}:2: a line of 11 bytes; valid: at most 10 bytes"]


def test_a_damaged_compressed_file_gives_what_is_before_the_damage(write, tmp_path):
    path = write("a.jsonl.gz", *({"i": i, "x": "y" * (i % 7)} for i in range(20_000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    good, bad = split(path)
    assert 5000 < len(good) < 20_000 and [line.record["i"] for line in good] == list(range(len(good)))
    assert len(bad) == 1 and "compressed file is damaged or cut off" in bad[0]
    assert bad[0].startswith(f"{path}:{len(good) + 1}: ")
    for data in (b'{"a": 1}\n', whole[:3], whole[:200] + bytes(200) + whole[400:]):
        path.write_bytes(data)
        good, bad = split(path)
        assert len(bad) == 1 and "damaged or cut off" in bad[0]


def test_files_that_cannot_be_read_are_refused(write, tmp_path):
    refused(write("empty.jsonl", end=b""), r"empty.jsonl: an empty file; valid: at least one line")
    refused(write("blank.jsonl", b"", b"  ", b"\r"), r"an empty file")
    refused(write("empty.jsonl.gz", end=b""), r"an empty file")
    refused(tmp_path / "no\n.jsonl", r"no\\n.jsonl: no such file; valid: .*\.parquet")
    refused(write("a.txt", {"a": 1}), r"a.txt: an unknown ending; valid: a file .jsonl")
    refused("a\0.jsonl", r"^a\\x00.jsonl: (no such file|cannot be read)")
    refused("x" * 5000 + ".jsonl", r"cannot be read|no such file")


def test_a_folder_is_refused_with_what_is_in_it(write, tmp_path):
    write("run/id.jsonl", {"a": 1})
    write("run/config.txt", {"a": 1})
    assert "run: a folder, with id.jsonl; valid: a file" in refused(tmp_path / "run", "folder")
    (tmp_path / "nothing").mkdir()
    assert "a folder, with no such file; valid: " in refused(tmp_path / "nothing", "verl.*TRL")


def test_dump_folders_are_read_in_the_order_of_their_numbers(write, tmp_path):
    for step in (10, 9, 100):
        write(f"verl/{step}.jsonl", {"step": step}, {"step": step})
    write("verl/notes.jsonl", {"step": -1})
    good, _ = split(tmp_path / "verl")
    assert [line.record["step"] for line in good] == [9, 9, 10, 10, 100, 100]
    assert good[2].where == f"{tmp_path / 'verl' / '10.jsonl'}:1"
    (tmp_path / "trl").mkdir()
    for step in (99999, 5, 100000):
        table = pyarrow.table({"step": [step]})
        pyarrow.parquet.write_table(table, tmp_path / "trl" / f"completions_{step:05d}.parquet")
    assert [line.record["step"] for line in read(tmp_path / "trl")] == [5, 99999, 100000]
    assert len(files(tmp_path / "trl")) == 3


# ---- Parquet ----------------------------------------------------------------------------------------------


def test_parquet_rows_come_one_by_one_across_row_groups(tmp_path):
    rows = [
        {"i": i, "text": "é" * (i % 5), "score": i / 3 if i % 2 else None, "list": ["a"] * (i % 3)}
        for i in range(1000)
    ]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=300)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 4
    good, bad = split(path)
    assert not bad and [line.record for line in good] == rows
    assert [line.where for line in good] == [f"{path}:{i + 1}" for i in range(1000)]


def test_parquet_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "a.parquet"
    text = ["x" * 10_000 + str(i) for i in range(10_000)]  # 100 MB in one row group
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), path, use_dictionary=False)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 1
    del text
    tracemalloc.start()
    assert sum(len(line.record["text"]) for line in read(path)) > 100e6
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_what_is_no_parquet_is_refused(tmp_path, write, monkeypatch):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(5000))}), path)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-9], whole[:100], b'{"a": 1}\n'):
        path.write_bytes(data)
        refused(path, r"a.parquet: not readable as Parquet \(")
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), path)
    refused(path, "an empty file")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert refused(path, "needs pyarrow").endswith("run: pip install pyarrow")


# ---- fuzzing ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b'{"a": 1}', b"\n\n", b"\xef\xbb\xbf", b"{}"]))
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_bytes_are_lines_or_errors(tmp_path_factory, pieces):
    data = b"".join(pieces)
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(data)
    # The truth: split at line ends, and each line on its own.
    expected = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode("utf-8")
            record = json.loads(text.removeprefix("\ufeff") if number == 1 else text)
        except ValueError:
            record = None
        if line.strip():
            expected.append((number, record if isinstance(record, dict) else None))
    try:
        found = list(read(path, max_bytes=10**6))
    except MeasureError:
        found = []
    assert len(found) == len(expected)
    for line, (number, record) in zip(found, expected, strict=True):
        if record is None:
            assert isinstance(line, BadLine) and str(line).startswith(f"{path}:{number}: ")
            assert str(line).isprintable() and "; valid: " in str(line)
        else:
            assert line == Line(f"{path}:{number}", record)


def test_mutated_compressed_and_parquet_files_give_errors_only(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    table = pyarrow.table({"a": ["x" * i for i in range(50)], "b": [i / 2 for i in range(50)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    lines = b"\n".join(json.dumps({"a": "x" * i}).encode() for i in range(50))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    outcomes = set()
    for name, _ in itertools.product(("a.parquet", "a.jsonl.gz"), range(150)):
        data = bytearray((tmp_path / name).read_bytes())
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        path = tmp_path / f"mutated_{name}"
        path.write_bytes(data)
        try:
            outcomes.add((name, any(isinstance(line, BadLine) for line in read(path))))
        except MeasureError as error:
            assert str(error).isprintable()
            outcomes.add((name, "refused"))
    assert outcomes >= {("a.parquet", "refused"), ("a.parquet", False), ("a.jsonl.gz", True)}
