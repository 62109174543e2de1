"""Data sets, and the order of training items.

A training item depends only on (seed, epoch, position). It does not depend on the number
of workers or processes, or on interruptions of a run.

Authors
 * The speechbrain-cffma developers 2026
"""

import signal
from functools import lru_cache

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data import DataLoader, Dataset, Sampler

from speechbrain_cffma import audio
from speechbrain_cffma.data.keys import check_number, check_range
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.errors import InputError


def group_by_speaker(rows):
    """Group rows by speaker.

    Arguments
    ---------
    rows : list of dict
        Rows of a manifest.

    Returns
    -------
    list of list of int
        The indices of each speaker's rows. Rows without a speaker are one group.

    Example
    -------
    >>> group_by_speaker([{"speaker": name} for name in ("anna", "ben", "anna")])
    [[0, 2], [1]]
    """
    groups = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["speaker"], []).append(index)
    return list(groups.values())


def in_turns(groups, position, key):
    """The item at a position of an endless sequence in which groups take turns.

    Each round goes through all groups once, in a random order. Each group goes through
    its items again and again, each time in another random order.

    Arguments
    ---------
    groups : sequence of (sequence of int)
        The items of each group.
    position : int
        The position, from 0.
    key : tuple of int
        Seeds of the order.

    Returns
    -------
    int
        The item.

    Example
    -------
    >>> order = [in_turns([[0, 1, 2, 3], [4, 5]], i, key=(0,)) for i in range(8)]
    >>> sorted(order)
    [0, 1, 2, 3, 4, 4, 5, 5]
    """
    n_round, turn = divmod(position, len(groups))
    group = groups[_permutation(len(groups), (*key, n_round))[turn]]
    n_pass, place = divmod(n_round, len(group))
    return int(group[_permutation(len(group), (*key, n_pass))[place]])


@lru_cache(maxsize=32)
def _permutation(n_items, key):
    return np.random.default_rng(key).permutation(n_items)


