"""Draw spectrograms and masks for training plots, reports and the page.

Authors
 * The speechbrain-cffma developers 2026
"""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

#: Dynamic range of a spectrogram in dB, below the loudest point of a file's signals.
RANGE = 80
#: matplotlib's colour maps for levels and for masks.
COLORS = "magma"
MASK_COLORS = "viridis"


def levels(magnitudes):
    """Convert magnitudes of several signals to levels on a common scale.

    Arguments
    ---------
    magnitudes : list of np.ndarray
        Magnitudes [T, F] of several signals.

    Returns
    -------
    list of np.ndarray
        Levels [T, F] of each signal: 1 at the loudest point of all signals, 0 at `RANGE`
        dB below it, and negative below that.

    Example
    -------
    >>> loud, quiet = levels([np.ones((1, 1)), np.full((1, 1), 0.01)])
    >>> round(loud.item(), 3), round(quiet.item(), 3)
    (1.0, 0.5)
    """
    decibels = [20 * np.log10(magnitude + 1e-10) for magnitude in magnitudes]
    top = max(-120.0, *(level.max() for level in decibels))  # keeps silence dark
    return [(level - top) / RANGE + 1 for level in decibels]


def image(values, colors=COLORS, size=(560, 224)):
    """Draw values over time and frequency as an image for a page.

    Arguments
    ---------
    values : np.ndarray
        Levels or a mask [T, F]; values are clipped to 0 to 1.
    colors : str
        matplotlib's name of a colour map.
    size : tuple of int
        Width and height in pixels.

    Returns
    -------
    str
        The image as a data URI: time runs to the right, frequency to the top.

    Example
    -------
    >>> image(np.eye(20))[:23]
    'data:image/webp;base64,'
    """
    pixels = colormaps[colors](np.clip(values.T, 0, 1)[::-1], bytes=True)[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return data_uri(buffer, "image/webp")


def gradient(colors=COLORS):
    """Return the colours of values from 0 to 1 as a CSS background.

    Arguments
    ---------
    colors : str
        matplotlib's name of a colour map.

    Returns
    -------
    str
        A linear gradient from left to right.

    Example
    -------
    >>> gradient()[:33]
    'linear-gradient(to right, #000003'
    """
    samples = colormaps[colors](np.linspace(0, 1, 9), bytes=True)[:, :3]
    stops = ", ".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in samples.tolist())
    return f"linear-gradient(to right, {stops})"


def data_uri(buffer, kind):
    """Encode a file's content as a data URI, to embed it in a page.

    Arguments
    ---------
    buffer : io.BytesIO
        The content.
    kind : str
        Its media type, such as "image/webp".

    Returns
    -------
    str
        The data URI.

    Example
    -------
    >>> data_uri(io.BytesIO(b"abc"), "text/plain")
    'data:text/plain;base64,YWJj'
    """
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def draw(axis, values, extent, colors=COLORS):
    """Draw levels or a mask in a figure.

    Arguments
    ---------
    axis : matplotlib.axes.Axes
        Where to draw.
    values : np.ndarray
        Levels or a mask [T, F]; the colours cover 0 to 1.
    extent : tuple of float
        Left, right, bottom and top, in the units of the axes.
    colors : str
        matplotlib's name of a colour map.

    Returns
    -------
    matplotlib.image.AxesImage
        The image, which a colour bar needs.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> draw(Figure().subplots(), np.eye(20), (0, 1, 0, 8)).get_clim()
    (0.0, 1.0)
    """
    return axis.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap=colors,
        vmin=0,
        vmax=1,
    )
