"""Figures of training runs.

Authors
 * The speechbrain-cffma developers 2026
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import printable
from speechbrain_cffma.pictures import MASK_COLORS, RANGE, draw, levels


def plot_enhancement(path, noisy, enhanced, clean, mask, title="", frame_shift=0.01):
    """Draw the spectrograms of one utterance and the network's mask.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    noisy : np.ndarray
        log1p magnitude [T, F] of the noisy signal.
    enhanced : np.ndarray
        log1p magnitude [T, F] of the enhanced signal.
    clean : np.ndarray
        log1p magnitude [T, F] of the clean signal.
    mask : np.ndarray
        The mask [T, F], between 0 and 1.
    title : str
        Heading.
    frame_shift : float
        Seconds between two frames.

    Example
    -------
    >>> log_magnitude = np.random.default_rng(0).random((50, 201))
    >>> path = getfixture("tmp_path") / "a.png"
    >>> plot_enhancement(path, *[log_magnitude] * 3, mask=log_magnitude, title="a")
    >>> path.exists()
    True
    """
    shown = levels([np.expm1(x) for x in (noisy, enhanced, clean)])
    extent = (0, (len(noisy) - 1) * frame_shift, 0, SAMPLE_RATE / 2000)

    figure = Figure(figsize=(10, 6), layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    names = ("Noisy", "Enhanced", "Clean")
    for axis, name, level in zip(axes.flat, names, shown, strict=False):
        image = draw(axis, level, extent)
        axis.set_title(name)
    bar = figure.colorbar(
        image, ax=axes[0, :], label="Level (dB); 0: the loudest point"
    )
    bar.set_ticks(np.linspace(0, 1, 5), labels=np.linspace(-RANGE, 0, 5).astype(int))
    image = draw(axes[1, 1], mask, extent, MASK_COLORS)
    axes[1, 1].set_title("Mask of the log-magnitude")
    figure.colorbar(image, ax=axes[1, :], label="Mask")
    for axis in axes[:, 0]:
        axis.set_ylabel("Frequency (kHz)")
    for axis in axes[1, :]:
        axis.set_xlabel("Time (s)")
    save_figure(figure, path)


def plot_layer_weights(path, weights, first_layer):
    """Draw the weight of each SSL layer in the embedding; without layers, draw nothing.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    weights : np.ndarray
        Weights [layers] that sum to 1.
    first_layer : int
        0 if the first weight is that of the transformer's input, else 1.

    Example
    -------
    >>> path = getfixture("tmp_path") / "weights.png"
    >>> plot_layer_weights(path, np.full(13, 1 / 13), first_layer=0)
    >>> path.exists()
    True
    """
    if not len(weights):
        return
    layers = np.arange(first_layer, first_layer + len(weights))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.bar(layers, weights, color="#3b6ea5")
    axis.axhline(1 / len(weights), color="0.4", linestyle="--", label="at the start")
    axis.set_xticks(layers)
    axis.set_ylim(0, 1.25 * max(weights))  # room for the legend
    axis.set_xlabel("SSL layer (0: input of the transformer)")
    axis.set_ylabel("Weight")
    axis.set_title("Learnt weights of the SSL layers")
    axis.legend(frameon=False)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    save_figure(figure, path)


def save_figure(figure, path):
    """Write a figure; the same figure always gives the same bytes.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        The PNG or SVG to write; its folder is made if needed.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if Path(path).suffix == ".svg" else {}
    figure.savefig(path, dpi=120, metadata=metadata)
