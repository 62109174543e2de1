"""Enhance one recording and draw its spectrograms and mask.

Authors
 * The speechbrain-cffma developers 2026
"""

import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_cffma import media
from speechbrain_cffma.app.spectra import log_spectrum
from speechbrain_cffma.audio import MIN_SAMPLES, SAMPLE_RATE, SILENCE
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.inference.limiter import PeakWarning
from speechbrain_cffma.pictures import MASK_COLORS, RANGE, gradient, image, levels

#: The slider's right end in dB; it stands for no limit.
NO_BOUND = 40


class Result(NamedTuple):
    """What the page shows for a recording.

    Arguments
    ---------
    enhanced : Path
        The enhanced file.
    figure : str
        Spectrograms and mask, as HTML.
    summary : str
        One line with length, format, speed and limited peaks.
    """

    enhanced: Path
    figure: str
    summary: str


def enhance(enhancer, noisy, folder, max_minutes=10, progress=None, **options):
    """Enhance a recording and draw its spectrograms and mask.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    noisy : Path
        The recording.
    folder : Path
        Folder for the enhanced file, NAME_enhanced.wav.
    max_minutes : float
        Maximum length in minutes; longer recordings are refused.
    progress : callable or None
        Called as `progress(share)` with the finished share, from 0 to 1.
    **options
        The options of `InferenceMixin.enhance_file`.

    Returns
    -------
    Result
        What the page shows.

    Raises
    ------
    InputError
        If the recording can't be read, is too long, too short or silent.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> folder = getfixture("tmp_path")
    >>> audio.write(folder / "talk.wav", getfixture("speech").numpy())
    >>> result = enhance(getfixture("tiny_enhancer"), folder / "talk.wav", folder)
    >>> result.enhanced.name, result.summary[:19]
    ('talk_enhanced.wav', '3.0 s, 16 kHz, mono')
    """
    seconds, sample_rate, channels = _check(noisy, max_minutes)
    enhanced = folder / f"{noisy.stem}_enhanced.wav"
    n_done = 0

    def advance(more):
        nonlocal n_done
        n_done += more
        if progress:
            progress(n_done / seconds)

    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PeakWarning)  # reported in the summary
        excess = enhancer.enhance_file(noisy, enhanced, progress=advance, **options)
    elapsed = time.perf_counter() - begin
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    device = next(enhancer.parameters()).device.type.upper()
    summary = (
        f"{seconds:.1f} s, {sample_rate / 1000:g} kHz, {layout}: enhanced in "
        f"{elapsed:.1f} s, {seconds / elapsed:.1f} × real time ({device})."
    )
    if excess:
        summary += f" Peaks up to {excess:.1f} dB beyond full scale were turned down."
    return Result(enhanced, draw(noisy, enhanced, seconds), summary)


def _check(path, max_minutes):
    """Check a recording; return its length in seconds, sample rate and channels."""
    n_samples, is_silent = 0, True
    with media.open_source(path) as source:
        rate = source.sample_rate
        for block in source.blocks:
            n_samples += block.shape[1]
            is_silent = is_silent and bool((np.abs(block) < SILENCE).all())
            # Some headers have no length.
            if n_samples > max_minutes * 60 * rate:
                raise InputError(
                    f"the recording is longer than {max_minutes:g} minutes, the maximum for "
                    "this page: cut it"
                )
    if n_samples < MIN_SAMPLES / SAMPLE_RATE * rate:
        raise InputError("the recording is shorter than 25 ms")
    if is_silent:
        raise InputError("the recording is silent")
    return n_samples / rate, rate, source.channels


_PANEL = """<figure><figcaption>{title}</figcaption>
<div class="frequency"><span>{khz:g} kHz</span><span>0</span></div>
<img src="{image}" alt="{alt}"></figure>"""


def draw(noisy, enhanced, seconds):
    """Draw the noisy and the enhanced spectrogram of a recording, and the mask.

    Arguments
    ---------
    noisy : Path
        The recording.
    enhanced : Path
        The enhanced recording.
    seconds : float
        The length of both in seconds.

    Returns
    -------
    str
        HTML with three images over the same time axis. The spectrograms have the same
        level scale.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> draw(path, path, 3.0).count("<img")
    3
    """
    before, after = (log_spectrum(path, seconds) for path in (noisy, enhanced))
    with media.open_source(enhanced) as source:
        khz = min(source.sample_rate, SAMPLE_RATE) / 2000
    size = (1120, 224)
    shown = levels([np.expm1(spectrum) for spectrum in (before, after)])
    images = [image(level, size=size) for level in shown]
    # The ratio can exceed 1 in near-silence, by rounding to 16 bits; `image` clips it.
    images.append(image(after / before, MASK_COLORS, size))
    panels = (
        ("Noisy", "Spectrogram of the noisy recording"),
        ("Enhanced", "Spectrogram of the enhanced recording"),
        ("Mask", "What the network kept, over time and frequency"),
    )
    parts = [
        _PANEL.format(title=title, alt=alt, khz=khz, image=picture)
        for (title, alt), picture in zip(panels, images, strict=True)
    ]
    ticks = "".join(f"<span>{share * seconds:.1f}</span>" for share in (0, 0.25, 0.5))
    ticks += f"<span>{0.75 * seconds:.1f}</span><span>{seconds:.1f} s</span>"
    legend = (
        f'<span>−{RANGE} dB <i style="background: {gradient()}"></i> loudest</span>'
        f'<span>removed <i style="background: {gradient(MASK_COLORS)}"></i> kept</span>'
    )
    return (
        f'<div class="spectra">{"".join(parts)}<div class="seconds">{ticks}</div>'
        f'<p class="legend">{legend}</p></div>'
    )
