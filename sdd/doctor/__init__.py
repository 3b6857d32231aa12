"""What a machine has, and whether a config fits it: ``sdd doctor``."""
