"""Scores of enhanced speech against the clean signal.

Plain functions of arrays: each takes `(clean, enhanced, sample_rate=16000)` (DNSMOS needs no
clean signal), leaves them unchanged, and raises a `MetricError` with the reason where the score is not defined.
`score`, `score_all` and `mean_scores` use them by name; `stats.EnhancementStats` wraps
them for SpeechBrain's recipes.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.metric_table import BASIC, LOWER_IS_BETTER, PACKAGES, SCALES
from speechbrain_cffma.metrics.composite import composite, ratings
from speechbrain_cffma.metrics.intrusive import estoi, pesq, si_sdr, stoi
from speechbrain_cffma.metrics.nonintrusive import DNSMOS, dnsmos
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
    "ssnr",
    "stoi",
    "wss",
]
