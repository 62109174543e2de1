"""Score systems, each a folder of files, against the clean speech of another folder.

Finished rows are kept in `JOURNAL`, so that an interrupted evaluation goes on, and one
with a further system scores only that.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from speechbrain_cffma import __version__, media
from speechbrain_cffma.audio import SAMPLE_RATE, mono, resample
from speechbrain_cffma.errors import CFFMAError, InputError, InstallError, printable
from speechbrain_cffma.evaluation.journal import (
    JOURNAL,
    append,
    key_of,
    open_journal,
    read_journal,
)
from speechbrain_cffma.metric_table import DEFAULT, SCALES, TABLE
from speechbrain_cffma.metrics import available_metrics, score_each


def scoring_settings(
    metrics=DEFAULT, scale="int16", sample_rate=SAMPLE_RATE, resample=False
):
    """What scores depend on beside the files; only scores of equal settings compare.

    Arguments
    ---------
    metrics : list of str
        Names in `metrics.METRICS`.
    scale : str
        Full scale at which the parts of the composite measures are taken, "int16" or
        "unit"; see `metrics.composite`.
    sample_rate : int
        At which files are scored, in Hz.
    resample : bool
        Whether files of other sample rates are converted; else they are an error.

    Returns
    -------
    dict
        The arguments, and the versions of this package and of those that score.

    Raises
    ------
    InputError
        If there is no such metric or scale.
    InstallError
        If a metric's package is not installed.

    Example
    -------
    >>> scoring_settings(["si_sdr"])["scale"]
    'int16'
    """
    unknown = [name for name in metrics if name not in TABLE]
    if unknown or not metrics:
        raise InputError(
            f"there is no metric {', '.join(unknown) or 'to score'}: choose from "
            + ", ".join(TABLE)
        )
    if scale not in SCALES:
        raise InputError(f"the scale is {' or '.join(SCALES)}, not {scale}")
    available = available_metrics(metrics)
    missing = [name for name in metrics if name not in available]
    if missing:
        extras = sorted({TABLE[name].extra for name in missing})
        raise InstallError(
            f"the metrics {', '.join(missing)} need packages that are not installed: pip "
            f"install 'speechbrain-cffma[{','.join(extras)}]', or choose other metrics"
        )
    return {
        "metrics": list(dict.fromkeys(metrics)),
        "scale": scale,
        "sample_rate": sample_rate,
        "resample": resample,
        "versions": {
            "speechbrain-cffma": __version__,
            **{
                p: version(p)
                for p in sorted({TABLE[m].package for m in metrics} - {None})
            },
        },
    }


def look_at(paths):
    """What the headers of files tell.

    Arguments
    ---------
    paths : iterable of Path
        The files.

    Returns
    -------
    dict
        The sample rate in Hz and the length in seconds by the path. Unreadable files are
        left out: they fail when they are scored.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 8000)
    >>> look_at([path])[path]
    (8000, 0.1)
    """
    headers = {}
    for path in dict.fromkeys(paths):
        try:
            with media.open_source(path) as source:
                headers[path] = source.sample_rate, source.seconds
        except CFFMAError:
            continue
    return headers


def check_sample_rates(headers, sample_rate):
    """Check that files have the sample rate at which they are to be scored.

    Arguments
    ---------
    headers : dict
        What `look_at` returns.
    sample_rate : int
        In Hz.

    Raises
    ------
    InputError
        If any differs, with the first one's rate and their count.

    Example
    -------
    >>> check_sample_rates({"a.wav": (8000, 0.1)}, 8000)
    """
    differing = {p: rate for p, (rate, _) in headers.items() if rate != sample_rate}
    for path, rate in differing.items():
        raise InputError(
            f"{len(differing)} of {len(headers)} files are not at {sample_rate} Hz, such "
            f"as {path} at {rate} Hz: convert them by --resample, or score at another "
            "--sample-rate"
        )


def score_pairs(pairs, folder, settings, n_jobs=-1, overwrite=False):
    """Score pairs of files.

    Arguments
    ---------
    pairs : list of dict
        ID, system, path, clean (path), snr and noise. The first one's system is what
        the others are compared to.
    folder : str or Path
        Where the rows are kept as they finish; see `evaluate`.
    settings : dict
        What `scoring_settings` returns.
    n_jobs : int
        Processes; -1 for one a core.
    overwrite : bool
        Score all files anew, whatever rows the folder has.

    Returns
    -------
    list of dict
        The pairs, with each metric (None if it has no score) and failed: the reason,
        or "".

    Raises
    ------
    InputError
        If files are at another sample rate, or if the folder has rows of other
        settings.

    Example
    -------
    >>> import soundfile
    >>> folder, clean = getfixture("tmp_path"), getfixture("speech").numpy()
    >>> paths = {"clean": folder / "clean.wav", "path": folder / "noisy.wav"}
    >>> soundfile.write(paths["clean"], clean, 16000)
    >>> soundfile.write(paths["path"], clean + 0.1 * clean[::-1], 16000)
    >>> pair = {"ID": "a", "system": "noisy", "snr": 20.0, "noise": "", **paths}
    >>> (row,) = score_pairs([pair], folder / "report", scoring_settings(["si_sdr"]), n_jobs=1)
    >>> row["system"], round(row["si_sdr"]), row["failed"]
    ('noisy', 20, '')
    """
    headers = look_at(pair[key] for key in ("clean", "path") for pair in pairs)
    if not settings["resample"]:
        check_sample_rates(headers, settings["sample_rate"])
    seconds = [headers.get(pair["clean"], (0, 0.0))[1] for pair in pairs]
    journal = Path(folder) / JOURNAL
    done = {} if overwrite else read_journal(journal, settings)
    scores = _score_pairs(pairs, seconds, journal, done, settings, n_jobs)
    return [{**pair, **score} for pair, score in zip(pairs, scores, strict=True)]


def failures(rows):
    """What failed, and how often each reason occurs.

    Arguments
    ---------
    rows : list of dict
        What `evaluate` returns.

    Returns
    -------
    list of str
        A line a system and reason, with the count and the first file.

    Example
    -------
    >>> failures([{"ID": "a", "system": "new", "failed": "PESQ: the signal is silent"}])
    ['new: 1 file failed (a): PESQ: the signal is silent']
    """
    failed = [row for row in rows if row["failed"]]
    counts = Counter((row["system"], row["failed"]) for row in failed)
    first = {}
    for row in failed:
        first.setdefault((row["system"], row["failed"]), row["ID"])
    return [
        printable(
            f"{system}: {count} {'file' if count == 1 else 'files'} failed "
            f"({first[system, why]}{', ...' if count > 1 else ''}): {why}"
        )
        for (system, why), count in counts.items()
    ]


def _score_pairs(pairs, seconds, journal, done, settings, n_jobs):
    keys = [key_of(pair) for pair in pairs]
    waiting = [i for i, key in enumerate(keys) if key not in done]
    sample_rate = settings["sample_rate"]
    sources = [(pairs[i]["clean"], pairs[i]["path"], sample_rate) for i in waiting]
    scores = score_each(
        _read_pair,
        sources,
        settings["metrics"],
        [seconds[i] for i in waiting],
        n_jobs,
        sample_rate,
        settings["scale"],
    )
    with (
        open_journal(journal, settings, done) as file,
        tqdm(
            total=len(pairs),
            initial=len(pairs) - len(waiting),
            desc="scoring",
            dynamic_ncols=True,
        ) as progress,
        closing(scores),
    ):
        for index, row, crashed in scores:
            key = keys[waiting[index]]
            done[key] = row
            if not crashed:  # Else the next run tries again.
                append(file, key, row)
            progress.update()
    return [done[key] for key in keys]


def _read_pair(clean, path, sample_rate):
    return read_at(clean, sample_rate), read_at(path, sample_rate)


def read_at(path, sample_rate):
    """Read a mono file at a sample rate.

    Arguments
    ---------
    path : str or Path
        The file.
    sample_rate : int
        In Hz.

    Returns
    -------
    np.ndarray
        Samples [S], float32.

    Raises
    ------
    InputError
        If it can't be read or has several channels.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 8000)
    >>> read_at(path, 16000).shape
    (1600,)
    """
    with media.open_source(path) as source:
        if source.channels > 1:
            raise InputError(f"{path} has {source.channels} channels")
        rate, samples = source.sample_rate, mono(source)
    return resample(samples, rate, sample_rate)
