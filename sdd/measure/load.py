"""Files -> a store: every line read, bad ones refused or counted, never dropped in silence."""

import itertools
from collections.abc import Sequence

from sdd.measure.formats import completions
from sdd.measure.lines import read
from sdd.measure.records import BadLine, MeasureError, Options
from sdd.measure.store import Store
from sdd.progress import printable


def load(
    files: Sequence[str],
    store: Store,
    *,
    options: Options,
    format: str = "auto",
    split: str = "",
    skip_bad: bool = False,
) -> list[str]:
    """Adds what the files hold to a store.

    Args:
      files: see `sdd.measure.lines.files`; together they are one set of rollouts.
      store: where completions go.
      options: how a line is read.
      format: "auto" or the name of one of `sdd.measure.formats.FORMATS`.
      split: only completions of this split; "": all.
      skip_bad: whether bad lines are counted and passed over.

    Returns:
      What who reads the numbers has to know, a line each.

    Raises:
      BadLine: the first bad line, unless they are skipped.
      MeasureError: nothing is left, or a file that cannot be read.
    """
    num_bad, first, others = 0, "", 0
    lines = itertools.chain.from_iterable(map(read, files))
    for found in completions(lines, options, format):
        if isinstance(found, BadLine):
            if not skip_bad:
                raise found
            num_bad, first = num_bad + 1, first or str(found)
            continue
        kept = [c for c in found if not split or c.split == split]
        others += len(found) - len(kept)
        store.add(kept)
    bad = f"{num_bad} bad lines left out, the first: {first}" if num_bad else ""
    if not store.num_completions:
        why = bad or (f"no completion is of split {split!r}" if others else "no completion")
        raise MeasureError(f"{printable(str(files[0]))}: nothing to measure ({why})")
    warnings = [bad] if bad else []
    if others:
        warnings.append(f"{others} completions of other splits than {split!r} left out")
    splits = store.splits()
    if len(splits) > 1:
        listed = ", ".join(f"{printable(name) or '(none)'} ({n} prompts)" for name, (n, _) in splits.items())
        warnings.append(f"several splits measured together: {listed}; --split=NAME chooses one")
    return warnings + store.warnings()
