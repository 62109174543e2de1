"""Losses of waveforms, and the training loss that sums them with a loss of magnitudes.

A loss of waveforms [B, S] is called as `term(enhanced, clean, lengths=None)`.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.losses.contrast import ContrastStretching
from speechbrain_cffma.losses.multi_resolution import MultiResolutionLoss
from speechbrain_cffma.losses.pesq import PESQLoss
from speechbrain_cffma.losses.si_sdr import SISDRLoss
from speechbrain_cffma.losses.stoi import STOILoss
from speechbrain_cffma.losses.weighted import WeightedSum

__all__ = [
    "ContrastStretching",
    "MultiResolutionLoss",
    "PESQLoss",
    "SISDRLoss",
    "STOILoss",
    "WeightedSum",
]
