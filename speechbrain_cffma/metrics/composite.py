"""The composite measures of speech enhancement: CSIG, CBAK and COVL.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metrics.intrusive import pesq
from speechbrain_cffma.metrics.segmental import segmental_measures


def composite(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> dict[str, float]:
    """Predicted ratings of signal distortion, background and overall quality.

    Hu & Loizou, "Evaluation of Objective Quality Measures for Speech Enhancement",
    IEEE TASLP 16(1), 229-238, 2008. They are weighted sums of PESQ, LLR, WSS and the
    segmental SNR, clipped to the scale of listening tests, 1 to 5. The signals are not
    changed: their mean is not removed and their peak is not scaled.

    Arguments
    ---------
    scale : str
        Full scale to which the samples are converted first. "int16" (32768) gives the
        figures of Loizou's MATLAB code. "unit" (1) gives those of most Python ports: WSS
        is lower, and CSIG, CBAK and COVL are about 0.2 higher. Name the scale when you
        report these scores.

    Returns
    -------
    dict
        pesq (MOS-LQO), csig, cbak, covl (1 to 5), ssnr (dB), llr and wss.

    Raises
    ------
    MetricError
        Also if a part is not defined. PESQ needs 0.25 s of speech at 16000 Hz (wide-band,
        LPC of order 16) or 8000 Hz (narrow-band, order 10).

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> noise = 0.01 * clean[::-1]
    >>> {name: round(value, 1) for name, value in composite(clean, clean + noise).items()}
    ... # doctest: +ELLIPSIS
    {'pesq': ..., 'csig': ..., 'cbak': ..., 'covl': ..., 'ssnr': ..., 'llr': ..., 'wss': ...}
    """
    parts = segmental_measures(clean, enhanced, sample_rate, scale)
    quality = pesq(clean, enhanced, sample_rate)
    return {"pesq": quality, **composite_from_parts(quality, **parts), **parts}


def composite_from_parts(
    pesq: float, ssnr: float, llr: float, wss: float
) -> dict[str, float]:
    """Compute the composite measures from their parts.

    Arguments
    ---------
    pesq : float
        MOS-LQO.
    ssnr : float
        In dB.
    llr : float
        Log-likelihood ratio.
    wss : float
        Weighted spectral slope distance.

    Returns
    -------
    dict
        csig, cbak and covl, 1 to 5.

    Example
    -------
    >>> composite_from_parts(pesq=4.64, ssnr=35.0, llr=0.0, wss=0.0)
    {'csig': 5.0, 'cbak': 5.0, 'covl': 5.0}
    """
    values = {
        "csig": 3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss,
        "cbak": 1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * ssnr,
        "covl": 1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss,
    }
    return {name: min(max(value, 1.0), 5.0) for name, value in values.items()}
