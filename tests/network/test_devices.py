from __future__ import annotations

import pytest

from anystar_batch.network import devices
from anystar_batch.network.devices import cpu_flags, gpu_capabilities, gpu_names, natural_precision


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that makes this a machine of given flags, GPUs and packages."""

    def machine(flags="fpu sse2", gpus=None, installed=(), vendor="AuthenticAMD"):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(
            f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\nprocessor\t: 1\n"
        )
        monkeypatch.setattr(devices, "CPUINFO", cpuinfo)
        monkeypatch.setattr(devices, "_is_installed", lambda name: name in installed)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir(exist_ok=True)
        if gpus is not None:
            command = bin_dir / "nvidia-smi"
            command.write_text(f"#!/bin/sh\n{gpus}\n")
            command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_dir}:/bin:/usr/bin" if gpus else str(bin_dir))
        natural_precision.cache_clear()
        gpu_names.cache_clear()

    yield machine
    natural_precision.cache_clear()
    gpu_names.cache_clear()


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_processors_that_multiply_bfloat16_do(machine, flag):
    machine(flags=f"fpu {flag} sse2")
    assert natural_precision("tensorflow") == "bfloat16"
    machine(flags="fpu avx512f bf16_of_another_kind")
    assert natural_precision("tensorflow") == "float32"


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("avx512_bf16", "float32"), ("avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bfloat16")],
)
def test_on_intel_only_matrix_units_make_bfloat16_fast(machine, flags, precision):
    machine(flags=f"fpu sse2 {flags}", vendor="GenuineIntel")
    assert natural_precision("tensorflow") == precision


def test_what_linux_does_not_tell_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "nothing")
    assert cpu_flags() == set()


CUDA = ("nvidia-cudnn-cu12",)


@pytest.mark.parametrize(
    ("gpus", "installed", "backend", "precision"),
    [
        ("echo 9.0", CUDA, "tensorflow", "bfloat16"),
        ("echo 7.5", CUDA, "tensorflow", "float32"),
        ("echo 9.0; echo 7.0", CUDA, "tensorflow", "float32"),
        ("echo 7.5", (), "tensorflow", "bfloat16"),
        ("echo 7.5", ("jax-cuda13-plugin",), "jax", "float32"),
        ("echo no devices; exit 6", CUDA, "tensorflow", "bfloat16"),
        ("echo unknown", CUDA, "tensorflow", "bfloat16"),
    ],
)
def test_a_gpu_decides_where_the_backend_can_use_it(machine, gpus, installed, backend, precision):
    machine(flags="amx_bf16", gpus=gpus, installed=installed)
    assert natural_precision(backend) == precision


def test_hidden_gpus_do_not_count(machine, monkeypatch):
    machine(gpus="echo 9.0", installed=CUDA)
    assert gpu_capabilities() == [9.0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_capabilities() == []


def test_gpus_are_named_as_the_driver_or_the_environment_names_them(machine, monkeypatch):
    machine(gpus="echo 0; echo 1; echo 2", installed=CUDA)
    assert gpu_names("tensorflow") == ("0", "1", "2")
    gpu_names.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-9bd8")
    assert gpu_names("tensorflow") == ("2", "GPU-9bd8")
    gpu_names.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_names("tensorflow") == ()


def test_gpus_without_what_drives_them_do_not_count(machine):
    machine(gpus="echo 0; echo 1", installed=())
    assert gpu_names("tensorflow") == ()


def test_a_gpu_that_only_the_environment_knows_does_not_count(machine, monkeypatch):
    machine(installed=CUDA)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpu_names("tensorflow") == ()
