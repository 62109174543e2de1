"""Prepare VoiceBank-DEMAND (Valentini-Botinhao et al., 28 speakers).

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import shutil
import ssl
import time
import urllib.request
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from speechbrain_cffma.data import conditions
from speechbrain_cffma.data.pairs import copies_folder, prepare_pairs, write_splits
from speechbrain_cffma.data.prepared import find_sources, is_prepared, mark_prepared
from speechbrain_cffma.errors import InputError, one_line

logger = logging.getLogger(__name__)

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/2791/"
#: Folder of the noisy and of the clean files; each is published as an archive.
FOLDERS = {
    "train": ("noisy_trainset_28spk_wav", "clean_trainset_28spk_wav"),
    "test": ("noisy_testset_wav", "clean_testset_wav"),
}
#: Noise type and SNR of each utterance.
LOGS = {"train": "log_trainset_28spk.txt", "test": "log_testset.txt"}
#: Contents of each archive.
ARCHIVES = {f"{name}.zip": (name,) for names in FOLDERS.values() for name in names}
ARCHIVES["logfiles.zip"] = tuple(LOGS.values())

N_PAIRS = {"train": 11572, "test": 824}
#: Held out for validation, as in SpeechBrain's recipes.
VALID_SPEAKERS = ("p226", "p287")

#: Errors of reading a damaged archive.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
#: Errors of a bad connection, after which another try may succeed.
NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
#: Seconds before the next try of a download; doubled after each try without any byte.
WAIT = 1.0


def prepare_voicebank(
    data_folder,
    manifest_folder,
    download=False,
    valid_speakers=VALID_SPEAKERS,
    n_jobs=-1,
):
    """Write train.csv, valid.csv and test.csv; convert 48 kHz files to 16 kHz once.

    Arguments
    ---------
    data_folder : str or Path
        Folder with the four folders of the published archives, at 48 or 16 kHz, and the
        log files with SNR and noise type, if available. The 16 kHz copies are written to
        its subfolder 16k/, or to that of the manifest folder if it is read-only.
    manifest_folder : str or Path
        Folder for the manifests.
    download : bool
        Download what is missing.
    valid_speakers : sequence of str
        Speakers of the training set that are held out for validation.
    n_jobs : int
        Number of processes; -1: one per CPU core.

    Raises
    ------
    InputError
        If data is missing and download is False, or if files are faulty.
    """
    data_folder = Path(data_folder).expanduser().absolute()
    manifest_folder = Path(manifest_folder)
    if download:
        download_voicebank(data_folder)
    logs = {split: _find(data_folder, name) for split, name in LOGS.items()}
    arguments = {"data": data_folder, "valid_speakers": valid_speakers, "logs": logs}
    folders_of = _find_folders(data_folder)
    sources = find_sources(
        sum(folders_of.values(), []), others=[log for log in logs.values() if log]
    )
    if is_prepared(manifest_folder, arguments, sources.states):
        return

    copies = copies_folder(data_folder, manifest_folder)
    parts = {"train": [], "valid": [], "test": []}
    for split, folders in folders_of.items():
        pairs = prepare_pairs(
            folders, sources.files, [copies / f.name for f in folders], n_jobs
        )
        known = conditions.read_log(logs[split]) if logs[split] else {}
        _warn_if_incomplete(data_folder, split, pairs, known)
        for pair in pairs:
            name = pair.row["ID"]
            pair.row.update(known.get(name, {}), speaker=name.split("_")[0])
            held_out = split == "train" and pair.row["speaker"] in valid_speakers
            parts["valid" if held_out else split].append(pair)

    for part, pairs in parts.items():
        if not pairs:
            raise InputError(
                f"{data_folder} has no pairs for {part}: the speakers "
                f"{', '.join(valid_speakers)} of the training set are for validation"
            )
    write_splits(manifest_folder, parts)
    mark_prepared(manifest_folder, arguments, sources.states)


def download_voicebank(data_folder, url=URL):
    """Download and unpack missing archives; continue where an earlier download stopped.

    Archives that exist already, for example from a browser, are not downloaded again.
    Each archive is deleted after it has been unpacked.

    Arguments
    ---------
    data_folder : str or Path
        Folder for the data.
    url : str
        Address of the archives.

    Raises
    ------
    InputError
        If an archive can't be downloaded or unpacked, or is damaged.
    """
    data_folder = Path(data_folder).expanduser()
    for name, contents in ARCHIVES.items():
        if not all(_find(data_folder, content) for content in contents):
            fetch(url + name, data_folder / name)
            _unpack(data_folder / name, contents)


def fetch(url, path, tries=5):
    """Download a file with a progress bar; continue where an earlier try stopped.

    Arguments
    ---------
    url : str
        Address of the file.
    path : str or Path
        Where to save it; until it is complete its name ends in ".part".
    tries : int
        Number of tries in a row without any byte, after which it gives up.

    Raises
    ------
    InputError
        If it can't be downloaded, or its size is not that stated by the server.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "there.zip").write_bytes(b"archive")
    >>> fetch((folder / "there.zip").as_uri(), folder / "here.zip")
    >>> (folder / "here.zip").read_bytes()
    b'archive'
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    reached, failures = _size(part), 0
    while not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            total = _fetch_rest(url, part)
            if total in (None, _size(part)):
                part.replace(path)
                return
            reason, final = f"{_size(part)} of {total} bytes arrived", False
        except (OSError, HTTPException) as error:
            reason, final = one_line(error), _is_final(error)
        failures = 0 if _size(part) > reached else failures + 1
        reached = max(reached, _size(part))
        if final or failures == tries:
            raise InputError(
                f"{url} can't be downloaded ({reason}): run the command again to "
                f"continue, or download the file yourself to {path}"
            )
        logger.warning(f"{path.name}: {reason}; trying again")
        time.sleep(WAIT * 2**failures)


