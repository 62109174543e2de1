"""Training order, crops and whole utterances; nothing depends on workers or processes."""

import itertools
import multiprocessing
import subprocess
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_cffma.data import manifest
from speechbrain_cffma.data.datasets import (
    EpochBatchSampler,
    EvaluationPairs,
    RecordedPairs,
    TrainingCrops,
    evaluation_loader,
    in_turns,
    read_crop,
    training_loader,
)
from speechbrain_cffma.data.mixing import DynamicMixer
from speechbrain_cffma.errors import InputError

CROP = 4000


@pytest.fixture
def pairs_csv(tmp_path, speech):
    """Manifest of 7 pairs of 1 to 2.2 s whose noisy side is -0.5 times the clean one."""
    rows = []
    for i in range(7):
        clean = speech.numpy()[1000 * i :][: 16000 + 3200 * i]
        row = {"ID": f"u{i}", "duration": len(clean) / 16000}
        for key, samples in (("clean_wav", clean), ("noisy_wav", -0.5 * clean)):
            row[key] = tmp_path / f"{key}_{i}.wav"
            soundfile.write(row[key], samples, 16000, "FLOAT")
        rows.append(row)
    manifest.write_manifest(tmp_path / "pairs.csv", rows)
    return tmp_path / "pairs.csv"


@pytest.fixture
def crops(pairs_csv):
    return TrainingCrops(pairs_csv, RecordedPairs(), CROP, seed=5)


def batches_of(epoch=1, first_batch=0, **arguments):
    sampler = EpochBatchSampler(**arguments)
    sampler.set_epoch(epoch, first_batch)
    return list(sampler)


def indices(batches):
    return [index for batch in batches for _, _, index in batch]


class TestTurns:
    #: The files of three speakers.
    GROUPS = ([0, 1, 2, 3, 4], [5, 6], [7])

    def order(self, n_items, key=(3, 1)):
        return [in_turns(self.GROUPS, position, key) for position in range(n_items)]

    def test_each_group_has_one_item_in_each_round(self):
        of_group = {i: n for n, group in enumerate(self.GROUPS) for i in group}
        rounds = np.reshape([of_group[i] for i in self.order(60)], (20, 3))
        assert all(sorted(turns) == [0, 1, 2] for turns in rounds)
        assert len({tuple(turns) for turns in rounds}) == 6  # in any order

    def test_each_group_s_items_come_equally_often(self):
        counts = np.bincount(self.order(60))
        assert counts.tolist() == [4, 4, 4, 4, 4, 10, 10, 20]

    def test_an_order_depends_on_its_key(self):
        assert self.order(30) == self.order(30) != self.order(30, key=(3, 2))

    def test_speakers_are_heard_equally_often_in_training(self, pairs_csv):
        rows = manifest.read_manifest(pairs_csv)
        for row in rows:
            row["speaker"] = "ben" if row["ID"] == "u6" else "anna"
        manifest.write_manifest(pairs_csv, rows)
        crops = TrainingCrops(pairs_csv, RecordedPairs(), CROP, by_speaker=True)
        loader = training_loader(crops, batch_size=2, n_batches=6)
        names = [name for batch in loader for name in batch.id]
        assert names.count("u6") == 6
        assert len(set(names)) == 7


class TestEpochBatchSampler:
    SIZES = {"n_items": 11, "batch_size": 2, "n_batches": 8, "seed": 3}

    def test_the_same_seed_and_epoch_give_the_same_batches(self):
        assert batches_of(4, **self.SIZES) == batches_of(4, **self.SIZES)

    def test_each_epoch_has_another_order(self):
        orders = [tuple(indices(batches_of(e, **self.SIZES))) for e in range(1, 9)]
        assert len(set(orders)) == 8

    def test_each_seed_has_another_order(self):
        other = {**self.SIZES, "seed": 4}
        assert indices(batches_of(**self.SIZES)) != indices(batches_of(**other))

    def test_setting_an_earlier_epoch_again_gives_its_batches(self):
        sampler = EpochBatchSampler(**self.SIZES)
        first = list(sampler)
        sampler.set_epoch(2)
        list(sampler)
        sampler.set_epoch(1)
        assert list(sampler) == first

    def test_each_item_comes_once_a_pass(self):
        order = indices(batches_of(n_items=10, batch_size=4, n_batches=5))
        assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))

    def test_the_order_of_0_1_0_is_kept(self):
        order = indices(batches_of(5, **self.SIZES))
        passes = [np.random.default_rng((3, 5, n)).permutation(11) for n in (0, 1)]
        assert order == np.concatenate(passes)[:16].tolist()

    def test_each_pass_has_another_order(self):
        order = indices(batches_of(n_items=10, batch_size=4, n_batches=5))
        assert order[:10] != order[10:]

    def test_an_epoch_is_one_pass_of_whole_batches(self):
        batches = batches_of(n_items=11, batch_size=2)
        assert len(batches) == 5
        assert len(set(indices(batches))) == 10

    def test_fewer_items_than_a_batch_fill_one(self):
        batches = batches_of(n_items=3, batch_size=8)
        assert [len(batch) for batch in batches] == [8]

    def test_its_length_is_the_number_of_batches(self):
        sampler = EpochBatchSampler(**self.SIZES)
        assert len(sampler) == len(list(sampler)) == 8

    @pytest.mark.parametrize("first_batch", range(9))
    def test_it_resumes_where_it_stopped(self, first_batch):
        whole = batches_of(2, **self.SIZES)
        assert batches_of(2, first_batch, **self.SIZES) == whole[first_batch:]

    def test_two_processes_share_the_batches_of_one(self):
        first, second = (
            batches_of(n_items=11, batch_size=2, n_batches=8, rank=rank, world_size=2)
            for rank in (0, 1)
        )
        one = batches_of(n_items=11, batch_size=4, n_batches=8)
        assert [a + b for a, b in zip(first, second, strict=True)] == one

    def test_two_processes_share_one_pass(self):
        ranks = [
            batches_of(n_items=12, batch_size=2, rank=rank, world_size=2)
            for rank in (0, 1)
        ]
        assert sorted(indices(itertools.chain(*ranks))) == list(range(12))


