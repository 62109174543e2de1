"""Prepare VoiceBank-DEMAND (Valentini-Botinhao et al., 28 speakers).

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from speechbrain_cffma import manifest
from speechbrain_cffma.audio import SAMPLE_RATE, find_audio, prepare_files
from speechbrain_cffma.errors import InputError

logger = logging.getLogger(__name__)

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/2791/"
#: The folders of the published archives; a suffix such as _16k is accepted.
FOLDERS = {
    "train": ("noisy_trainset_28spk_wav", "clean_trainset_28spk_wav"),
    "test": ("noisy_testset_wav", "clean_testset_wav"),
}
LOGS = ("log_trainset_28spk.txt", "log_testset.txt")
N_PAIRS = {"train": 11572, "test": 824}
#: Held out for validation, as in SpeechBrain's recipes.
VALID_SPEAKERS = ("p226", "p287")


def prepare_voicebank(
    data_folder,
    manifest_folder,
    download=False,
    valid_speakers=VALID_SPEAKERS,
    n_jobs=-1,
):
    """Write train.csv, valid.csv and test.csv; 48 kHz files are converted to 16 kHz once.

    Arguments
    ---------
    data_folder : str or Path
        With the four folders of the published archives, at 48 or 16 kHz, and the log
        files for SNR and noise type, if at hand. The 16 kHz copies go to its 16k/.
    manifest_folder : str or Path
        Where the manifests go.
    download : bool
        Fetch what is missing.
    valid_speakers : sequence of str
        Speakers of the training set that are held out for validation.
    n_jobs : int
        Processes; -1 for one a core.

    Raises
    ------
    InputError
        If data is missing and not to be downloaded, or files are faulty.
    """
    arguments = dict(locals())
    if manifest.is_prepared(manifest_folder, arguments):
        return
    data_folder = Path(data_folder)
    if download:
        download_voicebank(data_folder)
    conditions = _read_logs(data_folder)
    rows = {"train": [], "valid": [], "test": []}
    for split, names in FOLDERS.items():
        pairs = _pair_rows(
            data_folder, names, split, conditions, valid_speakers, n_jobs
        )
        if len(pairs) != N_PAIRS[split]:
            logger.warning(
                "the %s set in %s has %d pairs; the published one has %d",
                split,
                data_folder,
                len(pairs),
                N_PAIRS[split],
            )
        for part, row in pairs:
            rows[part].append(row)
    for split, split_rows in rows.items():
        if not split_rows:
            raise InputError(
                f"the {split} set of {data_folder} is empty"
                + (f": no speaker {' or '.join(valid_speakers)}" * (split == "valid"))
            )
        manifest.write_manifest(Path(manifest_folder) / f"{split}.csv", split_rows)
    manifest.mark_prepared(manifest_folder, arguments)


def download_voicebank(data_folder, url=URL):
    """Fetch and unpack the archives whose folders are missing; resumes where it stopped.

    Arguments
    ---------
    data_folder : str or Path
        Where they go.
    url : str
        Where they come from.

    Raises
    ------
    InputError
        If an archive can't be fetched or is damaged.
    """
    data_folder = Path(data_folder)
    wanted = [name for names in FOLDERS.values() for name in names]
    archives = [f"{name}.zip" for name in wanted if not _folder(data_folder, name)]
    if not all(_find_log(data_folder, name) for name in LOGS):
        archives.append("logfiles.zip")
    for name in archives:
        archive = data_folder / name
        fetch(url + name, archive)
        try:
            with zipfile.ZipFile(archive) as file:
                # Unpacked elsewhere first, so that a folder that is there is whole.
                partial = data_folder / f".{archive.stem}"
                file.extractall(partial)
        except zipfile.BadZipFile as error:
            archive.unlink()
            raise InputError(
                f"{archive} was damaged ({error}) and is deleted: run again to fetch it anew"
            ) from error
        for entry in partial.iterdir():
            entry.replace(data_folder / entry.name)
        partial.rmdir()
        archive.unlink()


def fetch(url, path, tries=5):
    """Download a file with a progress bar, going on where an earlier try stopped.

    Arguments
    ---------
    url : str
        What to fetch.
    path : str or Path
        Where to; the part that is there grows under the name path + ".part".
    tries : int
        How often to go on after a lost connection.

    Raises
    ------
    InputError
        If it can't be fetched, or has another size than the server says.
    """
    path = Path(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(tries):
        try:
            total = _fetch_rest(url, part)
            if part.stat().st_size == total:
                part.rename(path)
                return
            reason = f"{part.stat().st_size} of {total} bytes arrived"
        except (OSError, urllib.error.URLError) as error:
            reason = error
        if isinstance(reason, urllib.error.HTTPError) and reason.code < 500:
            break
        if attempt + 1 < tries:
            time.sleep(2**attempt)
    raise InputError(
        f"{url} can't be fetched ({reason}). What has arrived is kept: run again to go on, "
        f"or download it by other means to {path}"
    )


def _fetch_rest(url, part):
    """Fetch what is missing of a file; return the size of the whole."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: there is nothing behind what we have
            raise
        return int(error.headers["Content-Range"].split("/")[1])
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        total = have + int(response.headers["Content-Length"])
        progress = tqdm(
            desc=part.stem, initial=have, total=total, unit="B", unit_scale=True
        )
        with open(part, "ab" if resumed else "wb") as file, progress:
            while block := response.read(1 << 20):
                file.write(block)
                progress.update(len(block))
    return total