def _fetch_rest(url, part):
    """Download the missing part of a file; return the full size, None if unknown."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except HTTPError as error:
        if error.code == 416:  # the server has no further bytes
            if (error.headers["Content-Range"] or "").endswith(f"/{have}"):
                return have
            part.unlink(missing_ok=True)  # it belongs to another file
        raise
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        logger.info(f"downloading {part.stem}")  # a log has no bar
        bar = tqdm(
            desc=part.stem,
            initial=have,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None,  # shown in a terminal only
        )
        with open(part, "ab" if resumed else "wb") as file, bar:
            while block := response.read(1 << 20):
                file.write(block)
                bar.update(len(block))
    return total


def _is_final(error):
    """Whether another try can't help: there is no such file, or the disk refuses it."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in (408, 416, 429)
    return not isinstance(error, NETWORK)


def _unpack(archive, contents):
    """Move the named folders or files of an archive next to it, and delete it."""
    # Unpacked elsewhere first: a folder under its final name is complete.
    partial = archive.with_name(f".{archive.stem}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [name for name in file.namelist() if "__MACOSX" not in name]
            label = f"unpacking {archive.name}"
            for member in tqdm(members, desc=label, leave=False, disable=None):
                file.extract(member, partial)
        for name in contents:
            found = next(partial.rglob(name), None)
            if found is None:
                raise zipfile.BadZipFile(f"it has no {name}")
            found.replace(archive.with_name(name))
    except OSError as error:
        raise InputError(
            f"{archive} can't be unpacked ({one_line(error)}): solve this and run again"
        ) from error
    except DAMAGE as error:
        archive.unlink()
        raise InputError(
            f"{archive} was damaged ({error}) and has been deleted: run again to "
            "download it once more"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    archive.unlink()


def _find_folders(data_folder):
    """The noisy and the clean folder of the training and of the test set."""
    found = {name: _find(data_folder, name) for name in sum(FOLDERS.values(), ())}
    missing = [name for name in found if not found[name]]
    if missing:
        raise InputError(
            f"VoiceBank-DEMAND is not complete in {data_folder}: missing or empty are "
            f"{', '.join(missing)}. Pass the folder that has them by --data_folder=FOLDER, "
            f"or add --download to download them from {URL} (5.3 GB; takes 10 GB of disk)"
        )
    return {split: [found[name] for name in names] for split, names in FOLDERS.items()}


def _find(data_folder, name):
    """A published folder or log file, if it exists and is not empty.

    It may have a suffix such as _16k, and may be in a folder of the same name (as some
    programs unpack archives) or in any other folder.
    """
    candidates = [data_folder / name / name, data_folder / name]
    for pattern in (f"{name}*16k*", f"[!.]*/{name}"):
        candidates += sorted(data_folder.glob(pattern))
    for path in candidates:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path


def _warn_if_incomplete(data_folder, split, pairs, known):
    """Warn if the number of pairs is not the published one, or pairs are not in the log."""
    if len(pairs) != N_PAIRS[split]:
        logger.warning(
            f"the {split} set in {data_folder} has {len(pairs)} pairs; the published "
            f"one has {N_PAIRS[split]}"
        )
    unknown = sum(pair.row["ID"] not in known for pair in pairs)
    if unknown:
        logger.warning(
            f"the SNR of {unknown} of {len(pairs)} {split} pairs is unknown: {data_folder} "
            f"has no {LOGS[split]} (of logfiles.zip) that lists them"
        )


def _size(path):
    return path.stat().st_size if path.exists() else 0
