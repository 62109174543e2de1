"""Inference: enhance signals of any kind and length.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.inference.limiter import PeakWarning
from speechbrain_cffma.inference.windows import WINDOWS, Windows

__all__ = ["WINDOWS", "PeakWarning", "Windows"]
