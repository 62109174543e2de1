"""The spectrogram of a file of any length, reduced to a size that can be drawn.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np
import torch
from torch.nn.functional import avg_pool1d, pad

from speechbrain_cffma import media
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.lobes import LogSpectrogram

#: In longer files, each column is the mean of several frames.
MAX_COLUMNS = 1000


def log_spectrum(path, seconds):
    """Compute the log1p magnitude of a file, block by block.

    Arguments
    ---------
    path : str or Path
        An audio file or a video; its channels are averaged.
    seconds : float
        Its length in seconds, which some headers lack.

    Returns
    -------
    np.ndarray
        log1p magnitude [T, F]: at most `MAX_COLUMNS` columns, and bins every 40 Hz up to
        8 kHz or half the sample rate. The ratio of the enhanced and the noisy file's
        log1p magnitude approximates the network's mask.

    Raises
    ------
    InputError
        If it can't be read.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> log_spectrum(path, seconds=3.0).shape
    (300, 201)
    """
    with media.open_source(path) as source:
        rate = source.sample_rate
        # The network's frames of 25 ms every 10 ms, at the file's own rate.
        n_fft, hop = round(rate / 40), round(rate / 100)
        spectrogram = LogSpectrogram(n_fft, hop, n_fft)
        n_bins = min(n_fft // 2, round(n_fft * SAMPLE_RATE / 2 / rate)) + 1
        n_pooled = max(1, -(-round(seconds * rate) // (hop * MAX_COLUMNS)))
        n_together = n_pooled * max(1, MAX_COLUMNS // n_pooled)
        columns = []
        for chunk in _chunks(source.blocks, hop * n_together):
            n_frames = -(-len(chunk) // hop)
            chunk = pad(torch.from_numpy(chunk), (0, max(0, n_fft - len(chunk))))
            # Scaled to the magnitudes at 16 kHz, where a window has fewer samples.
            log_magnitude, _ = spectrogram(chunk[None] * (SAMPLE_RATE / rate))
            frames = log_magnitude[:, :n_frames, :n_bins].transpose(1, 2)
            columns.append(avg_pool1d(frames, n_pooled, ceil_mode=True)[0].T.numpy())
    return np.concatenate(columns)


def _chunks(blocks, n_samples):
    """Blocks [C, n] as mono chunks of `n_samples`; the last one may be shorter."""
    held = np.zeros(0, dtype="float32")
    for block in blocks:
        held = np.concatenate([held, block.mean(axis=0)])
        while len(held) >= n_samples:
            yield held[:n_samples]
            held = held[n_samples:]
    if len(held):
        yield held
