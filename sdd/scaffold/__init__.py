"""The first files of a method, a task or a metric of one's own: ``sdd init``."""
