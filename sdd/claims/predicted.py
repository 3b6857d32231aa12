"""C8: changes of log-ratios among right answers follow the PCMI prediction under SDSD, not under RL.

Reads the ``theory.json`` that `sdd.theory.prediction.write` leaves in a seed's folder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdd.claims.compare import above
from sdd.claims.fits import Predicted, fits
from sdd.claims.names import NEEDS, STATEMENTS, Claim
from sdd.claims.runs import Study

FILE = "theory.json"
_PREDICTION = "given"  # demonstrations of the start's policy: nothing of the trained run enters


def pairs_of(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Run -> column -> numbers, one a pair of right answers; {} where the file is not there.

    Raises:
      ValueError: one line, where the file is broken.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            run: {name: np.asarray(column) for name, column in columns.items()}
            for run, columns in found["pairs"].items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a theory.json with pairs ({error}); remove it to have it anew"
        ) from None


def c8(study: Study) -> Claim:
    """C8: the partial correlation of the predicted and the measured change of log-ratios, over all pairs.

    The start's own log-ratio is held fixed, as any sharpening raises likelier answers. Holds if under SDSD
    (K = 1) it is above 0, and under GRPO with a pull to the start, the run whose optimum is RL's, it is not.
    ``details["runs"]`` has every run's correlation, slope and partial correlation, and the root mean square
    of the measured changes in nats (0 under the RL optimum).
    """
    by_seed = {seed: pairs_of(study.path / f"seed_{seed}" / FILE) for seed in study.seeds}
    needs = NEEDS["C8"]
    seeds = [seed for seed, runs in by_seed.items() if set(needs) <= set(runs)]
    missing = {
        seed: [n for n in needs if n not in runs] for seed, runs in by_seed.items() if seed not in seeds
    }
    details: dict[str, Any] = {
        "rule": f"partial correlation with the prediction: {needs[0]} above 0, {needs[1]} not",
        "runs": {},
    }
    if missing:
        details["missing"] = [f"{FILE} (seed {s}): lacks {', '.join(names)}" for s, names in missing.items()]
    claim: Claim = {"statement": STATEMENTS["C8"], **dict.fromkeys(("value", "low", "high", "holds"))}
    claim |= {"seeds": seeds, "splits": list(study.splits[:1]), "details": details}
    if not seeds:
        return claim
    for run in sorted(set.intersection(*(set(by_seed[seed]) for seed in seeds))):
        details["runs"][run] = _fit([by_seed[seed][run] for seed in seeds])
    main, other = (details["runs"][run]["partial"] for run in needs)
    return claim | main | {"holds": above(main) and not above(other)}


def _fit(columns: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    found = fits([Predicted(c["prompt"], c[_PREDICTION], c["measured"], c["start"]) for c in columns])
    measured_X = np.concatenate([c["measured"] for c in columns])
    plain = {
        key: {end: float(number) if np.isfinite(number) else None for end, number in e._asdict().items()}
        for key, e in found.items()
    }
    return plain | {"measured_rms": float(np.sqrt(np.mean(measured_X**2))), "pairs": len(measured_X)}
