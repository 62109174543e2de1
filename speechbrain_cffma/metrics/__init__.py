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

import warnings

from speechbrain_cffma.metric_table import BASIC, LOWER_IS_BETTER, PACKAGES, SCALES
from speechbrain_cffma.metrics.composite import composite, composite_from_parts
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
from speechbrain_cffma.metrics.segmental import llr, segmental_measures, ssnr, wss
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
    "composite_from_parts",
    "dnsmos",
    "estoi",
    "llr",
    "mean_scores",
    "pesq",
    "score",
    "score_all",
    "score_each",
    "segmental_measures",
    "si_sdr",
    "srmr",
    "ssnr",
    "stoi",
    "wss",
]

#: Names until 0.2.0, valid until 0.3.0.
_OLD_NAMES = {"measures": "segmental_measures", "ratings": "composite_from_parts"}


def __getattr__(name):
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _OLD_NAMES[name]
    warnings.warn(f"{__name__}.{name} is now {new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
