"""Scores of a signal on its own, without the clean one.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metrics.signals import MetricError, single

#: Predicted ratings, by the names that the package gives them.
DNSMOS = {
    "dnsmos_ovrl": "ovrl_mos",
    "dnsmos_sig": "sig_mos",
    "dnsmos_bak": "bak_mos",
    "dnsmos_p808": "p808_mos",
}


def dnsmos(enhanced, sample_rate=SAMPLE_RATE):
    """DNSMOS P.835 and P.808 by the package `speechmos`: a network's prediction of how
    listeners rate a signal that went through noise suppression.

    Reddy et al., "DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality
    Metric to Evaluate Noise Suppressors", ICASSP 2022 (https://arxiv.org/abs/2110.01763).

    Arguments
    ---------
    enhanced : np.ndarray
        Samples [S] in [-1, 1]; louder ones are scaled to a peak of 1. Signals shorter
        than 9 s are repeated, as the authors do.
    sample_rate : int
        16000 Hz.

    Returns
    -------
    dict
        dnsmos_ovrl (overall), dnsmos_sig (speech), dnsmos_bak (background; all three
        P.835) and dnsmos_p808 (overall, P.808), each 1 to 5.

    Raises
    ------
    MetricError
        If the sample rate is another, or the signal is silent or not finite.

    Example
    -------
    >>> _ = getfixture("speechmos")
    >>> sorted(dnsmos(getfixture("speech").numpy()))
    ['dnsmos_bak', 'dnsmos_ovrl', 'dnsmos_p808', 'dnsmos_sig']
    """
    from speechmos import dnsmos as package

    if sample_rate != SAMPLE_RATE:
        raise MetricError(f"DNSMOS: is not defined at {sample_rate} Hz")
    samples = single("DNSMOS", enhanced).astype(np.float32)
    samples = samples / max(1.0, np.abs(samples).max())
    ratings = package.run(samples, sample_rate)
    return {name: float(ratings[key]) for name, key in DNSMOS.items()}
