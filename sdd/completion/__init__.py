"""Completion of command lines in shells: ``sdd completion``."""
