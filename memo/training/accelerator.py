"""DeepSpeed, imported so that it is quiet and needs no compiler.

Import it from here: `from memo.training.accelerator import deepspeed`. On a CPU, DeepSpeed would
compile a shared-memory all-reduce with g++ at the first `init_distributed`; gloo does without.
"""

import logging
import os
import warnings

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
# oneDNN compiles a kernel for every length of a text in bf16 attention, and keeps 1,024 at first.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import deepspeed
    import deepspeed.comm
    from deepspeed.utils import logger

logger.setLevel(logging.ERROR)
# DeepSpeed calls what torch has renamed; at ZeRO 2 and 3 the log would be full of it.
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

__all__ = ["deepspeed", "supports_bf16"]


def supports_bf16() -> bool:
    """Whether this machine computes in bf16 at speed: a GPU that does, or a CPU with AVX512 or AMX.

    Elsewhere torch emulates it, 8 to 100 times slower than float32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
