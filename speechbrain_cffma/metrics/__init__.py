"""Metrics that score enhanced speech, most of them against the clean reference.

Each metric is a function of arrays, which it does not change. All share these arguments
and errors:

Arguments
---------
clean : np.ndarray
    Clean reference [S], full scale 1, or signed integers. DNSMOS and SRMR don't take it.
enhanced : np.ndarray
    Enhanced samples [S]. The lengths of both may differ by up to a frame of 30 ms.
sample_rate : int
    In Hz; 16000 by default.

Raises
------
MetricError
    If the score is not defined, with the reason: a signal is silent or not finite, or the
    lengths differ by more than a frame.

`score`, `score_all` and `mean_scores` call the metrics by name. `stats.EnhancementStats`
wraps them for SpeechBrain's recipes.

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

#: Names before 0.2.0, valid until 0.3.0.
_OLD_NAMES = {"measures": "segmental_measures", "ratings": "composite_from_parts"}


def __getattr__(name):
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _OLD_NAMES[name]
    warnings.warn(f"{__name__}.{name} is now {new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