class TestTrainingCrops:
    def test_a_crop_is_the_same_stretch_of_both(self, crops):
        for position in range(20):
            item = crops[1, position, position % 7]
            torch.testing.assert_close(item["noisy"], -0.5 * item["clean"])

    def test_a_crop_is_a_stretch_of_its_file(self, pairs_csv):
        crops = TrainingCrops(pairs_csv, RecordedPairs(), CROP, gain=(1, 1))
        item = crops[1, 0, 2]
        whole, _ = soundfile.read(crops.rows[2]["clean_wav"], dtype="float32")
        windows = np.lib.stride_tricks.sliding_window_view(whole, CROP)
        assert (windows == item["clean"].numpy()).all(axis=1).any()
        assert item["id"] == "u2"

    def test_crops_begin_anywhere(self, crops):
        starts = {tuple(crops[1, i, 0]["clean"][:9].sign().tolist()) for i in range(20)}
        assert len(starts) > 5

    def test_the_gain_of_both_is_the_same_and_within_its_bounds(self, pairs_csv):
        def pairs(row, n_samples, rng):
            return np.full(n_samples, 3, np.float32), np.full(n_samples, 1, np.float32)

        crops = TrainingCrops(pairs_csv, pairs, CROP, gain=(1.0, 2.5))
        items = [crops[1, position, 0] for position in range(200)]
        gains = torch.stack([item["clean"][0] for item in items])
        assert all((item["noisy"] == 3 * item["clean"]).all() for item in items)
        assert 1 <= gains.min() < 1.1
        assert 2.4 < gains.max() <= 2.5

    def test_a_short_file_is_repeated(self, pairs_csv):
        crops = TrainingCrops(pairs_csv, RecordedPairs(), 40000)
        item = crops[1, 0, 0]
        for samples in (item["noisy"], item["clean"]):
            assert samples.shape == (40000,)
            assert torch.equal(samples[16000:32000], samples[:16000])
            assert torch.equal(samples[32000:], samples[:8000])

    def test_an_item_depends_on_its_key_alone(self, pairs_csv, crops):
        other = TrainingCrops(pairs_csv, RecordedPairs(), CROP, seed=5)
        for position in range(5):
            other[1, position, 0]
        np.random.seed(1)
        assert torch.equal(other[2, 9, 3]["noisy"], crops[2, 9, 3]["noisy"])

    @pytest.mark.parametrize("key", [(2, 0, 3), (1, 1, 3)], ids=["epoch", "position"])
    def test_another_key_gives_another_crop(self, crops, key):
        assert not torch.equal(crops[key]["clean"], crops[1, 0, 3]["clean"])

    def test_another_seed_gives_another_crop(self, pairs_csv, crops):
        other = TrainingCrops(pairs_csv, RecordedPairs(), CROP, seed=6)
        assert not torch.equal(other[1, 0, 3]["clean"], crops[1, 0, 3]["clean"])


