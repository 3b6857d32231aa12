"""The error of this room; apart, so that ``sdd --help`` need not import arrays."""

from sdd.typed import ConfigError


class WeightsError(ConfigError):
    """Weights that cannot be read or written; one line."""
