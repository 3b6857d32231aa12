"""What this machine has, as plain values: versions, devices, memory, disk, the compilation cache."""

import glob
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sdd.typed import error_line

# What a missing extra would give.
EXTRAS = {
    "gpu": "training on NVIDIA GPUs",
    "tpu": "training on TPUs",
    "plan": "sdd plan for TPUs",
    "tensorboard": "config.writers.tensorboard",
    "embed": "diversity of texts by embeddings, in sdd measure and config.eval.embedders",
    "hf": "models and tokenizers of Hugging Face and GGUF files",
    "math": "the verifier of mathematical answers",
    "gcs": "run folders in gs://",
    "gym": "the task sdd.tasks.reasoning_gym",
    "parity": "tests against PyTorch's transformers",
    "bench": "benchmarks against other frameworks",
    "report": "the report's page and figures",
    "test": "the tests",
    "browser": "the tests of the page in a browser",
    "docs": "the documentation as a site",
}
# Variables that change what a run does; those that begin like one of them, where it ends in _.
VARIABLES = (
    *("JAX_", "XLA_", "LIBTPU_", "TPU_", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "NCCL_"),
    *("TF_CPP_MIN_LOG_LEVEL", "TF_GPU_ALLOCATOR", "MEGASCALE_", "SLURM_", "OMPI_COMM_WORLD_"),
    *("COORDINATOR_ADDRESS", "XDG_CACHE_HOME", "HF_HOME", "OMP_NUM_THREADS", "LD_PRELOAD", "PYTHONHASHSEED"),
)
_HIDDEN = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
ACCELERATORS = {
    "gpu": ("an NVIDIA GPU", "/dev/nvidia[0-9]*"),
    "tpu": ("a TPU", "/dev/accel*", "/dev/vfio/[0-9]*"),
}


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that matter, as they were before sdd added its own."""
    found = {}
    for name, value in sorted(environ.items()):
        if any(name.startswith(v) if v.endswith("_") else name == v for v in VARIABLES):
            found[name] = "(not shown)" if any(word in name.upper() for word in _HIDDEN) else value
    return found


def software() -> dict[str, Any]:
    """Versions of Python and of what the core needs, each with the range that is asked for.

    Returns:
      "python" and "packages", name -> {"version", "needed", "fits"}; "extras", name -> {"missing", "gives"}.
    """
    try:
        own = importlib.metadata.metadata("sdd")
        asked = [Requirement(text) for text in importlib.metadata.requires("sdd") or ()]
    except importlib.metadata.PackageNotFoundError:
        return {"python": _python(""), "packages": {}, "extras": {}}
    core = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    extras = {}
    for name in own.get_all("Provides-Extra") or ():
        needs = [r for r in asked if r not in core and r.marker and r.marker.evaluate({"extra": name})]
        missing = [str(r.name) for r in needs if not _fits(r)]
        missing += [
            f"{r.name}[{e}]" for r in needs if _fits(r) for e in r.extras if not _has_extra(r.name, e)
        ]
        extras[name] = {"missing": missing, "gives": EXTRAS.get(name, "")}
    return {
        "python": _python(next(iter(own.get_all("Requires-Python") or ()), "")),
        "packages": {
            r.name: {"version": _version(r.name), "needed": str(r.specifier), "fits": _fits(r)} for r in core
        },
        "extras": extras,
    }


def devices() -> dict[str, Any]:
    """What jax sees; where it cannot start, why.

    Returns:
      "platform", "kind", "count", "local", "memory" (bytes of one, None where it does not say), "error".
    """
    import jax

    try:
        local = jax.local_devices()
    except RuntimeError as error:
        found = {"platform": None, "kind": None, "count": 0, "local": 0, "memory": None}
        return found | {"error": error_line(error)}
    stats = local[0].memory_stats() or {}
    return {
        "platform": local[0].platform,
        "kind": local[0].device_kind,
        "count": jax.device_count(),
        "local": len(local),
        "memory": stats.get("bytes_limit"),
        "error": "",
    }


def host() -> dict[str, Any]:
    """Processors that this process may use, and memory in bytes: what there is, what is free."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = _meminfo("MemAvailable") or total
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit:  # a container's own bound
        total, free = min(total, limit), min(free, max(limit - (used or 0), 0))
    return {
        "cores": cores,
        "memory": total,
        "free": free,
        "system": f"{platform.system()} {platform.machine()}",
    }


def disk(folder: Path) -> dict[str, Any]:
    """Bytes that are free where a folder is, or would be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    writable = os.access(there, os.W_OK)
    return {"folder": str(folder), "free": shutil.disk_usage(there).free, "writable": writable}


def cache(environ: Mapping[str, str]) -> dict[str, Any]:
    """The folder of compiled programs, whether it can be written, and what it holds."""
    folder = Path(environ["JAX_COMPILATION_CACHE_DIR"])
    files = (
        [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()] if folder.is_dir() else []
    )
    off = environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("false", "0")
    return {
        "folder": str(folder),
        "used": not off,
        "writable": disk(folder)["writable"],
        "programs": sum(1 for _ in files),
        "bytes": sum(files),
    }


def accelerators() -> list[str]:
    """The accelerators that the system shows: "gpu", "tpu"."""
    return [name for name, (_, *files) in ACCELERATORS.items() if any(map(glob.glob, files))]


def hidden_accelerator(platform_: str | None, software_: Mapping[str, Any]) -> str:
    """A note where the machine has an accelerator that jax does not use; "" otherwise."""
    for extra in accelerators() if platform_ == "cpu" else ():
        kind = ACCELERATORS[extra][0]
        if software_["extras"].get(extra, {}).get("missing"):
            return f"there is {kind}, and jax runs on the CPU; pip install 'sdd[{extra}]'"
        return f"there is {kind}, and jax runs on the CPU; see JAX_PLATFORMS and the driver"
    return ""


def _python(needed: str) -> dict[str, Any]:
    version = platform.python_version()
    return {
        "version": version,
        "needed": needed,
        "fits": SpecifierSet(needed).contains(version, prereleases=True),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _has_extra(name: str, extra: str) -> bool:
    """Whether what an extra of a package asks for is installed, as jax[tpu] does of jax."""
    asked = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    plain = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    more = [r for r in asked if r not in plain and r.marker and r.marker.evaluate({"extra": extra})]
    return all(_fits(r) for r in more)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such bound: "max"
        return None
