"""Manifests: lists of files in one form for all data sets.

A manifest is a CSV with one row per utterance and the columns of `COLUMNS`; cells that
don't apply are empty. Training pairs that are mixed on the fly have no `noisy_wav`. Lists
of noises and room impulse responses have `ID`, `duration` and `noise_wav` or `rir_wav`.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import logging

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.files import CSV, atomic_write

logger = logging.getLogger(__name__)

COLUMNS = (
    "ID",
    "duration",
    "noisy_wav",
    "clean_wav",
    "noise_wav",
    "rir_wav",
    "speaker",
    "snr",
    "noise",
)


def write_manifest(path, rows):
    """Write a manifest.

    Arguments
    ---------
    path : str or Path
        The CSV; its folder is made if needed.
    rows : list of dict
        Rows whose keys are in `COLUMNS`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> write_manifest(path, [{"ID": "a", "duration": 1.5, "clean_wav": "a.wav"}])
    >>> read_manifest(path)[0]["clean_wav"]
    'a.wav'
    """
    with atomic_write(path) as partial, open(partial, "w", **CSV) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_manifest(path):
    """Read a manifest.

    Arguments
    ---------
    path : str or Path
        The CSV.

    Returns
    -------
    list of dict
        The rows; `duration` in seconds and `snr` in dB are floats, an unknown `snr` is None.

    Raises
    ------
    InputError
        If the manifest is missing, or lacks a column or a number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> write_manifest(path, [{"ID": "a", "duration": 1.5, "snr": 5}])
    >>> [(row["duration"], row["snr"]) for row in read_manifest(path)]
    [(1.5, 5.0)]
    """
    try:
        with open(path, **CSV) as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"the manifest {path} can't be read ({error.strerror}): run the experiment's "
            "prepare step"
        ) from error
    try:
        for row in rows:
            row["duration"] = float(row["duration"])
            row["snr"] = float(row["snr"]) if row["snr"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a manifest with the columns {', '.join(COLUMNS)}"
        ) from error
    return rows
