"""Under which conditions a file was recorded or mixed: its input SNR and type of noise.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import math
import re
from pathlib import Path

from speechbrain_cffma.errors import InputError, reason

_IN_NAME = re.compile(
    r"""(?:^|[_/])
    (?:(?!snr?_)(?P<noise>[a-z]+)_)?
    (?:snr?_?(?P<snr>-?\d+(?:\.\d+)?)(?:db)?|(?P<db>-?\d+(?:\.\d+)?)db)
    (?=$|[_/])""",
    re.IGNORECASE | re.VERBOSE,
)


def from_name(name):
    """Conditions as far as a file's name tells them.

    Between underscores: the SNR as `snr5`, `snr_5`, `sn5` or `5dB`, negative as
    `snr-5`; before it the noise, if that is a word of letters alone. The last such
    place in the name counts, folders included.

    Arguments
    ---------
    name : str
        Path without extension.

    Returns
    -------
    dict
        snr in dB or None; noise or "".

    Example
    -------
    >>> from_name("p232/p232_001_bus_10dB")
    {'snr': 10.0, 'noise': 'bus'}
    >>> from_name("clnsp1_traffic_248091_3_snr-5_tl-22_fileid_1")
    {'snr': -5.0, 'noise': ''}
    >>> from_name("p232_001")
    {'snr': None, 'noise': ''}
    """
    found = list(_IN_NAME.finditer(name))
    if not found:
        return {"snr": None, "noise": ""}
    match = found[-1]
    return {
        "snr": float(match["snr"] or match["db"]),
        "noise": (match["noise"] or "").lower(),
    }


def from_file(path, ids):
    """Conditions from a CSV with the columns ID and snr, noise or both, or from a log.

    The manifests that a prepare step writes are such files.

    Arguments
    ---------
    path : str or Path
        The CSV, whose cells of unknown conditions are empty, or a .txt for `read_log`.
    ids : list of str
        The files that are asked for; further rows are ignored.

    Returns
    -------
    dict
        For each ID, snr in dB or None, and noise or "".

    Raises
    ------
    InputError
        If it can't be read, lacks a column or a file, or has an SNR that is no number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "conditions.csv"
    >>> _ = path.write_text("ID,snr,noise\\na,2.5,bus\\nb,,cafe\\n")
    >>> from_file(path, ["a", "b"])
    {'a': {'snr': 2.5, 'noise': 'bus'}, 'b': {'snr': None, 'noise': 'cafe'}}
    """
    known = read_log(path) if Path(path).suffix == ".txt" else _read_csv(path)
    missing = [name for name in ids if name not in known]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(ids)} files have no row in the metadata {path}, "
            "whose IDs are paths in the folder without extension: " + ", ".join(missing)
        )
    return {name: known[name] for name in ids}


def read_log(path):
    """Conditions from lines such as `p232_001 bus 17.5`, as VoiceBank-DEMAND's logs have.

    Arguments
    ---------
    path : str or Path
        The log. Lines of another form, such as a heading, are passed over.

    Returns
    -------
    dict
        For each name, without .wav: snr in dB and noise.

    Raises
    ------
    InputError
        If it can't be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "log_testset.txt"
    >>> _ = path.write_text("p232_001 bus 17.5")
    >>> read_log(path)
    {'p232_001': {'snr': 17.5, 'noise': 'bus'}}
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"the metadata {path} can't be read ({reason(error)})"
        ) from error
    known = {}
    for line in text.splitlines():
        try:
            name, noise, snr = line.split()
            known[name.removesuffix(".wav")] = {"snr": float(snr), "noise": noise}
        except ValueError:  # a heading or an empty line
            continue
    return known


def _read_csv(path):
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the metadata {path} can't be read ({reason(error)})"
        ) from error
    if "ID" not in columns or not columns & {"snr", "noise"}:
        raise InputError(f"the metadata {path} needs the columns ID and snr or noise")
    return {
        row["ID"]: {
            "snr": _snr(row.get("snr"), row["ID"], path),
            "noise": row.get("noise") or "",
        }
        for row in rows
    }


def _snr(text, name, path):
    if not text:
        return None
    try:
        snr = float(text)
    except ValueError:
        snr = math.nan
    if not math.isfinite(snr):
        raise InputError(f"{path}: the snr of {name} is {text!r}, not a number of dB")
    return snr
