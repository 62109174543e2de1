"""The conditions under which a file was recorded or mixed: input SNR and type of noise.

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
    """Read conditions from a file's name.

    The SNR stands between underscores as `snr5`, `snr_5`, `sn5` or `5dB`, a negative one
    as `snr-5`. The word before it is the noise if it has only letters. If the path has
    several such places, the last one counts.

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
    """Read conditions from a CSV with the columns ID and snr, noise or both, or from a log.

    The manifests of a prepare step are such CSVs.

    Arguments
    ---------
    path : str or Path
        A CSV, with empty cells for unknown conditions, or a .txt for `read_log`.
    ids : list of str
        The files whose conditions are needed; other rows are ignored.

    Returns
    -------
    dict
        For each ID, snr in dB or None, and noise or "".

    Raises
    ------
    InputError
        If the file can't be read, lacks a column or an ID, or has an SNR that is not a
        number.

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
            f"{len(missing)} of {len(ids)} files have no row in the metadata {path}; its "
            "IDs must be paths in the folder without extension: " + ", ".join(missing)
        )
    return {name: known[name] for name in ids}


def read_log(path):
    """Read conditions from lines such as `p232_001 bus 17.5`, as in VoiceBank-DEMAND's logs.

    Arguments
    ---------
    path : str or Path
        The log. Lines of another form, such as a heading, are ignored.

    Returns
    -------
    dict
        For each name, without .wav: snr in dB and noise.

    Raises
    ------
    InputError
        If the log can't be read.

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
        raise InputError(
            f"{path}: the snr of {name} is {text!r}, but must be a number in dB"
        )
    return snr
