"""Scores of enhanced speech against the clean signal.

Each metric is a function of arrays, which it leaves unchanged. What they have in common:

Arguments
---------
clean : np.ndarray
    Samples [S], full scale 1, or signed integers. DNSMOS and SRMR need none.
enhanced : np.ndarray
    Samples [S]. Its length may differ from that of the clean signal by up to a frame of 30 ms.
sample_rate : int
    In Hz; 16000 by default.

Raises
------
MetricError
    If the score is not defined: a signal is silent or not finite, or the lengths differ by
    more than a frame. The message has the reason.

`score`, `score_all` and `mean_scores` use them by name; `stats.EnhancementStats` wraps
them for SpeechBrain's recipes.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.metric_table import BASIC, LOWER_IS_BETTER, PACKAGES, SCALES
from speechbrain_cffma.metrics.composite import composite, ratings
from speechbrain_cffma.metrics.intrusive import estoi, pesq, si_sdr, stoi
from speechbrain_cffma.metrics.nonintrusive import DNSMOS, dnsmos, srmr
from speechbrain_cffma.metrics.scoring import (
    METRICS,
    available_metrics,
    mean_scores,
    score,
    score_all,
    score_each,
)
from speechbrain_cffma.metrics.segmental import llr, measures, ssnr, wss
from speechbrain_cffma.metrics.signals import MetricError

__all__ = [
    "BASIC",
    "DNSMOS",
    "LOWER_IS_BETTER",
    "METRICS",
    "MetricError",
    "PACKAGES",
    "SCALES",
    "available_metrics",
    "composite",
    "dnsmos",
    "estoi",
    "llr",
    "mean_scores",
    "measures",
    "pesq",
    "ratings",
    "score",
    "score_all",
    "score_each",
    "si_sdr",
    "srmr",
    "ssnr",
    "stoi",
    "wss",
]
