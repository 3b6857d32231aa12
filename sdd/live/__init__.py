"""The report of a run that goes on, served to a browser on this machine: ``sdd watch``."""
