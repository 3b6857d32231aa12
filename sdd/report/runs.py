"""Reading run and study folders; it lives in `sdd.claims.runs`, which both rooms need."""

from sdd.claims.runs import EvaluationRollouts, Run, Study, load_run, load_study, read_rollouts

__all__ = ["EvaluationRollouts", "Run", "Study", "load_run", "load_study", "read_rollouts"]