class EpochBatchSampler(Sampler):
    """Batches of a shuffled epoch for one of several processes.

    The order depends only on (seed, epoch).

    Arguments
    ---------
    n_items : int
        Number of items in the data set.
    batch_size : int
        Items per batch and process.
    n_batches : int or None
        Batches per epoch; None for as many full batches as there are items for. With more
        batches, an epoch goes through the items again in another order.
    seed : int
        Seed of the order.
    rank : int
        Index of this process.
    world_size : int
        Number of processes.
    groups : list of (list of int) or None
        Groups of items that take turns, see `in_turns`; None for one group.

    Example
    -------
    >>> sampler = EpochBatchSampler(n_items=5, batch_size=2, seed=1)
    >>> sampler.set_epoch(1)
    >>> batches = list(sampler)
    >>> len(batches), batches[0][0][:2]  # (epoch, position, index)
    (2, (1, 0))
    >>> sampler.set_epoch(1, first_batch=1)
    >>> list(sampler) == batches[1:]
    True
    """

    def __init__(
        self,
        n_items,
        batch_size,
        n_batches=None,
        seed=0,
        rank=0,
        world_size=1,
        groups=None,
    ):
        self.groups = groups or [range(n_items)]
        self.batch_size = batch_size
        self.n_batches = n_batches or max(1, n_items // (batch_size * world_size))
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.set_epoch(1)

    def set_epoch(self, epoch, first_batch=0):
        """Choose the epoch for the next iteration.

        Arguments
        ---------
        epoch : int
            The epoch.
        first_batch : int
            Number of batches to skip, which were used before an interruption.
        """
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        key = (self.seed, self.epoch)
        for batch in range(self.first_batch, self.n_batches):
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [
                (self.epoch, position, in_turns(self.groups, position, key))
                for position in range(first, first + self.batch_size)
            ]


class RecordedPairs:
    """Crops of recorded pairs: `pairs(row, n_samples, rng) → (noisy, clean)`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"duration": 3.0, "noisy_wav": path, "clean_wav": path}
    >>> noisy, clean = RecordedPairs()(row, 20480, np.random.default_rng(0))
    >>> noisy.shape, clean.shape
    ((20480,), (20480,))
    """

    def __call__(self, row, n_samples, rng):
        """Read the same random crop of noisy and clean; a short file is repeated.

        Arguments
        ---------
        row : dict
            Row of a manifest with noisy_wav and clean_wav.
        n_samples : int
            Length of the crop.
        rng : np.random.Generator
            Source of randomness.

        Returns
        -------
        noisy : np.ndarray
            [n_samples]
        clean : np.ndarray
            [n_samples]
        """
        start = random_start(row["duration"], n_samples, rng)
        return tuple(
            read_crop(row[key], start, n_samples) for key in ("noisy_wav", "clean_wav")
        )


class TrainingCrops(Dataset):
    """Training crops of equal length; noisy and clean have the same random gain.

    Arguments
    ---------
    manifest : str or Path
        The training manifest.
    pairs : callable
        `pairs(row, n_samples, rng) → (noisy, clean)`: `RecordedPairs` or `DynamicMixer`.
        An optional method `describe()` describes the pairs for the model card.
    crop_samples : int
        Length of a crop in samples.
    gain : (float, float)
        Range of the gain (uniform).
    seed : int
        Seed of everything random.
    by_speaker : bool
        Whether speakers take turns, so that training uses each speaker equally often.

    Raises
    ------
    InputError
        If a crop is shorter than 25 ms, or the range of the gain is impossible.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"ID": "a", "duration": 3.0, "noisy_wav": path, "clean_wav": path}
    >>> write_manifest(path.with_suffix(".csv"), [row])
    >>> crops = TrainingCrops(path.with_suffix(".csv"), RecordedPairs())
    >>> crops[1, 0, 0]["noisy"].shape
    torch.Size([20480])
    """

    def __init__(
        self,
        manifest,
        pairs,
        crop_samples=20480,
        gain=(1.0, 2.5),
        seed=0,
        by_speaker=False,
    ):
        check_number("crop_samples", crop_samples, low=audio.MIN_SAMPLES, whole=True)
        check_range("gain", gain, low=0)
        self.manifest = manifest
        self.rows = read_manifest(manifest)
        self.pairs = pairs
        self.crop_samples = crop_samples
        self.gain = gain
        self.seed = seed
        self.groups = group_by_speaker(self.rows) if by_speaker else None

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        """Make one item.

        Arguments
        ---------
        key : (int, int, int)
            Epoch, position and index, from `EpochBatchSampler`.

        Returns
        -------
        dict
            id : str; noisy and clean : torch.Tensor [crop_samples]
        """
        epoch, position, index = key
        rng = np.random.default_rng((self.seed, epoch, position))
        row = self.rows[index]
        noisy, clean = self.pairs(row, self.crop_samples, rng)
        gain = np.float32(rng.uniform(*self.gain))
        return {
            "id": row["ID"],
            "noisy": torch.from_numpy(gain * noisy),
            "clean": torch.from_numpy(gain * clean),
        }


class EvaluationPairs(Dataset):
    """Whole utterances for validation and test.

    Arguments
    ---------
    manifest : str or Path
        A manifest with noisy_wav and clean_wav.

    Raises
    ------
    InputError
        If the manifest has no rows.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"ID": "a", "duration": 3.0, "noisy_wav": path, "clean_wav": path}
    >>> write_manifest(path.with_suffix(".csv"), [row])
    >>> EvaluationPairs(path.with_suffix(".csv"))[0]["noisy"].shape
    torch.Size([48000])
    """

    def __init__(self, manifest):
        self.rows = read_manifest(manifest)
        if not self.rows:
            raise InputError(f"the manifest {manifest} has no rows")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {
            "id": row["ID"],
            "noisy": torch.from_numpy(audio.read(row["noisy_wav"])),
            "clean": torch.from_numpy(audio.read(row["clean_wav"])),
        }


def training_loader(
    dataset,
    batch_size,
    n_batches=None,
    num_workers=0,
    rank=0,
    world_size=1,
    device="cpu",
):
    """Make the loader of training batches; its `batch_sampler` sets the epoch.

    Arguments
    ---------
    dataset : TrainingCrops
        The data set.
    batch_size : int
        Items per batch and process.
    n_batches : int or None
        Batches per epoch, see `EpochBatchSampler`.
    num_workers : int
        Number of processes that read and mix.
    rank : int
        Index of this training process.
    world_size : int
        Number of training processes.
    device : torch.device or str
        Device that computes. For a GPU, batches are pinned in memory, so that they are
        copied while it computes.

    Returns
    -------
    torch.utils.data.DataLoader
        Loader of SpeechBrain `PaddedBatch`es with id, noisy and clean.

    Raises
    ------
    InputError
        If the manifest is empty, or a number is too small.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"ID": "a", "duration": 3.0, "noisy_wav": path, "clean_wav": path}
    >>> write_manifest(path.with_suffix(".csv"), [row])
    >>> crops = TrainingCrops(path.with_suffix(".csv"), RecordedPairs())
    >>> loader = training_loader(crops, batch_size=2, n_batches=3)
    >>> [batch.noisy.data.shape for batch in loader]
    [torch.Size([2, 20480]), torch.Size([2, 20480]), torch.Size([2, 20480])]
    """
    if not len(dataset):
        raise InputError(
            f"the training manifest {dataset.manifest} has no rows: give the experiment "
            "data to train on, or --test_only to evaluate"
        )
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("steps_per_epoch", n_batches, 1),
        ("num_workers", num_workers, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    sampler = EpochBatchSampler(
        len(dataset),
        batch_size,
        n_batches,
        dataset.seed,
        rank,
        world_size,
        dataset.groups,
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=PaddedBatch,
        num_workers=num_workers,
        worker_init_fn=_leave_sigterm_to_its_parent,
        pin_memory=torch.device(device).type == "cuda",
        persistent_workers=num_workers > 0,
    )


def _leave_sigterm_to_its_parent(_worker):
    # Schedulers and `timeout` send SIGTERM to all processes of a run. If a worker ended by
    # it, torch would raise an error while the run stops; it ends with the run anyway.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def evaluation_loader(manifest, rank=0, world_size=1, device="cpu"):
    """Make the loader of whole utterances; each process gets a share of them.

    A batch holds one utterance, so that padding can't change the scores.

    Arguments
    ---------
    manifest : str or Path
        A manifest for `EvaluationPairs`.
    rank : int
        Index of this process.
    world_size : int
        Number of processes.
    device : torch.device or str
        Device that computes. For a GPU, batches are pinned in memory, so that they are
        copied while it computes.

    Returns
    -------
    torch.utils.data.DataLoader
        Loader of SpeechBrain `PaddedBatch`es of one item with id, noisy and clean. Its
        `dataset` has the items of all processes.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"duration": 3.0, "noisy_wav": path, "clean_wav": path}
    >>> write_manifest(path.with_suffix(".csv"), [{"ID": i, **row} for i in "abc"])
    >>> loader = evaluation_loader(path.with_suffix(".csv"), rank=1, world_size=2)
    >>> [batch.id for batch in loader]
    [['b']]
    """
    dataset = EvaluationPairs(manifest)
    share = range(rank, len(dataset), world_size)
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=share,
        collate_fn=PaddedBatch,
        pin_memory=torch.device(device).type == "cuda",
    )


def random_start(duration, n_samples, rng):
    """Draw the first sample of a random crop of a file.

    Arguments
    ---------
    duration : float
        Length of the file in seconds.
    n_samples : int
        Length of the crop.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    int
        The first sample; 0 if the file is shorter than the crop.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> 0 <= random_start(2.0, 20480, rng) <= 32000 - 20480
    True
    >>> random_start(1.0, 20480, rng)
    0
    """
    spare = round(duration * audio.SAMPLE_RATE) - n_samples
    return int(rng.integers(spare + 1)) if spare > 0 else 0


def read_crop(path, start, n_samples):
    """Read a crop; if the file ends before the crop does, its samples are repeated.

    Arguments
    ---------
    path : str or Path
        The file.
    start : int
        First sample.
    n_samples : int
        Length of the crop.

    Returns
    -------
    np.ndarray
        [n_samples]

    Raises
    ------
    InputError
        If the file ends before the crop begins.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, np.array([0.0, 0.25, 0.5]))
    >>> read_crop(path, start=1, n_samples=5).tolist()
    [0.25, 0.5, 0.25, 0.5, 0.25]
    """
    samples = audio.read(path, start, n_samples)
    if not len(samples):
        raise InputError(
            f"{path} ends before sample {start}: it became shorter after it was prepared; "
            "run the same command again to prepare it again"
        )
    return np.resize(samples, n_samples)
