"""The sections of a run's config, as frozen dataclasses; `sdd.config` offers them all."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Section:
    """A section that names a module.

    Attributes:
      name: dotted path of a module with ``Config`` and ``make``.
      options: an instance of that module's ``Config``.
    """

    name: str
    options: Any


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder; the vocabulary comes from the task's tokenizer.

    Attributes:
      num_layers: L.
      width: E, the size of the residual stream.
      num_heads: H, query heads; a multiple of num_kv_heads.
      num_kv_heads: J, key and value heads.
      head_dim: C, the size of a head.
      mlp_dim: hidden size of the gated MLP.
      rope_theta: base of the wavelengths of the rotary embedding.
      rope_fraction: share of each head's dimensions that the rotary embedding turns.
      norm_eps: epsilon of the RMS norms.
      qk_norm: whether queries and keys are normalised per head.
      tied_embeddings: whether the unembedding is the embedding.
      token_shift: whether each position also reads an embedding of the token before it.
      remat: what the backward pass computes anew: nothing ("none"), every layer ("full"), all but
        matrix products ("dots"), or all but those without a batch dimension ("dots_no_batch").
      compute_dtype: of activations; parameters are float32.
      max_length: longest sequence, in tokens; longer ones are refused. 0: as long as the task needs.
    """

    num_layers: int = 3
    width: int = 64
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 16
    mlp_dim: int = 256
    rope_theta: float = 10000.0
    rope_fraction: float = 1.0
    norm_eps: float = 1e-6
    qk_norm: bool = False
    tied_embeddings: bool = True
    token_shift: bool = False
    remat: Literal["none", "full", "dots", "dots_no_batch"] = "none"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int = 0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the device mesh; their product is the number of devices.

    Attributes:
      data: ways that rows are split with whole parameters; -1: what the others leave.
      fsdp: ways that rows and parameters are split; -1 as above.
      tensor: ways that heads, MLP and vocabulary are split; -1 as above.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How rollouts are drawn.

    Attributes:
      temperature: divides the logits; 0: greedy.
      top_k: only the k most likely tokens; 0: off.
      top_p: only the most likely tokens that together reach this probability; 1: off.
      min_p: only tokens at least this share as likely as the most likely; 0: off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
      learning_rate: its highest value, after the warm-up.
      schedule: after the warm-up "constant", or "linear" or "cosine" down to 0 at the last update.
      warmup_steps: updates over which the learning rate rises linearly.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the denominator.
      weight_decay: decoupled; 0: none.
      clip_norm: largest global norm of a gradient; 0: no clipping.
    """

    learning_rate: float = 4e-4
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: int = 10
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
      num_steps: steps, each with a batch of its own.
      prompts_per_step: B, prompts of a batch over all devices.
      group_size: G, rollouts a prompt.
      updates_per_batch: updates of the parameters with the same rollouts.
      init_from: a run folder whose last checkpoint gives the parameters; "": drawn from the seed.
      checkpoint_every: steps between checkpoints; 0: only at the end.
      keep_checkpoints: how many of the newest checkpoints stay.
      max_skipped_in_a_row: non-finite updates in a row after which the run stops.
      log_every: steps between lines of metrics.jsonl.
    """

    num_steps: int = 300
    prompts_per_step: int = 16
    group_size: int = 4
    updates_per_batch: int = 1
    init_from: str = ""
    checkpoint_every: int = 50
    keep_checkpoints: int = 2
    max_skipped_in_a_row: int = 10
    log_every: int = 1


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluations: before the first step, on the way, and after the last.

    Attributes:
      splits: the task's splits to evaluate.
      every: steps between evaluations; 0: only after the last step.
      num_prompts: prompts of each split.
      num_samples: n, rollouts a prompt.
      final_num_prompts: prompts of each split after the last step.
      final_num_samples: n after the last step.
      ks: the k of pass@k and distinct@k; empty: powers of two up to n.
      rows_per_call: rollouts sampled at once; bounds memory.
      temperature: see `SamplingConfig`, as are the next three.
      top_k: 0: off.
      top_p: 1: off.
      min_p: 0: off.
      bootstrap: resamples behind each interval.
      metrics: dotted paths of further metrics, functions ``sdd.metrics.Samples -> {name: value a prompt}``.
      embedders: of the responses' texts, beside the policy's own; see `sdd.embedders.load`.
      likelihood_samples: rollouts a prompt of which it is measured how likely each makes the others as a
        demonstration; costs that many squared forward passes a prompt; 0: none.
    """

    splits: tuple[str, ...] = ("id", "larger", "harder")
    every: int = 50
    num_prompts: int = 128
    num_samples: int = 32
    final_num_prompts: int = 384
    final_num_samples: int = 64
    ks: tuple[int, ...] = ()
    rows_per_call: int = 4096
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    bootstrap: int = 1000
    metrics: tuple[str, ...] = ()
    embedders: tuple[str, ...] = ()
    likelihood_samples: int = 0


@dataclasses.dataclass(frozen=True)
class WriterConfig:
    """What is written beside the run folder's JSON.

    Attributes:
      tensorboard: whether event files for TensorBoard are written.
      progress: whether a progress bar is shown.
    """

    tensorboard: bool = False
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run; it is a pure function of this.

    Attributes:
      seed: every random choice derives from it.
      task: the task's module and options.
      step: the method's module and options.
      model: the decoder.
      mesh: the device mesh.
      sampling: how training rollouts are drawn.
      optimizer: AdamW and its schedule.
      train: the training loop.
      eval: evaluations.
      writers: what is written and shown.
    """

    task: Section
    step: Section
    seed: int = 0
    model: ModelConfig = ModelConfig()
    mesh: MeshConfig = MeshConfig()
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    writers: WriterConfig = WriterConfig()
