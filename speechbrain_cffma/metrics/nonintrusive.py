"""Metrics that need no clean reference.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import math
from pathlib import Path

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE, SILENCE
from speechbrain_cffma.metrics.signals import MetricError, single

#: The metrics and their names in the package's result.
DNSMOS = {
    "dnsmos_ovrl": "ovrl_mos",
    "dnsmos_sig": "sig_mos",
    "dnsmos_bak": "bak_mos",
    "dnsmos_p808": "p808_mos",
}
#: Samples of the longest part; longer signals are cut. torchmetrics needs 2 GB for a part.
SRMR_PART = 128000


def dnsmos(enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE) -> dict[str, float]:
    """DNSMOS P.835 and P.808 by the package `speechmos`: a network predicts how listeners
    would rate a signal after noise suppression.

    Reddy et al., "DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality
    Metric to Evaluate Noise Suppressors", ICASSP 2022 (https://arxiv.org/abs/2110.01763).

    Arguments
    ---------
    enhanced : np.ndarray
        Samples [S] in [-1, 1]; louder signals are scaled to a peak of 1. Signals shorter
        than 9 s are repeated, as in the authors' code.
    sample_rate : int
        16000 Hz.

    Returns
    -------
    dict
        dnsmos_ovrl (overall), dnsmos_sig (speech) and dnsmos_bak (background) of P.835,
        and dnsmos_p808 (overall) of P.808, each 1 to 5.

    Raises
    ------
    MetricError
        If the sample rate is not 16000 Hz, or the signal is silent or not finite.

    Example
    -------
    >>> _ = getfixture("speechmos")
    >>> sorted(dnsmos(getfixture("speech").numpy()))
    ['dnsmos_bak', 'dnsmos_ovrl', 'dnsmos_p808', 'dnsmos_sig']
    """
    if sample_rate != SAMPLE_RATE:
        raise MetricError(f"DNSMOS: is not defined at {sample_rate} Hz")
    samples = single("DNSMOS", enhanced).astype(np.float32)
    samples = samples / max(1.0, np.abs(samples).max())
    ratings = _dnsmos_networks()(samples, sample_rate, is_personalized_MOS=False)
    return {name: float(ratings[key]) for name, key in DNSMOS.items()}


@functools.cache
def _dnsmos_networks():
    """The package's function of samples, with its networks on one thread.

    By itself it takes a thread of each core, which waits actively, in each of the
    processes that score; the last digits of its ratings then depend on the cores.
    """
    import onnxruntime
    from speechmos import dnsmos as package

    folder = Path(package.__file__).parent / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    class OneThread(package.DNSMOS):
        def __init__(self):
            self.onnx_sess, self.p808_onnx_sess = (
                onnxruntime.InferenceSession(folder / name, options)
                for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
            )

    return OneThread()


def srmr(enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """Speech-to-reverberation modulation energy ratio by the package `torchmetrics`.

    Speech modulates its energy slowly; reverberation and noise add fast modulations. SRMR
    is the energy of the slow modulations divided by that of the fast ones.

    Falk et al., "A Non-Intrusive Quality and Intelligibility Measure of Reverberant and
    Dereverberated Speech", IEEE TASLP 18(7), 2010: the original measure, without
    normalisation, for modulations of 4 to 128 Hz.

    Longer signals are cut into parts of equal length, at most 8 s at 16 kHz, to bound the
    memory. The score is the mean over the parts that are not silent.

    Arguments
    ---------
    enhanced : np.ndarray
        Samples [S], full scale 1.
    sample_rate : int
        In Hz, from 8000; the authors tested 8000 and 16000.

    Returns
    -------
    float
        From 0; higher is better.

    Raises
    ------
    MetricError
        If the signal is silent, not finite, or shorter than 0.3 s.

    Example
    -------
    >>> _ = getfixture("torchmetrics")
    >>> speech, noise = getfixture("speech").numpy(), np.random.default_rng(0).normal(size=8000)
    >>> srmr(speech[16000:24000]) > srmr(noise)
    True
    """
    import torch
    from torchmetrics.functional.audio.srmr import (
        speech_reverberation_modulation_energy_ratio as package,
    )

    if sample_rate < 8000:
        raise MetricError(f"SRMR: is not defined at {sample_rate} Hz")
    samples = single("SRMR", enhanced).astype(np.float64)
    if len(samples) < 0.3 * sample_rate:
        raise MetricError("SRMR: the signal is shorter than 0.3 s")
    parts = np.array_split(samples, math.ceil(len(samples) / SRMR_PART))
    heard = [part for part in parts if np.abs(part).max() >= SILENCE]
    scores = [package(torch.from_numpy(part), sample_rate).item() for part in heard]
    return sum(scores) / len(scores)
