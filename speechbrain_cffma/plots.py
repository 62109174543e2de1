"""Figures of training runs.

Authors
 * The speechbrain-cffma developers 2026
"""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import printable


def plot_enhancement(path, noisy, enhanced, clean, mask, title="", frame_shift=0.01):
    """Draw the spectrograms of one utterance and the mask that the network gave.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    noisy : np.ndarray
        log1p magnitude [T, F] of the noisy signal.
    enhanced : np.ndarray
        Of the enhanced signal.
    clean : np.ndarray
        Of the clean signal.
    mask : np.ndarray
        The mask [T, F], between 0 and 1.
    title : str
        Heading.
    frame_shift : float
        Seconds between two frames.

    Example
    -------
    >>> spectrum = np.random.default_rng(0).random((50, 201))
    >>> path = getfixture("tmp_path") / "a.png"
    >>> plot_enhancement(path, *[spectrum] * 3, mask=spectrum, title="a")
    >>> path.exists()
    True
    """
    decibels = [
        20 * np.log10(np.expm1(spectrum) + 1e-5)
        for spectrum in (noisy, enhanced, clean)
    ]
    top = max(spectrum.max() for spectrum in decibels)
    extent = (0, (len(noisy) - 1) * frame_shift, 0, SAMPLE_RATE / 2000)

    figure = Figure(figsize=(10, 6), layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    names = ("Noisy", "Enhanced", "Clean")
    for axis, name, spectrum in zip(
        (axes[0, 0], axes[0, 1], axes[1, 0]), names, decibels, strict=True
    ):
        image = axis.imshow(
            spectrum.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=top - 80,
            vmax=top,
        )
        axis.set_title(name)
    figure.colorbar(image, ax=axes[0, :], label="Magnitude (dB)")
    image = axes[1, 1].imshow(
        mask.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="viridis",
        vmin=0,
        vmax=1,
    )
    axes[1, 1].set_title("Mask of the log-magnitude")
    figure.colorbar(image, ax=axes[1, :], label="Mask")
    for axis in axes[:, 0]:
        axis.set_ylabel("Frequency (kHz)")
    for axis in axes[1, :]:
        axis.set_xlabel("Time (s)")
    _save(figure, path)


def plot_layer_weights(path, weights, first_layer):
    """Draw how much each SSL layer contributes to the embedding; nothing if there are none.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    weights : np.ndarray
        Weights [layers] of sum 1.
    first_layer : int
        0 if the first is the transformer's input, else 1.

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
    _save(figure, path)


def plot_differences(path, base, names, panels):
    """Draw the differences of variants to another one, with their intervals.

    Arguments
    ---------
    path : str or Path
        The PNG or SVG to write.
    base : str
        What the variants are compared to.
    names : list of str
        Of the variants [N].
    panels : dict
        For each heading low, mean and high [N] (NaN: not drawn), and a list of each
        variant's values with single seeds [N].

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.svg"
    >>> panel = [0.1], [0.2], [0.3], [[0.15, 0.25]]
    >>> plot_differences(path, "published", ["without SCTA"], {"PESQ": panel})
    >>> path.exists()
    True
    """
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    # Text stays text in an SVG, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cffma", "font.size": 9}):
        figure = Figure(
            figsize=(1.6 + 2.1 * n_columns, 0.3 + n_rows * (0.6 + 0.2 * len(names))),
            layout="constrained",
        )
        axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
        places = np.arange(len(names))
        for axis, (title, (low, mean, high, seeds)) in zip(
            axes, panels.items(), strict=False
        ):
            axis.axvline(0, color="0.6", linewidth=1)
            axis.hlines(places, low, high, color="#2f81d6", linewidth=1.6)
            axis.plot(mean, places, "o", color="#2f81d6", markersize=4.5)
            ticks = [
                (value, place)
                for place, values in zip(places, seeds, strict=True)
                for value in values
            ]
            axis.plot(*zip(*ticks, strict=True), "|", color="0.35", markersize=6)
            axis.set_title(title, fontsize=9)
            axis.grid(alpha=0.2)
            axis.tick_params(length=0)
            for side in ("top", "right", "left"):
                axis.spines[side].set_visible(False)
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        figure.supxlabel(
            f"Difference to {base}: mean (dot), 95 % interval over the test files (bar), "
            "each seed (tick)",
            fontsize=9,
        )
        _save(figure, path)


def _save(figure, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if Path(path).suffix == ".svg" else {}
    figure.savefig(path, dpi=120, metadata=metadata)
