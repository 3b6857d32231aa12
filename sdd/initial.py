"""The state of a run before step 1, and its shape."""

import jax
import jax.numpy as jnp

from sdd import mesh as mesh_lib
from sdd import weights
from sdd.build import Parts
from sdd.config import ConfigError, RunConfig
from sdd.model import lora
from sdd.model import make as make_model
from sdd.rng import stream_key
from sdd.steps.base import init_state
from sdd.types import Params, TrainState


def first_state(config: RunConfig, parts: Parts) -> TrainState:
    """The state before step 1, its parameters drawn from the seed."""
    return init_state(parts.step, parts.optimizer, parts.model.init(stream_key(config.seed, "init", 0)))


def make(config: RunConfig, parts: Parts, like: TrainState) -> TrainState:
    """The state before step 1, with the parameters that ``config.train.init_from`` names, if it does.

    Then only the adapters are drawn, where ``like`` has any: of a large model there is no second one.
    """
    if not config.train.init_from:
        return first_state(config, parts)
    return init_state(parts.step, parts.optimizer, read_params(config, parts, like.params))


def read_params(config: RunConfig, parts: Parts, like: Params) -> Params:
    """The parameters that ``config.train.init_from`` names; adapters, where ``like`` has any, are drawn."""
    bare = make_model(lora.plain(config.model), parts.model.vocab_size)
    try:
        params = weights.load_params(config.train.init_from, bare, parts.mesh)
    except ConfigError as error:
        raise ConfigError(f"config.train.init_from: {error}") from None
    if lora.has(like):
        params = lora.adapted(params, parts.model.init, stream_key(config.seed, "init", 0))
    return params


def abstract_state(parts: Parts) -> TrainState:
    """Shapes and shardings of what `init_state` makes: what a checkpoint is restored into."""
    init = parts.model.init
    params = mesh_lib.abstract(lambda: init(jax.random.key(0)))  # its devices need not be there to hold a key
    opt_state = mesh_lib.abstract(parts.optimizer.init, lora.split(params)[0])
    teacher = mesh_lib.abstract(lambda params: parts.step.begin(lora.merged(params)), params)
    zero = mesh_lib.abstract(lambda: jnp.zeros((), jnp.int32))
    return TrainState(zero, params, opt_state, teacher, zero, zero)