def _pair_rows(data_folder, names, split, conditions, valid_speakers, n_jobs):
    """(part, manifest row) of each usable pair of the training or test set."""
    noisy_folder, clean_folder = (_folder(data_folder, name) for name in names)
    if noisy_folder is None or clean_folder is None:
        missing = [name for name in names if _folder(data_folder, name) is None]
        raise InputError(
            f"VoiceBank-DEMAND is not complete in {data_folder}: no folder "
            f"{' and no '.join(missing)}. It needs {', '.join(sum(FOLDERS.values(), ()))} "
            "(5.3 GB of archives; about 18 GB while unpacking and converting). "
            f"Either name a folder that has them by --data_folder=FOLDER (from {URL}), or "
            "add --download to fetch them there"
        )
    pairs = manifest.pair_files(
        find_audio(noisy_folder), noisy_folder, find_audio(clean_folder), clean_folder
    )
    ids = [pair[0] for pair in pairs]
    files = [
        prepare_files(
            [pair[side] for pair in pairs],
            [data_folder / "16k" / folder.name / f"{name}.wav" for name in ids],
            n_jobs,
            label=folder.name,
        )
        for side, folder in ((1, noisy_folder), (2, clean_folder))
    ]
    manifest.check_twins(ids, *files)
    usable = manifest.usable(list(zip(*files, strict=True)), split)
    rows = []
    for name, noisy, clean, good in zip(ids, *files, usable, strict=True):
        if good:
            speaker = name.split("_")[0]
            noise, snr = conditions.get(name, ("", ""))
            row = {
                "ID": name,
                "duration": clean.n_samples / SAMPLE_RATE,
                "noisy_wav": noisy.path,
                "clean_wav": clean.path,
                "speaker": speaker,
                "snr": snr,
                "noise": noise,
            }
            held_out = split == "train" and speaker in valid_speakers
            rows.append(("valid" if held_out else split, row))
    return rows


def _folder(data_folder, name):
    """The folder of an archive, with or without a suffix such as _16k."""
    found = sorted(p for p in data_folder.glob(f"{name}*") if p.is_dir())
    return found[0] if found else None


def _find_log(data_folder, name):
    return next(iter(sorted(data_folder.rglob(name))), None)


def _read_logs(data_folder):
    """Noise type and SNR of each utterance: lines such as `p232_001 bus 17.5`."""
    conditions = {}
    for name in LOGS:
        path = _find_log(data_folder, name)
        if path is None:
            logger.warning(
                "%s has no %s: its scores will not be split by SNR", data_folder, name
            )
            continue
        for line in path.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 3:
                conditions[fields[0].removesuffix(".wav")] = (
                    fields[1],
                    float(fields[2]),
                )
    return conditions
