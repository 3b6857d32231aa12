"""Embedders of texts behind one Protocol, and the policy's own embedding of its rollouts."""

from sdd.embedders.base import Embedder, EmbedderError, load

__all__ = ["Embedder", "EmbedderError", "load"]
