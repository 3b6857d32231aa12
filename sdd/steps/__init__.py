"""Methods, one file each: a ``Config`` and ``make(config) -> StepDef``. No file knows another's name."""
