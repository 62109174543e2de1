"""Compare enhancement systems: match their files with clean references and score them.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain_cffma.audio import find_audio
from speechbrain_cffma.data import conditions
from speechbrain_cffma.data.pairs import match_files, utterance_ids
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation.scores import score_pairs


def pair_systems(
    clean: str | Path, systems: Mapping[str, str | Path], pair_by: str | None = None
) -> list[dict[str, Any]]:
    """Match the files of all systems, and find the clean reference of each.

    Files of systems match if their paths are equal, apart from the extension.

    Arguments
    ---------
    clean : str or Path
        Folder of clean speech.
    systems : dict
        The folder of each system's files, by the system's name.
    pair_by : str or None
        Regular expression for the part of the name that a file shares with its clean
        reference, see `pairs.match_files`. None: the path without extension.

    Returns
    -------
    list of dict
        ID, system, path and clean (path), one system after the other. Clean files that no
        system has are left out.

    Raises
    ------
    InputError
        If a file of a system is missing in another or has no clean reference. The message
        lists all such files.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("clean", "noisy"):
    ...     (folder / name).mkdir()
    ...     (folder / name / "a.wav").touch()
    >>> (pair,) = pair_systems(folder / "clean", {"noisy": folder / "noisy"})
    >>> pair["ID"], pair["system"], pair["clean"].relative_to(folder).as_posix()
    ('a', 'noisy', 'clean/a.wav')
    """
    clean_paths = find_audio(clean)
    found = []
    for folder in systems.values():
        paths = find_audio(folder)
        found.append(dict(zip(utterance_ids(paths, folder), paths, strict=True)))
    ids = sorted(set().union(*found))
    references = match_files(ids, clean_paths, clean, pair_by)
    missing = {
        folder: [name for name in ids if name not in paths]
        for folder, paths in zip(
            [clean, *systems.values()], [references, *found], strict=True
        )
    }
    n_missing = sum(map(len, missing.values()))
    if n_missing:
        raise InputError(
            f"{n_missing} files have no match with the same "
            f"{'path without extension' if pair_by is None else pair_by}; add them: "
            + "; ".join(
                f"{len(names)} of {len(ids)} missing in {folder}: {', '.join(names)}"
                for folder, names in missing.items()
                if names
            )
        )
    return [
        {"ID": name, "system": system, "path": paths[name], "clean": references[name]}
        for system, paths in zip(systems, found, strict=True)
        for name in ids
    ]


def evaluate(
    clean: str | Path,
    systems: Mapping[str, str | Path],
    folder: str | Path,
    settings: dict[str, Any],
    metadata: str | Path | None = None,
    n_jobs: int = -1,
    overwrite: bool = False,
    pair_by: str | None = None,
    engine: str = "local",
    address: str | None = None,
) -> list[dict[str, Any]]:
    """Score every file of every system.

    Arguments
    ---------
    clean : str or Path
        Folder of clean speech.
    systems : dict
        The folder of each system's files, by the system's name. The other systems are
        compared with the first one.
    folder : str or Path
        Folder that stores each row when it is finished. A later evaluation reuses a row
        unless one of its two files has changed or its process died.
    settings : dict
        Settings from `scoring_settings`.
    metadata : str or Path
        CSV with the columns ID, snr, noise, or a log, see `conditions.from_file`. By
        default SNR and noise are read from the file names.
    n_jobs : int
        Number of processes; -1 for one per core of the computer or the cluster.
    overwrite : bool
        Score all files again.
    pair_by : str or None
        See `pair_systems`.
    engine : str
        "local" for this computer, "ray" for a Ray cluster. The rows are the same.
    address : str or None
        Address of the cluster, see `cluster.connection.connected`.

    Returns
    -------
    list of dict
        One row per file and system: ID, system, path, clean (path), snr (None if unknown),
        noise ("" if unknown), each metric (None if there is no score) and failed (the
        reason, or "").

    Raises
    ------
    InputError
        If files don't match or have another sample rate, or if the folder has rows with
        other settings.

    Example
    -------
    >>> import soundfile
    >>> folder, clean = getfixture("tmp_path"), getfixture("speech").numpy()
    >>> for name, samples in (("clean", clean), ("noisy", clean + 0.1 * clean[::-1])):
    ...     (folder / name).mkdir()
    ...     soundfile.write(folder / name / "a_snr20.wav", samples, 16000)
    >>> systems = {"noisy": folder / "noisy"}
    >>> from speechbrain_cffma.evaluation.scores import scoring_settings
    >>> settings = scoring_settings(["si_sdr"])
    >>> (row,) = evaluate(folder / "clean", systems, folder / "report", settings, n_jobs=1)
    >>> row["system"], row["snr"], round(row["si_sdr"]), row["failed"]
    ('noisy', 20.0, 20, '')
    """
    pairs = pair_systems(clean, systems, pair_by)
    ids = list(dict.fromkeys(pair["ID"] for pair in pairs))
    if metadata:
        known = conditions.from_file(metadata, ids)
    else:
        known = {name: conditions.from_name(name) for name in ids}
    pairs = [{**pair, **known[pair["ID"]]} for pair in pairs]
    return score_pairs(pairs, folder, settings, n_jobs, overwrite, engine, address)
