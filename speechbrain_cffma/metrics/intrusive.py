"""PESQ, STOI, ESTOI and SI-SDR: scores of a whole signal against the clean reference.

Authors
 * The speechbrain-cffma developers 2026
"""

import itertools
import math
import warnings

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE, SILENCE
from speechbrain_cffma.metrics.signals import MetricError, pair

#: Signals with more stretches of speech are scored in parts. The package `pesq` has room
#: for 50, and its count may differ a little from ours.
MAX_STRETCHES = 40
#: Length of the longest part in seconds. A stretch and a pause last 0.2 s each at least,
#: so a part holds fewer than 50 stretches.
LONGEST_PART = 19.0


def pesq(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    mode: str | None = None,
) -> float:
    """Perceptual evaluation of speech quality (ITU-T P.862) by the package `pesq`,
    as the listening quality MOS-LQO.

    PESQ is made for utterances of some seconds. The package has room for 50 stretches of
    speech separated by pauses of 0.2 s; more stretches crash the process. Therefore a
    signal with more than 40 stretches is cut into parts of about equal length, 19 s at
    most. Each cut is moved by up to 1 s to the quietest place of the clean signal. The
    score is the mean over the parts with speech, weighted by their lengths.

    Arguments
    ---------
    mode : str
        "wb" for wide-band (P.862.2; 16 kHz only) or "nb" for narrow-band (P.862.1).
        Default: wide-band where the sample rate allows it.

    Returns
    -------
    float
        About 1.0 to 4.64 ("wb"), 1.0 to 4.55 ("nb").

    Raises
    ------
    MetricError
        Also if the sample rate is neither 16000 nor 8000 Hz, if the signal is shorter than
        0.25 s, if PESQ finds no speech, or, in parts, if the enhanced signal is silent
        throughout a part with speech.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(pesq(clean, clean), 2)
    4.64
    >>> round(pesq(clean, clean, mode="nb"), 2)
    4.55
    """
    modes = {16000: ("wb", "nb"), 8000: ("nb",)}.get(sample_rate, ())
    if mode not in (None, "wb", "nb"):
        raise ValueError(f'the mode of PESQ is "wb" or "nb", not {mode!r}')
    if not modes or mode not in (None, *modes):
        band = {"wb": "wide-band ", "nb": "narrow-band ", None: ""}[mode]
        raise MetricError(f"PESQ: {band}is not defined at {sample_rate} Hz")
    clean, enhanced = pair("PESQ", clean, enhanced, sample_rate)
    mode = mode or modes[0]
    parts = _parts(clean, sample_rate)
    if len(parts) == 1:
        return _pesq(clean, enhanced, sample_rate, mode)
    total, length = 0.0, 0
    for part in parts:
        if np.abs(clean[part]).max() < SILENCE:
            continue  # a pause
        reference, degraded = pair("PESQ", clean[part], enhanced[part], sample_rate)
        total += len(clean[part]) * _pesq(reference, degraded, sample_rate, mode)
        length += len(clean[part])
    return total / length


def pesq_nb(
    clean: np.ndarray, enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> float:
    """Narrow-band PESQ; see `pesq`.

    Returns
    -------
    float
        About 1.0 to 4.55.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(pesq_nb(clean, clean), 2)
    4.55
    """
    return pesq(clean, enhanced, sample_rate, "nb")


def _parts(clean, sample_rate):
    """Slices of a signal, each short enough for PESQ."""
    n_parts = math.ceil(len(clean) / sample_rate / (LONGEST_PART - 2))
    if n_parts == 1 or _n_stretches(clean, sample_rate) <= MAX_STRETCHES:
        return [slice(0, len(clean))]
    from scipy.ndimage import uniform_filter1d

    # The power around each sample, averaged over the shortest pause.
    level = uniform_filter1d(np.square(clean), round(0.2 * sample_rate))
    cuts = [0]
    for cut in np.linspace(0, len(clean), n_parts + 1).round().astype(int)[1:-1]:
        first = cut - sample_rate
        cuts.append(first + int(level[first : cut + sample_rate].argmin()))
    return [slice(*ends) for ends in itertools.pairwise([*cuts, len(clean)])]


def _n_stretches(clean, sample_rate):
    """Estimate how many stretches of speech, separated by pauses of 0.2 s, PESQ finds.

    PESQ compares the power of 4 ms frames in the telephone band with a threshold: the
    mean plus twice the standard deviation of the frames below the threshold.
    """
    from scipy.signal import butter, sosfilt

    telephone = butter(2, [300, 3400], "bandpass", fs=sample_rate, output="sos")
    frame = sample_rate // 250
    power = np.square(sosfilt(telephone, clean)[: len(clean) // frame * frame])
    power = power.reshape(-1, frame).mean(1)
    power = power.clip(1e-4 * power.max())
    threshold = power.mean()
    for _ in range(12):
        below = power[power <= threshold]
        threshold = 1.001 * (below.mean() + 2 * below.std())
    edges = np.flatnonzero(np.diff(power > threshold, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    begins, ends = begins[ends - begins > 4], ends[ends - begins > 4]  # no clicks
    if not len(begins):
        return 0
    is_pause = begins[1:] - ends[:-1] > 50
    begins = np.append(begins[0], begins[1:][is_pause])
    ends = np.append(ends[:-1][is_pause], ends[-1])
    return int((ends - begins >= 50).sum())


def _pesq(clean, enhanced, sample_rate, mode):
    from pesq import PesqError
    from pesq import pesq as pesq_score

    try:
        return float(pesq_score(sample_rate, clean, enhanced, mode))
    except PesqError as error:
        reason = error.args[0]
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise MetricError(f"PESQ: {reason}") from error


def stoi(
    clean: np.ndarray, enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> float:
    """Short-time objective intelligibility by the package `pystoi`.

    Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted
    Noisy Speech", IEEE TASLP 19(7), 2011.

    Returns
    -------
    float
        About 0 to 1.

    Raises
    ------
    MetricError
        Also if there is too little speech: `pystoi` needs 30 frames (0.4 s).

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(stoi(clean, clean), 3)
    1.0
    """
    return _stoi("STOI", clean, enhanced, sample_rate, extended=False)


def estoi(
    clean: np.ndarray, enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> float:
    """Extended STOI by the package `pystoi`, which also suits fluctuating noise. It needs
    as much speech as `stoi`.

    Jensen & Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by
    Modulated Noise Maskers", IEEE TASLP 24(11), 2016.

    Returns
    -------
    float
        About 0 to 1.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(estoi(clean, clean), 3)
    1.0
    """
    return _stoi("ESTOI", clean, enhanced, sample_rate, extended=True)


def si_sdr(
    clean: np.ndarray, enhanced: np.ndarray, sample_rate: int = SAMPLE_RATE
) -> float:
    """Scale-invariant signal-to-distortion ratio
    (https://arxiv.org/abs/1811.02508, Eq. 4). The mean is not removed.

    Returns
    -------
    float
        In dB.

    Raises
    ------
    MetricError
        Also if the signals are equal up to a factor, or orthogonal.

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
        raise MetricError(
            "SI-SDR: not finite, since the signals are equal up to a factor or orthogonal"
        )
    return 10 * math.log10(ratio)


def _stoi(metric, clean, enhanced, sample_rate, extended):
    from pystoi import stoi as stoi_score

    clean, enhanced = pair(metric, clean, enhanced, sample_rate)
    # ESTOI draws from NumPy's global generator, whose state must not change.
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
