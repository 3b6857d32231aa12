r"""Self-distillation from demonstrations of files, whoever wrote them (SDFT, 2601.19897).

.. math:: L(\theta) = E_x E_{y \sim \pi_\theta} \frac{1}{|y|} \sum_t
    D(\pi_\theta(\cdot | x, y_{<t}),\; \mathrm{sg}\, \pi_\phi(\cdot | x, d, y_{<t})), \qquad d \sim D(x)

as in :mod:`sdd.steps.sdsd`, but d is drawn for every rollout, uniformly, from the file's demonstrations
D(x) of the prompt: lines as ``sdd sample`` writes them, of which the right ones demonstrate. Rollouts of a
prompt without one are not taught. The defaults are the paper's: KL(S||T), which ports of its code turn
round, and an average that moves by 0.01 an update. Options that choose among rollouts do not apply. A run
is a function of the file's content, too.
"""

import dataclasses
import functools

import numpy as np

from sdd.data import first_met
from sdd.losses.mean import Mean
from sdd.steps import _checks as checks
from sdd.steps import sdsd
from sdd.steps._sdsd_batch import given
from sdd.steps.base import Chosen, StepDef
from sdd.tasks.base import TRAIN
from sdd.teacher import written

KEY = "config.step.demonstrations"


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    demonstrations: the file, or a pattern of files.
    coverage: least share of the prompts that training meets for which the files must have a demonstration.
    """

    ema_decay: float = 0.99
    demonstrations: str = ""
    coverage: float = 0.5

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, but any number of demonstrations goes; or no file is named.
        """
        from sdd.config import ConfigError

        if self.num_demos < 1:
            raise ConfigError(f"config.step.num_demos={self.num_demos}: must be 1 or more")
        sdsd.Config.check(dataclasses.replace(self, num_demos=1, exclude_own=False), run)
        checks.shares(self, "coverage")
        if not self.demonstrations:
            raise ConfigError(f"{KEY}='': must name a file; sdd sample writes one")


def make(config: Config) -> StepDef:
    """Builds the method; the files are read before the first step."""
    read = functools.cache(lambda: written.read(config.demonstrations, KEY))

    def ready(task, run) -> None:
        source, train = task.source(TRAIN), run.train
        places = first_met(
            len(source), batch_size=train.prompts_per_step, num_batches=train.num_steps, seed=run.seed
        )
        examples = [source[i] for i in places]
        written.check(read(), task, examples, config.coverage, f"{KEY}={config.demonstrations!r}")

    def choose(task, graded, rng_B) -> Chosen:
        texts_B = [read().texts.get(example["prompt_id"], ()) for example in graded.examples]
        index_NxK = written.draw(
            [len(texts) for texts in texts_B], rng_B, graded.group_size, config.num_demos
        )

        @functools.cache
        def shown(prompt: int, number: int) -> np.ndarray:
            return written.tokens(task, texts_B[prompt][number])

        chosen = given(task, graded, index_NxK, shown)
        drawn = {(n // graded.group_size, int(i)) for (n, _), i in np.ndenumerate(index_NxK) if i >= 0}
        cut = np.array([task.demonstration_cut(shown(*which)) for which in drawn])
        cuts = {"demo_cut": Mean((cut > 0).sum(), len(cut)), "demo_cut_tokens": Mean(cut.sum(), len(cut))}
        return chosen._replace(metrics=chosen.metrics | cuts)

    return sdsd.make(config)._replace(choose=choose, ready=ready)
