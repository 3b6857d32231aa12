"""Runs before jax is imported: eight CPU devices, and a cache that keeps a second `make test` quick."""

import os
import signal
import sys
from pathlib import Path

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py could set its environment")

_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Environment variables rather than jax.config: what a test starts as a process of its own inherits them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Tests compile far more than they compute: the quick compiler halves their time. What they check is the
# program, not what the compiler makes of it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A job in the background is started with Ctrl-C ignored, and so would be what the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
