"""Inference: enhance signals of any kind and length.

Authors
 * The speechbrain-cffma developers 2026
"""

from typing import TYPE_CHECKING

from speechbrain_cffma.inference.limiter import PeakWarning

if TYPE_CHECKING:
    from speechbrain_cffma.inference.windows import WINDOWS, Windows

__all__ = ["WINDOWS", "PeakWarning", "Windows"]


def __getattr__(name):
    # Windows need torch, whose import takes seconds. Who hands out files to workers does
    # without.
    if name not in ("WINDOWS", "Windows"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speechbrain_cffma.inference import windows

    return getattr(windows, name)
