"""Terms of the training loss, besides the distance of log1p magnitudes.

Each is called as `term(enhanced, clean, lengths=None)` with waveforms [B, S].

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.losses.multi_resolution import MultiResolutionLoss
from speechbrain_cffma.losses.pesq import PESQLoss
from speechbrain_cffma.losses.si_sdr import SISDRLoss

__all__ = ["MultiResolutionLoss", "PESQLoss", "SISDRLoss"]
