"""Prepare training pairs that are mixed on the fly, and fixed pairs for evaluation.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
import shutil
from pathlib import Path

import numpy as np

from speechbrain_cffma import audio, manifest
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.files import fitting
from speechbrain_cffma.mixing import DynamicMixer, add_noise, reverberate
from speechbrain_cffma.noises import TEST_KINDS
from speechbrain_cffma.rooms import TEST_LENGTHS, TRAIN_LENGTHS, write_rooms

#: Real ambience that ships with the project, for testing only.
AMBIENCE_FOLDER = Path(__file__).parent / "noise"

TEST_SNRS = (0.0, 5.0, 10.0, 15.0)


def prepare_dynamic_mix(
    speech_folder,
    manifest_folder,
    noise_folder=None,
    rir_folder=None,
    test_rir_folder=None,
    simulated_rooms=0,
    rt60=(0.2, 0.6),
    reverberant_share=0.5,
    with_noise=True,
    test_speakers=(),
    test_noise_folder=AMBIENCE_FOLDER,
    test_noises=(),
    held_out_share=0.06,
    n_valid=32,
    n_test=88,
    seed=0,
    n_jobs=-1,
):
    """Write train.csv, noise.csv and rir.csv for `DynamicMixer`, and fixed valid and test pairs.

    Validation pairs are mixed from held-out files with noises of the training kinds;
    test pairs from held-out speakers with kinds and recordings that training never uses.

    Arguments
    ---------
    speech_folder : str or Path
        Clean speech in any format and rate that libsndfile reads; its subfolders are
        the speakers.
    manifest_folder : str or Path
        Where the manifests, the 16 kHz copies and the fixed pairs go.
    noise_folder : str or Path or None
        Recorded noise for training.
    rir_folder : str or Path or None
        Room impulse responses, for training and validation.
    test_rir_folder : str or Path or None
        Those for testing; None for the same.
    simulated_rooms : int
        Rooms to simulate instead of a rir_folder, and a quarter as many of other sizes
        instead of a test_rir_folder.
    rt60 : (float, float)
        Bounds of the simulated rooms' reverberation time in seconds.
    reverberant_share : float
        Share of the fixed pairs that are put into a room, if there are any.
    with_noise : bool
        False for fixed pairs without noise.
    test_speakers : sequence of str, str or None
        Speakers for testing only. None or empty: a share of all speakers' files.
    test_noise_folder : str or Path or None
        Recorded noise for testing only, beside the synthetic test kinds.
    test_noises : sequence of str
        Names of recordings in noise_folder that are for testing only, and then are all
        that testing uses.
    held_out_share : float
        Share of the remaining files for validation (and for testing without test_speakers).
    n_valid : int
        Number of validation pairs.
    n_test : int
        Number of test pairs.
    seed : int
        Seed of the choice and of the fixed pairs.
    n_jobs : int
        Processes; -1 for one a core.

    Raises
    ------
    InputError
        If folders are missing or empty, files are faulty, a speaker is unknown, or
        pairs would have neither noise nor a room.
    """
    arguments = dict(locals())
    has_rooms = reverberant_share == 1 and (rir_folder or simulated_rooms)
    if not (with_noise or has_rooms):
        raise InputError(
            "with_noise=False leaves pairs that are equal on both sides: put all of them "
            "into rooms by reverberant_share=1 and rir_folder=DIR or simulated_rooms=80"
        )
    folder = Path(manifest_folder)
    given = (
        speech_folder,
        noise_folder,
        test_noise_folder,
        rir_folder,
        test_rir_folder,
    )
    sources = manifest.find_sources(
        [source for source in given if source is not None], leave_out=[folder]
    )
    if manifest.is_prepared(folder, arguments, sources.states):
        return

    def rows_of(key, source, part):
        return _rows(key, source, sources.files, folder / part, n_jobs)

    speech = rows_of("clean_wav", speech_folder, "speech")
    train, valid, test = _split(speech, test_speakers, held_out_share, seed)
    noises = rows_of("noise_wav", noise_folder, "noise")
    noises, test_recordings = _noises_apart(noises, test_noises)
    if simulated_rooms and rir_folder is None:
        rir_folder = _simulate(
            folder / "rooms", simulated_rooms, TRAIN_LENGTHS, rt60, seed, n_jobs
        )
        if test_rir_folder is None:
            n_rooms = math.ceil(simulated_rooms / 4)
            test_rir_folder = _simulate(
                folder / "test_rooms", n_rooms, TEST_LENGTHS, rt60, seed + 1, n_jobs
            )
    rirs = rows_of("rir_wav", rir_folder, "rir")
    test_rirs = rirs
    if test_rir_folder is not None:
        test_rirs = rows_of("rir_wav", test_rir_folder, "test_rir")
    for name, rows in (("train", train), ("noise", noises), ("rir", rirs)):
        manifest.write_manifest(folder / f"{name}.csv", rows)

    mixer = DynamicMixer(
        folder / "train.csv",
        folder / "noise.csv",
        folder / "rir.csv",
        synthetic_share=0.5,
    )
    ambience = rows_of("noise_wav", test_noise_folder, "test_noise")

    def validation_noise(index, n_samples, rng):
        return "training kinds", mixer.noise(n_samples, rng)

    def test_noise(index, n_samples, rng):
        kinds = test_recordings or [*TEST_KINDS, *ambience]
        kind = kinds[index // len(TEST_SNRS) % len(kinds)]
        if callable(kind):
            return kind.__name__, kind(n_samples, rng)
        return kind["noise"], mixer.crop(kind, "noise_wav", n_samples, rng)

    for name, rows, count, noise, rooms in (
        ("valid", valid, n_valid, validation_noise, rirs),
        ("test", test, n_test, test_noise, test_rirs),
    ):
        pairs = _fixed_pairs(
            folder / name,
            rows,
            count,
            noise if with_noise else None,
            rooms,
            reverberant_share,
            seed,
        )
        manifest.write_manifest(folder / f"{name}.csv", pairs)
    manifest.mark_prepared(folder, arguments, sources.states)


def prepare_mini(wavlm_folder, seed=0, data_seed=0, **arguments):
    """Prepare the mini experiment: its data, and a small WavLM to be trained with the rest.

    Arguments
    ---------
    wavlm_folder : str or Path
        Where the small WavLM goes.
    seed : int
        Seed of its weights.
    data_seed : int
        Seed of the data.
    **arguments : dict
        For `prepare_dynamic_mix`.
    """
    prepare_dynamic_mix(seed=data_seed, **arguments)
    make_small_wavlm(wavlm_folder, seed=seed)


def said_of_bundled(fact, recordings):
    """A statement on the bundled recordings, where nothing else is trained on.

    Arguments
    ---------
    fact : str
        The statement.
    recordings : list of (str or Path or None)
        Folders that training reads.

    Returns
    -------
    str or None
        The statement; None if there are recordings from elsewhere.
    """
    here = Path(__file__).parent.resolve()
    given = [Path(folder).resolve() for folder in recordings if folder is not None]
    return fact if all(folder.is_relative_to(here) for folder in given) else None


def make_small_wavlm(folder, seed=0, dim=192, n_layers=4, conv_dim=128):
    """Write an untrained WavLM in HuggingFace's form; kept if it is there.

    Arguments
    ---------
    folder : str or Path
        Where it goes.
    seed : int
        Seed of its weights.
    dim : int
        Channels of the transformer.
    n_layers : int
        Its layers.
    conv_dim : int
        Channels of the feature encoder.
    """
    import torch
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    folder = Path(folder)
    if (folder / "preprocessor_config.json").exists():  # the last one written
        return
    config = WavLMConfig(
        hidden_size=dim,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        intermediate_size=4 * dim,
        conv_dim=[conv_dim] * 7,
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=8,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def _rows(key, folder, files, copies, n_jobs):
    """Manifest rows of the usable files of a folder, if there is one."""
    if folder is None:
        return []
    # Rooms that the step has simulated are in no list of what it was given.
    paths = files.get(folder) or audio.find_audio(folder)
    names = manifest.names_of(paths, folder)
    targets = [copies / f"{name}.wav" for name in names]
    files = audio.prepare_files(paths, targets, n_jobs, label=Path(folder).name)
    good = manifest.usable(files, "train")
    return [
        {
            "ID": name,
            "duration": file.n_samples / SAMPLE_RATE,
            key: file.path,
            "speaker": name.split("/")[0] if "/" in name else "",
            "noise": name if key == "noise_wav" else "",
        }
        for name, file, usable in zip(names, files, good, strict=True)
        if usable
    ]


def _simulate(folder, *arguments):
    """Write rooms into a folder of their own; return it."""
    shutil.rmtree(folder, ignore_errors=True)  # of a preparation with more of them
    write_rooms(folder, *arguments)
    return folder


def _split(rows, test_speakers, held_out_share, seed):
    """Train, valid and test rows; the test speakers are in the last alone."""
    if isinstance(test_speakers, str):
        test_speakers = [test_speakers]
    test_speakers = {str(name) for name in test_speakers or ()}
    speakers = {row["speaker"] for row in rows} - {""}
    unknown = test_speakers - speakers
    if unknown:
        raise InputError(
            f"the speech folder has no subfolder {', '.join(sorted(unknown))} for "
            f"test_speakers: give an empty list or some of {sorted(speakers)}"
        )
    test = [row for row in rows if row["speaker"] in test_speakers]
    rest = [row for row in rows if row["speaker"] not in test_speakers]
    order = np.random.default_rng(seed).permutation(len(rest))
    n_held_out = round(held_out_share * len(rest))
    held_out = [rest[i] for i in order[: n_held_out * (1 if test_speakers else 2)]]
    valid, more = held_out[:n_held_out], held_out[n_held_out:]
    train = [rest[i] for i in sorted(order[len(held_out) :])]
    splits = {"train": train, "valid": valid, "test": test + more}
    for name, split in splits.items():
        if not split:
            raise InputError(
                f"{len(rows)} speech files are too few: none is left for {name}; "
                "give more files or a larger held_out_share"
            )
    return splits.values()


def _noises_apart(rows, test_noises):
    """Rows of recorded noises for training, and those for testing."""
    test_noises = {str(name) for name in test_noises or ()}
    unknown = test_noises - {row["ID"] for row in rows}
    if unknown:
        raise InputError(
            f"the noise folder has no recording {', '.join(sorted(unknown))} for test_noises"
        )
    training = [row for row in rows if row["ID"] not in test_noises]
    return training, [row for row in rows if row["ID"] in test_noises]


def _fixed_pairs(folder, rows, count, noise, rirs, reverberant_share, seed):
    """Mix `count` pairs of the longer half of the files, and write both sides.

    `noise(index, n_samples, rng)` gives (kind, samples); None for pairs without noise.
    """
    longest = sorted(rows, key=lambda row: -row["duration"])[
        : max(count, len(rows) // 2)
    ]
    order = np.random.default_rng(seed).permutation(len(longest))
    pairs = []
    for index in range(count):
        row = longest[order[index % len(longest)]]
        rng = np.random.default_rng((seed, index))
        clean = audio.read(row["clean_wav"])
        noisy, kind, snr = clean, "", ""
        if rirs and rng.random() < reverberant_share:
            rir = rirs[rng.integers(len(rirs))]
            noisy = reverberate(clean, audio.read(rir["rir_wav"]))
        if noise:
            kind, samples = noise(index, len(clean), rng)
            snr = TEST_SNRS[index % len(TEST_SNRS)]
            noisy = add_noise(noisy, samples, snr)
        file_name = fitting(f"{index:03d}_{row['ID'].replace('/', '-')}.wav")
        paths = {
            "noisy_wav": folder / "noisy" / file_name,
            "clean_wav": folder / "clean" / file_name,
        }
        audio.write(paths["noisy_wav"], noisy)
        audio.write(paths["clean_wav"], clean)
        pairs.append(
            {
                "ID": file_name.removesuffix(".wav"),
                "duration": row["duration"],
                **paths,
                "speaker": row["speaker"],
                "snr": snr,
                "noise": kind,
            }
        )
    return pairs
