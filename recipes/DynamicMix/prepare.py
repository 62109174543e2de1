"""Prepare the mixing of training pairs, and fixed pairs for validation and testing.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from speechbrain_cffma import audio
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.data import manifest
from speechbrain_cffma.data.datasets import group_by_speaker, in_turns
from speechbrain_cffma.data.files import prepare_files
from speechbrain_cffma.data.keys import check_number, check_range, check_shares
from speechbrain_cffma.data.mixing import DynamicMixer, add_noise, reverberate
from speechbrain_cffma.data.noises import TEST_KINDS
from speechbrain_cffma.data.pairs import drop_faulty, utterance_ids
from speechbrain_cffma.data.prepared import find_sources, is_prepared, mark_prepared
from speechbrain_cffma.data.rooms import TEST_LENGTHS, TRAIN_LENGTHS, write_rooms
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.files import fitting

#: Recorded noise that comes with the project, for testing only.
AMBIENCE_FOLDER = Path(__file__).parent / "noise"

#: The parts that training must not read, and the parts that training reads.
KEPT_FROM_TRAINING = {
    "valid_speech": "speech",
    "test_noise": "noise",
    "valid_rir": "rir",
    "test_rir": "rir",
}

#: Limits of rt60 in seconds: a simulated room of 1.5 s takes up to 7 GB of memory.
RT60 = (0.05, 1.5)

#: Signal-to-noise ratios of the fixed pairs in dB.
SNRS = (0.0, 5.0, 10.0, 15.0)


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
    simulated_share=0.0,
    valid_speech_folder=None,
    valid_rir_folder=None,
    valid_noises=(),
    left_out_noises=(),
    by_speaker=False,
):
    """Write the manifests for `DynamicMixer`, and fixed validation and test pairs.

    Validation pairs consist of held-out files, or of other speech if it is given, and of
    the kinds of noise of training, or of other recordings if they are given. Test pairs
    consist of held-out speakers and of noise that training never uses.

    Arguments
    ---------
    speech_folder : str, Path or list of (str or Path)
        Clean speech in any format and sample rate that libsndfile reads; its subfolders
        are the speakers. Here and below, several folders are passed as a list.
    manifest_folder : str or Path
        Folder for the manifests, the 16 kHz copies and the fixed pairs.
    noise_folder : str, Path, list of (str or Path) or None
        Recorded noise for training.
    rir_folder : str, Path, list of (str or Path) or None
        Room impulse responses, for training and validation.
    test_rir_folder : str, Path, list of (str or Path) or None
        Room impulse responses for testing; None: those of training, or those of other
        simulated rooms if rooms are simulated.
    simulated_rooms : int
        Number of rooms to simulate instead of a rir_folder, or in addition to it (see
        simulated_share). A quarter as many, of other sizes, replace a test_rir_folder.
    rt60 : (float, float)
        Range of the reverberation time of simulated rooms in seconds.
    reverberant_share : float
        Share of the fixed pairs that are put into a room, if there are rooms.
    with_noise : bool
        False: the fixed pairs have no noise.
    test_speakers : sequence of str, str or None
        Speakers for testing only. None or empty: a share of the files of all speakers.
    test_noise_folder : str, Path, list of (str or Path) or None
        Recorded noise for testing only, in addition to the synthetic noise for testing.
    test_noises : sequence of str
        Names of recordings in noise_folder for testing only; testing then uses no others.
    held_out_share : float
        Share of the remaining files for validation, unless there is a
        valid_speech_folder, and for testing, unless there are test_speakers.
    n_valid : int
        Number of validation pairs.
    n_test : int
        Number of test pairs.
    seed : int
        Seed of the split and of the fixed pairs.
    n_jobs : int
        Number of processes; -1: one per CPU core.
    simulated_share : float
        Share of simulated rooms among the rooms of training if there is a rir_folder;
        with 0, no rooms are simulated in that case.
    valid_speech_folder : str, Path, list of (str or Path) or None
        Speech for validation only; None: held-out files.
    valid_rir_folder : str, Path, list of (str or Path) or None
        Room impulse responses for validation only; None: those of training.
    valid_noises : sequence of str
        Names of recordings in noise_folder for validation only; validation then uses no
        others.
    left_out_noises : sequence of str
        Names of recordings in noise_folder that are not used.
    by_speaker : bool
        Whether the speakers of the fixed pairs take turns.

    Raises
    ------
    InputError
        If a number is impossible, folders are missing or empty, files are faulty, two files
        have the same name, a speaker or a recording is unknown, a file is for training and
        for validation or testing, or pairs would have neither noise nor a room.
    """
    arguments = dict(locals())
    check_number("simulated_rooms", simulated_rooms, low=0, whole=True)
    check_range("rt60", rt60, *RT60)
    check_shares(
        reverberant_share=reverberant_share,
        simulated_share=simulated_share,
        held_out_share=held_out_share,
    )
    for key, count in (("n_valid", n_valid), ("n_test", n_test)):
        check_number(key, count, low=1, whole=True)
    check_number("data_seed", seed, low=0, whole=True)
    has_rooms = reverberant_share == 1 and (rir_folder or simulated_rooms)
    if not (with_noise or has_rooms):
        raise InputError(
            "with with_noise=False some pairs would be equal on both sides: put all of them "
            "into rooms by reverberant_share=1 and rir_folder=DIR or simulated_rooms=80"
        )
    folder = Path(manifest_folder)
    parts = {
        "speech": speech_folder,
        "noise": noise_folder,
        "test_noise": test_noise_folder,
        "rir": rir_folder,
        "test_rir": test_rir_folder,
        "valid_speech": valid_speech_folder,
        "valid_rir": valid_rir_folder,
    }
    kept = [f for part in KEPT_FROM_TRAINING for f in _listed(parts[part])]
    sources = find_sources(
        [source for given in parts.values() for source in _listed(given)],
        leave_out=[folder, *kept],
    )
    found = {part: _by_name(given, sources.files) for part, given in parts.items()}
    _refuse_shared(found)
    if is_prepared(folder, arguments, sources.states):
        return
    if simulated_rooms and (simulated_share or not found["rir"]):
        simulate = partial(_simulate, rt60=rt60, n_jobs=n_jobs)
        rooms = simulate(folder / "rooms", simulated_rooms, TRAIN_LENGTHS, seed=seed)
        found["simulated_rir" if found["rir"] else "rir"] = rooms
        if not found["test_rir"]:
            n_rooms = math.ceil(simulated_rooms / 4)
            found["test_rir"] = simulate(
                folder / "test_rooms", n_rooms, TEST_LENGTHS, seed=seed + 1
            )

    def rows(part, key):
        return _rows(key, found.get(part, {}), folder / part, n_jobs)

    train, valid, test = _split(
        rows("speech", "clean_wav"),
        rows("valid_speech", "clean_wav"),
        test_speakers,
        held_out_share,
        seed,
    )
    noises, valid_recordings, test_recordings = _noises_apart(
        rows("noise", "noise_wav"),
        valid_noises=valid_noises,
        test_noises=test_noises,
        left_out_noises=left_out_noises,
    )
    rirs, simulated = rows("rir", "rir_wav"), rows("simulated_rir", "rir_wav")
    valid_rirs = rows("valid_rir", "rir_wav") or [*rirs, *simulated]
    test_rirs = rows("test_rir", "rir_wav") or rirs
    for name, split in (
        ("train", train),
        ("noise", noises),
        ("rir", rirs),
        ("simulated_rir", simulated),
    ):
        manifest.write_manifest(folder / f"{name}.csv", split)

    mixer = DynamicMixer(
        folder / "train.csv",
        folder / "noise.csv",
        folder / "rir.csv",
        synthetic_share=0.5,
    )

    def training_kinds(index, n_samples, rng):
        return "training kinds", mixer.noise(n_samples, rng)

    ambience = rows("test_noise", "noise_wav")
    valid_noise = _in_turn(valid_recordings) if valid_recordings else training_kinds
    test_noise = _in_turn(test_recordings or [*TEST_KINDS, *ambience])
    for name, split, count, noise, rooms in (
        ("valid", valid, n_valid, valid_noise, valid_rirs),
        ("test", test, n_test, test_noise, test_rirs),
    ):
        pairs = _fixed_pairs(
            folder / name,
            _choose(split, count, by_speaker, seed),
            noise if with_noise else None,
            rooms,
            reverberant_share,
            seed,
        )
        manifest.write_manifest(folder / f"{name}.csv", pairs)
    mark_prepared(folder, arguments, sources.states)


def prepare_mini(wavlm_folder, seed=0, data_seed=0, **arguments):
    """Prepare the data of the mini experiment and a small WavLM.

    Experiments of version 0.1.0 name it; others list both steps, see hparams/mini.yaml.

    Arguments
    ---------
    wavlm_folder : str or Path
        Folder for the small WavLM.
    seed : int
        Seed of its weights.
    data_seed : int
        Seed of the data.
    **arguments : dict
        Further arguments of `prepare_dynamic_mix`.
    """
    prepare_dynamic_mix(seed=data_seed, **arguments)
    make_small_wavlm(wavlm_folder, seed=seed)


def if_only_bundled(fact, recordings):
    """State a fact about the bundled recordings, unless others are used as well.

    Arguments
    ---------
    fact : str
        The statement.
    recordings : list of (str, Path, list of (str or Path) or None)
        Folders that training reads.

    Returns
    -------
    str or None
        The statement; None if one of the folders is not bundled.
    """
    here = Path(__file__).parent.resolve()
    given = [Path(path).resolve() for item in recordings for path in _listed(item)]
    return fact if all(folder.is_relative_to(here) for folder in given) else None


#: The name in experiments of version 0.1.0.
said_of_bundled = if_only_bundled


def make_small_wavlm(folder, seed=0, dim=192, n_layers=4, conv_dim=128):
    """Write a small WavLM with random weights in Hugging Face's format, unless it exists.

    Arguments
    ---------
    folder : str or Path
        Its folder.
    seed : int
        Seed of its weights.
    dim : int
        Channels of the transformer.
    n_layers : int
        Layers of the transformer.
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


