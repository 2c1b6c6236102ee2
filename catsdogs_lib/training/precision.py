"""Device and numeric precision of training."""

import contextlib

import torch


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_is_fast() -> bool:
    """Check whether this machine multiplies bfloat16 in hardware; elsewhere it is emulated and slow."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def resolve_precision(precision: str) -> str:
    """Turn ``auto`` into ``bf16`` if this machine is fast at it, else ``fp32``."""
    return ("bf16" if bf16_is_fast() else "fp32") if precision == "auto" else precision


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """Run convolutions and matrix products of a block in `precision` (``fp32`` or ``bf16``)."""
    if torch.cuda.is_available():
        # TF32 has a mantissa of ten bits, so float32 would no longer mean what it means in serving.
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=precision == "bf16")


def deterministic(seed: int) -> None:
    """Seed torch and select deterministic algorithms."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
