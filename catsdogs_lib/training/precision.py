"""Where and in which precision the sums are done."""

import contextlib

import torch


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_is_fast() -> bool:
    """Whether this machine multiplies bfloat16 in hardware (elsewhere it is emulated and slow)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def resolve(precision: str) -> str:
    """Turn ``auto`` into ``bf16`` or ``fp32``, whichever suits this machine."""
    return ("bf16" if bf16_is_fast() else "fp32") if precision == "auto" else precision


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """Context in which convolutions and matrix products run in `precision` (``fp32`` or ``bf16``)."""
    if torch.cuda.is_available():
        # TF32 has ten bits of mantissa: too few for float32 to mean what it means in serving.
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=precision == "bf16")


def deterministic(seed: int) -> None:
    """Seed torch and ask for algorithms that give the same result twice."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
