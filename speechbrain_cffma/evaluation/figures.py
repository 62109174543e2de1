"""Charts, spectrograms and audio that are embedded in the report's page.

Charts are SVGs in the page's text colour, so that they suit light and dark pages.

Authors
 * The speechbrain-cffma developers 2026
"""

import io
import re

import numpy as np
import soundfile
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.signal import ShortTimeFFT

from speechbrain_cffma.pictures import data_uri, image, levels

#: Colours of the systems, in order; they are legible on white and on black.
COLORS = ("#8b8f96", "#2f81d6", "#e0762b", "#2a9d74", "#c45fa0", "#b08d12", "#7d6fd6")

_TEXT = "#010203"  # a placeholder; in the SVG the page's colour replaces it
_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "report",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color"), _TEXT
    ),
    "ytick.color": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def color(index):
    """The colour of a system.

    Arguments
    ---------
    index : int
        The index of the system.

    Returns
    -------
    str
        Such as #2f81d6.

    Example
    -------
    >>> color(0) == color(7)
    True
    """
    return COLORS[index % len(COLORS)]


def distributions(scores):
    """Draw a box plot of the scores of each system: quartiles, whiskers up to 1.5 times
    the box, the median as a line and the mean as a diamond.

    Arguments
    ---------
    scores : dict
        Scores [N] of each system by its name.

    Returns
    -------
    str
        An SVG.

    Example
    -------
    >>> distributions({"noisy": [1.0, 1.5, 2.0], "new": []})[:4]
    '<svg'
    """
    with rc_context(_STYLE):
        names = [_shortened(name) for name in scores]
        # In inches: room for the names at 9 points to the left and the numbers below.
        left = 0.2 + 0.072 * max(map(len, names))
        axis = _axis(3.6, 0.4 + 0.34 * len(names), left)
        boxes = axis.boxplot(
            list(scores.values()),
            orientation="horizontal",
            widths=0.6,
            showmeans=True,
            patch_artist=True,
            tick_labels=names,
            medianprops={"color": _TEXT},
            meanprops={
                "markerfacecolor": _TEXT,
                "markeredgecolor": _TEXT,
                "marker": "d",
            },
            flierprops={"markersize": 2.5, "markeredgecolor": _TEXT, "alpha": 0.6},
            **dict.fromkeys(("whiskerprops", "capprops"), {"color": _TEXT}),
        )
        for i, box in enumerate(boxes["boxes"]):
            box.set(facecolor=color(i), edgecolor=_TEXT, linewidth=0.8)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.15, color=_TEXT)
        return _svg(axis.figure)


def curves(groups, metric):
    """Draw the means of each system by input SNR, with their intervals.

    Arguments
    ---------
    groups : dict
        `summary["snr"]` from `statistics.summarize_systems`.
    metric : str
        A name in `METRICS`.

    Returns
    -------
    str
        An SVG.

    Example
    -------
    >>> mean = {"scores": {"pesq": {"n": 2, "mean": 2.0, "low": 1.8, "high": 2.1}}}
    >>> curves({"0": {"noisy": mean}, "5": {"noisy": mean}}, "pesq")[:4]
    '<svg'
    """
    snrs = sorted(groups, key=float)
    systems = list(dict.fromkeys(name for group in groups.values() for name in group))
    with rc_context(_STYLE):
        axis = _axis(3.6, 2.3, left=0.42, bottom=0.5)
        for i, system in enumerate(systems):
            points = [
                (float(snr), groups[snr][system]["scores"][metric])
                for snr in snrs
                if system in groups[snr]
            ]
            points = [(x, y) for x, y in points if y["mean"] is not None]
            if not points:
                continue
            x, means = zip(*[(x, y["mean"]) for x, y in points], strict=True)
            # A single score has no interval: draw it without one.
            low, high = (
                [y["mean"] if y[end] is None else y[end] for _, y in points]
                for end in ("low", "high")
            )
            axis.fill_between(x, low, high, color=color(i), alpha=0.2, linewidth=0)
            axis.plot(x, means, color=color(i), marker="o", markersize=3.5)
        axis.set_xticks([float(snr) for snr in snrs], snrs)
        axis.set_xlabel("Input SNR (dB)")
        axis.grid(alpha=0.15, color=_TEXT)
        return _svg(axis.figure)


def spectra(signals, sample_rate):
    """Draw spectrograms of several signals on one common scale.

    Arguments
    ---------
    signals : list of np.ndarray
        Samples [S] of each.
    sample_rate : int
        In Hz.

    Returns
    -------
    list of str
        An image (data URI) for each signal. Time runs to the right, frequency to the top.
        The loudest point of all signals has the brightest colour; points that are
        `pictures.RANGE` dB softer or more are black.

    Example
    -------
    >>> (image,) = spectra([getfixture("speech").numpy()], 16000)
    >>> image[:23]
    'data:image/webp;base64,'
    """
    window = round(0.032 * sample_rate)
    transform = ShortTimeFFT(np.hanning(window), round(0.01 * sample_rate), sample_rate)
    magnitudes = [np.abs(transform.stft(_at_least(x, window))).T for x in signals]
    return [image(level) for level in levels(magnitudes)]


def audio(samples, sample_rate):
    """Encode a signal as lossless audio.

    Arguments
    ---------
    samples : np.ndarray
        Samples [S] in [-1, 1].
    sample_rate : int
        In Hz.

    Returns
    -------
    str
        A data URI.

    Example
    -------
    >>> audio(getfixture("speech").numpy(), 16000)[:23]
    'data:audio/flac;base64,'
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, "PCM_16", format="FLAC")
    return data_uri(buffer, "audio/flac")


def _axis(width, height, left, bottom=0.28, margin=0.1):
    """The axis of a chart; sizes in inches. A layout that measures texts is half as fast."""
    figure = Figure(figsize=(width, height))
    size = (width - left - margin) / width, (height - bottom - margin) / height
    return figure.add_axes((left / width, bottom / height, *size))


def _at_least(samples, n):
    return np.pad(samples, (0, max(0, n - len(samples))))


def _shortened(name):
    return name if len(name) <= 16 else name[:15] + "…"


def _svg(figure):
    buffer = io.StringIO()
    # Without a date, so that the same scores give the same file.
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    # Removes IDs such as axes_1, which all figures have; clip paths have no underscore.
    return re.sub(r' id="[\w.]+_\d+"', "", svg)
