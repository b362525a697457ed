"""Which device scores and trains, and in what precision: what a user asks for against what there is."""

from importlib.util import find_spec

import torch

from gnn.errors import ModelError


def choose_device(device: str) -> str:
    """`auto` to what there is; `cuda` only where there is one, and CuPy to use it with.

    Raises:
        ModelError: `cuda` was asked for and there is none, or the name is not known.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"--device must be auto, cpu or cuda, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("--device cuda: no CUDA device is available to PyTorch here; use --device auto or cpu")
    if device == "cuda" and find_spec("cupy") is None:
        raise ModelError("--device cuda: CuPy is missing; install ringwatch[cuda], or use --device auto or cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() and find_spec("cupy") is not None else "cpu"


def choose_precision(precision: str, device: str) -> str:
    """The precision of training steps, where the device has it; a CPU has both, bf16 more slowly on most.

    Raises:
        ModelError: It is not known, or the GPU has no bf16.
    """
    if precision not in ("float32", "bf16"):
        raise ModelError(f"--precision must be float32 or bf16, not {precision!r}")
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ModelError(f"--precision bf16: {torch.cuda.get_device_name()} has no bf16; use float32")
    return precision
