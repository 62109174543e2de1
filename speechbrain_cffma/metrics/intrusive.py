"""PESQ, STOI, ESTOI and SI-SDR: scores of a whole signal against the clean one.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
import warnings

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metrics.signals import MetricError, pair


def pesq(clean, enhanced, sample_rate=SAMPLE_RATE, mode=None):
    """Perceptual evaluation of speech quality (ITU-T P.862) by the package `pesq`,
    as the listening quality MOS-LQO.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        16000 or 8000 Hz.
    mode : str
        "wb" for wide-band (P.862.2; 16 kHz only) or "nb" for narrow-band (P.862.1);
        the default is the widest that the sample rate allows.

    Returns
    -------
    float
        About 1.0 to 4.64 ("wb"), 1.0 to 4.55 ("nb").

    Raises
    ------
    MetricError
        If it is not defined at the sample rate, either signal is silent or not finite,
        it finds no speech, or the signals are shorter than 0.25 s.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(pesq(clean, clean), 2)
    4.64
    >>> round(pesq(clean, clean, mode="nb"), 2)
    4.55
    """
    from pesq import PesqError
    from pesq import pesq as pesq_score

    modes = {16000: ("wb", "nb"), 8000: ("nb",)}.get(sample_rate, ())
    if mode not in (None, "wb", "nb"):
        raise ValueError(f'the mode of PESQ is "wb" or "nb", not {mode!r}')
    if not modes or mode not in (None, *modes):
        band = {"wb": "wide-band ", "nb": "narrow-band ", None: ""}[mode]
        raise MetricError(f"PESQ: {band}is not defined at {sample_rate} Hz")
    clean, enhanced = pair("PESQ", clean, enhanced, sample_rate)
    try:
        return float(pesq_score(sample_rate, clean, enhanced, mode or modes[0]))
    except PesqError as error:
        reason = error.args[0]
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise MetricError(f"PESQ: {reason}") from error


def stoi(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Short-time objective intelligibility by the package `pystoi`.

    Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted
    Noisy Speech", IEEE TASLP 19(7), 2011.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        About 0 to 1.

    Raises
    ------
    MetricError
        If either is silent or not finite, or there is too little speech: pystoi needs
        30 frames (0.4 s).

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(stoi(clean, clean), 3)
    1.0
    """
    return _stoi("STOI", clean, enhanced, sample_rate, extended=False)


def estoi(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Extended STOI by the package `pystoi`; it also suits noise that comes and goes.

    Jensen & Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by
    Modulated Noise Maskers", IEEE TASLP 24(11), 2016.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        About 0 to 1.

    Raises
    ------
    MetricError
        If either is silent or not finite, or there is too little speech: pystoi needs
        30 frames (0.4 s).

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(estoi(clean, clean), 3)
    1.0
    """
    return _stoi("ESTOI", clean, enhanced, sample_rate, extended=True)


def si_sdr(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Scale-invariant signal-to-distortion ratio
    (https://arxiv.org/abs/1811.02508, Eq. 4), without removal of the mean.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        In Hz; it only bounds by how much the lengths may differ.

    Returns
    -------
    float
        In dB.

    Raises
    ------
    MetricError
        If either is silent or not finite, or the two are equal but for a factor.

    Example
    -------
    >>> clean = np.array([1.0, 0.0, -1.0, 0.0])
    >>> noise = np.array([0.0, 0.1, 0.0, 0.1])
    >>> round(si_sdr(clean, 5 * (clean + noise)), 6)
    20.0
    """
    clean, enhanced = pair("SI-SDR", clean, enhanced, sample_rate)
    clean, enhanced = clean.astype(np.float64), enhanced.astype(np.float64)
    target = (enhanced @ clean / (clean @ clean)) * clean
    distortion = enhanced - target
    ratio = (target @ target) / max(distortion @ distortion, 1e-300)
    if ratio == 0 or ratio > 1e30:
        raise MetricError("SI-SDR: no distortion, or nothing but")
    return 10 * math.log10(ratio)


def _stoi(metric, clean, enhanced, sample_rate, extended):
    from pystoi import stoi as stoi_score

    clean, enhanced = pair(metric, clean, enhanced, sample_rate)
    # ESTOI draws from NumPy's global generator: a training run must not notice.
    state = np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            np.random.seed(0)
            return float(stoi_score(clean, enhanced, sample_rate, extended))
        except (RuntimeWarning, ValueError) as error:
            raise MetricError(f"{metric}: too little speech") from error
        finally:
            np.random.set_state(state)
