"""Ranges of a method's options, refused in one line before anything is compiled."""

from typing import Any

from sdd.typed import ConfigError


def zero_or_more(config: Any, *names: str) -> None:
    """Raises ConfigError where one of the named options is negative."""
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(f"config.step.{name}={getattr(config, name)}: must be 0 or more")


def shares(config: Any, *names: str) -> None:
    """Raises ConfigError where one of the named options is not between 0 and 1."""
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise ConfigError(f"config.step.{name}={getattr(config, name)}: must be between 0 and 1")
