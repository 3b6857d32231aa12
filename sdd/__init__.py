"""sdd: on-policy self-distillation in JAX, and what it costs in diversity."""

__version__ = "0.1.0"
