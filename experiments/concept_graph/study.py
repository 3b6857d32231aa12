"""sdd run experiments/concept_graph/study.py --workdir=runs/study

One warm start a seed, every method from it, and a report that compares them.

    more seeds                 --seeds=4
    shorter                    --config.num_steps=100
    some of the methods        --config.methods=sdsd_k1,grpo
    one method's own value     --config.experiments.grpo.optimizer.learning_rate=2e-4

For a method of your own, copy this file and add it to ``experiments`` and ``methods`` below.
"""

import ml_collections

from experiments.concept_graph import grpo, grpo_diversity, sdsd, sdsd_k3, warm_start

# Keys of the study that change every method; 0 leaves what the experiment says.
SHARED = {
    "num_steps": ("train", "num_steps"),
    "eval_every": ("eval", "every"),
    "num_prompts": ("eval", "num_prompts"),
    "num_samples": ("eval", "num_samples"),
    "final_num_prompts": ("eval", "final_num_prompts"),
    "final_num_samples": ("eval", "final_num_samples"),
}
OF_METHODS = ("num_steps", "eval_every")  # those of SHARED that do not change the warm start


def get_config() -> ml_collections.ConfigDict:
    """Returns the study: which experiments, what they share, and the settings of each."""
    experiments = {
        "warm_start": warm_start.get_config(),
        "sdsd_k1": sdsd.get_config(),
        "sdsd_k3": sdsd_k3.get_config(),
        "grpo": grpo.get_config(),
        "grpo_diversity": grpo_diversity.get_config(),
    }
    return ml_collections.ConfigDict(
        {
            "seed": 0,  # of the first seed; the others follow it
            "warm_start": "warm_start",
            "methods": ("sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity"),
            "warm_start_steps": 0,
            **dict.fromkeys(SHARED, 0),
            "experiments": experiments,
        }
    )


def resolve(study: ml_collections.ConfigDict) -> dict:
    """Returns name -> checked `sdd.config.RunConfig` of the warm start, which comes first, and the methods.

    Raises:
      ConfigError: one line that names the experiment, the key, its value and what is valid.
    """
    from sdd import config

    runs = {}
    for name in (study.warm_start, *study.methods):
        if name not in study.experiments:
            known = ", ".join(study.experiments)
            raise config.ConfigError(f"config.methods: there is no experiment {name!r}; valid: {known}")
        c = study.experiments[name].copy_and_resolve_references()
        c.seed = study.seed
        for key, (section, field) in SHARED.items():
            if study[key] and not (name == study.warm_start and key in OF_METHODS):
                c[section][field] = study[key]
        if name == study.warm_start and study.warm_start_steps:
            c.train.num_steps = study.warm_start_steps
        try:
            runs[name] = config.resolve(c)
        except config.ConfigError as error:
            raise config.ConfigError(f"{name}: {error}") from None
    return runs


def run(config: ml_collections.ConfigDict, workdir: str, seeds: int = 1) -> None:
    """Runs what is not finished yet of the study, and writes its report; ``sdd run`` calls this.

    Args:
      config: as `get_config` returns it, perhaps changed by flags.
      workdir: the study's folder.
      seeds: how many seeds, from ``config.seed`` on.
    """
    runs = resolve(config)  # first: a slip is answered before anything heavy is imported
    from sdd import study

    warm = runs.pop(config.warm_start)
    study.run(warm, runs, workdir, seeds=seeds)
