"""Rollouts and evaluations of what a run learned: ``sdd sample`` and ``sdd eval``."""
