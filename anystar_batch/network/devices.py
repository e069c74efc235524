"""What the machine computes fast, told without loading a backend (10 s).

bfloat16 halves the memory and the time of a network on hardware that multiplies it; elsewhere it is
emulated, slower than float32.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux lists what a processor can do."""

CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions that multiply bfloat16..."""

NVIDIA_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvmap")
"""What shows that NVIDIA's driver is loaded: of Linux, of Windows' Linux, of Tegra."""

INTEL, INTEL_FLAGS = "GenuineIntel", frozenset({"amx_bf16"})
"""...and on whose processors only these are faster than float32 (docs/performance.md)."""

GPU_CAPABILITY = 8.0
"""Least compute capability of an NVIDIA GPU that multiplies bfloat16 (Ampere)."""


GPU_PACKAGES = {
    "tensorflow": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "jax": ("jax-cuda12-plugin", "jax-cuda13-plugin"),
}
"""Distributions without which a backend finds no GPU: any of them will do."""


@cache
def natural_precision(backend: str) -> str:
    """Return the precision that this machine computes fastest, asked once a process.

    Parameters
    ----------
    backend : {"tensorflow", "jax"}

    Returns
    -------
    {"float32", "bfloat16"}
    """
    packages = GPU_PACKAGES[backend]
    capabilities = gpu_capabilities() if any(map(_is_installed, packages)) else []
    helpful = INTEL_FLAGS if INTEL in _cpu("vendor_id") else CPU_FLAGS
    fast = min(capabilities) >= GPU_CAPABILITY if capabilities else bool(helpful & cpu_flags())
    return "bfloat16" if fast else "float32"


def cpu_flags() -> set[str]:
    """Return what the first processor can do, as Linux names it; empty elsewhere."""
    return _cpu("flags")


def _cpu(name: str) -> set[str]:
    """The words that Linux has for the first processor under a name; none elsewhere."""
    try:
        lines = CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith(name)), set())


@cache
def gpu_names(backend: str) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that a backend here may use, asked once a process.

    Parameters
    ----------
    backend : {"tensorflow", "jax"}

    Returns
    -------
    tuple of str
        What `CUDA_VISIBLE_DEVICES` calls each of them; empty without any, or without the packages
        that drive them.
    """
    if not any(map(_is_installed, GPU_PACKAGES[backend])):
        return ()
    indices = _ask_driver("index")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name.strip() for name in (given or "").split(",") if name.strip()]
    return tuple((indices and named) or indices)


def may_have_accelerator() -> bool:
    """Return whether TensorFlow might find anything to compute on beside the processor.

    Rather too often than too seldom: a driver's device files count, and so does a plug-in of
    TensorFlow's, whether or not they are of use.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") not in {"", "-1"} and any(
        Path(place).exists() for place in NVIDIA_FILES
    ):
        return True
    found = importlib.util.find_spec("tensorflow")
    folders = (found and found.submodule_search_locations) or ()
    plugins = [Path(folder).parent / "tensorflow-plugins" for folder in folders]
    return Path("/dev/kfd").exists() or any(place.exists() for place in plugins)


def gpu_capabilities() -> list[float]:
    """Return the compute capability of every NVIDIA GPU that may be used; empty without any."""
    try:
        return [float(line) for line in _ask_driver("compute_cap")]
    except ValueError:
        return []


def driver_lines(question: str) -> list[str]:
    """Return what nvidia-smi says, a line for every GPU of the machine; nothing without any.

    Parameters
    ----------
    question : str
        Names of what is asked, with commas between, as `--query-gpu` takes them.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run(
            [command, f"--query-gpu={question}", "--format=csv,noheader"],
            capture_output=True,
            check=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _ask_driver(question: str) -> list[str]:
    """What nvidia-smi says of every GPU; nothing where there is none, or none may be used."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return []
    return " ".join(driver_lines(question)).split()


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