def _listed(given):
    """One folder or name, several or none, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _by_name(folders, files):
    """The files of folders that are used together, by their names from `utterance_ids`."""
    found = {}
    for folder in _listed(folders):
        paths = files[folder]
        for name, path in zip(utterance_ids(paths, folder), paths, strict=True):
            if name in found:
                raise InputError(
                    f"{found[name]} and {path} have the same name in two of the folders "
                    "that are used together: rename one, or its folder"
                )
            found[name] = path
    return found


def _refuse_shared(found):
    """Refuse files of training that are also given for validation or testing."""
    for part, training in KEPT_FROM_TRAINING.items():
        used = {path.resolve() for path in found[training].values()}
        shared = [path for path in found[part].values() if path.resolve() in used]
        if shared:
            raise InputError(
                f"{shared[0]} is in {part}_folder and in {training}_folder: training must "
                f"not read the files of {part}_folder; give folders without common files"
            )


def _rows(key, found, copies, n_jobs):
    """Manifest rows of the files from `_by_name`, without the faulty ones."""
    if not found:
        return []
    targets = [copies / f"{name}.wav" for name in found]
    files = prepare_files(list(found.values()), targets, n_jobs, copies.name)
    good = drop_faulty(files, "train")
    return [
        {
            "ID": name,
            "duration": file.n_samples / SAMPLE_RATE,
            key: file.path,
            "speaker": name.split("/")[0] if "/" in name else "",
            "noise": name if key == "noise_wav" else "",
        }
        for name, file, usable in zip(found, files, good, strict=True)
        if usable
    ]


def _simulate(folder, n_rooms, lengths, **arguments):
    """Simulate rooms into a folder; return its files by name."""
    shutil.rmtree(folder, ignore_errors=True)  # which may hold more rooms from before
    write_rooms(folder, n_rooms, lengths, **arguments)
    return _by_name(folder, {folder: audio.find_audio(folder)})


def _split(rows, valid, test_speakers, held_out_share, seed):
    """Rows for training, validation and testing; test speakers are in the last only.

    Files are held out for validation, unless it has rows already, and for testing, unless
    there are test speakers.
    """
    test_speakers = {str(name) for name in _listed(test_speakers)}
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
    n_valid = 0 if valid else n_held_out
    n_test = 0 if test_speakers else n_held_out
    held_out = [rest[i] for i in order[: n_valid + n_test]]
    train = [rest[i] for i in sorted(order[len(held_out) :])]
    splits = {
        "train": train,
        "valid": valid or held_out[:n_valid],
        "test": test + held_out[n_valid:],
    }
    for name, split in splits.items():
        if not split:
            size = "smaller" if name == "train" else "larger"
            raise InputError(
                f"{len(rows)} speech files are too few: none is left for {name}; "
                f"add files or set a {size} held_out_share"
            )
    return splits.values()


def _noises_apart(rows, **kept):
    """Rows of recorded noises for training, for validation and for testing."""
    kept = {key: {str(name) for name in _listed(given)} for key, given in kept.items()}
    known, seen = {row["ID"] for row in rows}, set()
    unknown = {key: sorted(names - known) for key, names in kept.items()}
    unknown = {key: names for key, names in unknown.items() if names}
    if unknown:
        raise InputError(
            "the noise folder has no recording "
            + "; no ".join(
                f"{', '.join(names)} ({key})" for key, names in unknown.items()
            )
            + ": give names of its files without extension, or an empty list for each key"
        )
    for key, names in kept.items():
        if names & seen:
            raise InputError(
                f"{key}: the recording {', '.join(sorted(names & seen))} has another use: "
                f"it may be in only one of {', '.join(kept)}"
            )
        seen |= names
    return (
        [row for row in rows if row["ID"] not in seen],
        [row for row in rows if row["ID"] in kept["valid_noises"]],
        [row for row in rows if row["ID"] in kept["test_noises"]],
    )


def _in_turn(kinds):
    """A function that gives the fixed pairs each kind of noise at each SNR in turn."""

    def noise(index, n_samples, rng):
        kind = kinds[index // len(SNRS) % len(kinds)]
        if callable(kind):
            return kind.__name__, kind(n_samples, rng)
        return kind["noise"], DynamicMixer.crop(kind, "noise_wav", n_samples, rng)

    return noise


def _choose(rows, count, by_speaker, seed):
    """The rows of `count` fixed pairs, in random order.

    If there are more files, they are the longer half, by_speaker that of each speaker.
    """
    longest = sorted(rows, key=lambda row: -row["duration"])
    groups = group_by_speaker(longest) if by_speaker else [range(len(longest))]
    if count < len(longest):
        n_each = math.ceil(count / len(groups))
        groups = [group[: max(n_each, len(group) // 2)] for group in groups]
    if by_speaker:
        return [longest[in_turns(groups, index, (seed,))] for index in range(count)]
    order = np.random.default_rng(seed).permutation(len(groups[0]))
    return [longest[order[index % len(order)]] for index in range(count)]


def _fixed_pairs(folder, rows, noise, rirs, reverberant_share, seed):
    """Mix a pair for each row, and write both files.

    `noise(index, n_samples, rng)` returns (kind, samples); None: pairs without noise.
    """
    pairs = []
    for index, row in enumerate(rows):
        rng = np.random.default_rng((seed, index))
        clean = audio.read(row["clean_wav"])
        noisy, kind, snr = clean, "", ""
        if rirs and rng.random() < reverberant_share:
            rir = rirs[rng.integers(len(rirs))]
            noisy = reverberate(clean, audio.read(rir["rir_wav"]))
        if noise:
            kind, samples = noise(index, len(clean), rng)
            snr = SNRS[index % len(SNRS)]
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