class TestTrainingLoader:
    def test_an_empty_manifest_is_an_error(self, tmp_path):
        manifest.write_manifest(tmp_path / "train.csv", [])
        crops = TrainingCrops(tmp_path / "train.csv", RecordedPairs())
        with pytest.raises(InputError, match="train.csv has no rows: .*--test_only"):
            training_loader(crops, batch_size=2)

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
            ({"batch_size": 2, "n_batches": 0}, "steps_per_epoch must be at least 1"),
            ({"batch_size": 2, "num_workers": -1}, "num_workers must be at least 0"),
        ],
    )
    def test_numbers_that_are_too_small_are_an_error(self, crops, numbers, message):
        with pytest.raises(InputError, match=message):
            training_loader(crops, **numbers)

    @staticmethod
    def noisy_batches(dataset, num_workers, n_epochs=2):
        loader = training_loader(
            dataset, batch_size=2, n_batches=3, num_workers=num_workers
        )
        batches = []
        for epoch in range(1, n_epochs + 1):
            loader.batch_sampler.set_epoch(epoch)
            batches += [batch.noisy.data for batch in loader]
        return torch.stack(batches)

    @pytest.mark.parametrize("num_workers", [1, 2])
    @pytest.mark.parametrize("make_pairs", [lambda _: RecordedPairs(), DynamicMixer])
    def test_batches_do_not_depend_on_the_workers(
        self, pairs_csv, make_pairs, num_workers
    ):
        crops = TrainingCrops(pairs_csv, make_pairs(pairs_csv), CROP)
        alone = self.noisy_batches(crops, num_workers=0)
        assert torch.equal(self.noisy_batches(crops, num_workers), alone)

    def test_a_worker_leaves_sigterm_to_the_process_that_trains(self, crops):
        others = set(multiprocessing.active_children())  # of tests before this one
        batches = iter(training_loader(crops, batch_size=2, n_batches=9, num_workers=1))
        next(batches)
        # From elsewhere, as a scheduler sends it: a worker obeys its parent.
        (worker,) = set(multiprocessing.active_children()) - others
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
        assert len(list(batches)) == 8

    def test_batches_have_ids_and_both_signals(self, crops):
        batch = next(iter(training_loader(crops, batch_size=3)))
        assert len(batch.id) == 3
        assert batch.noisy.data.shape == batch.clean.data.shape == (3, CROP)
        assert batch.noisy.data.dtype == torch.float32

    @pytest.mark.parametrize("machine_has_gpu", [False, True])
    @pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:1", True)])
    def test_batches_are_pinned_for_the_device_that_is_used(
        self, pairs_csv, crops, monkeypatch, machine_has_gpu, device, pinned
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: machine_has_gpu)
        for loader in (
            training_loader(crops, batch_size=2, device=device),
            evaluation_loader(pairs_csv, device=device),
        ):
            assert loader.pin_memory == pinned


class TestEvaluationPairs:
    def test_utterances_are_whole(self, pairs_csv):
        pairs = EvaluationPairs(pairs_csv)
        assert len(pairs) == 7
        for row, item in zip(pairs.rows, (pairs[i] for i in range(7)), strict=True):
            for key in ("noisy", "clean"):
                whole, _ = soundfile.read(row[f"{key}_wav"], dtype="float32")
                np.testing.assert_array_equal(item[key].numpy(), whole)
            assert item["id"] == row["ID"]

    def test_an_empty_manifest_is_an_error(self, tmp_path):
        manifest.write_manifest(tmp_path / "test.csv", [])
        with pytest.raises(InputError, match="test.csv has no rows"):
            EvaluationPairs(tmp_path / "test.csv")


def test_a_crop_that_runs_past_the_end_repeats_what_is_there(tmp_path, speech):
    samples = speech.numpy()[:1000]
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    crop = read_crop(tmp_path / "a.wav", start=600, n_samples=1000)
    np.testing.assert_array_equal(crop, np.tile(samples[600:], 3)[:1000])


def test_a_crop_of_a_long_float_file_costs_the_memory_of_the_crop(tmp_path):
    rng = np.random.default_rng(0)
    long = rng.uniform(-2, 2, 60 * 16000).astype(np.float32)
    row = {"duration": 60.0}
    for key in ("noisy_wav", "clean_wav"):
        row[key] = tmp_path / f"{key}.wav"
        soundfile.write(row[key], long, 16000, "FLOAT")
    tracemalloc.start()
    noisy, _ = RecordedPairs()(row, 20480, np.random.default_rng(1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    windows = np.lib.stride_tricks.sliding_window_view(long, 20480)
    assert (windows[:, :9] == noisy[:9]).all(axis=1).any()
    assert peak < 5 * noisy.nbytes < long.nbytes / 5


def test_a_crop_of_nothing_is_an_error_that_names_the_file(tmp_path, speech):
    soundfile.write(tmp_path / "a.wav", speech.numpy()[:1000], 16000)
    with pytest.raises(InputError, match="a.wav ends before sample 2000"):
        read_crop(tmp_path / "a.wav", 2000, 400)
