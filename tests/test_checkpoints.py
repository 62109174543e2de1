"""Checkpoints are whole or not there, and damaged ones are named."""

import os
from datetime import timedelta

import pytest
import torch

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import MSCFF
from speechbrain_cffma.training.checkpoints import AtomicCheckpointer


def checkpointer_of(folder, model):
    return AtomicCheckpointer(folder, {"model": model})


def checkpointer_of_lobe(folder, lobe):
    return AtomicCheckpointer(folder, {"model": lobe}, model=lobe)


def test_saved_weights_come_back(tmp_path):
    model = torch.nn.Linear(3, 2)
    checkpointer_of(tmp_path, model).save_checkpoint()
    restored = torch.nn.Linear(3, 2)
    checkpointer_of(tmp_path, restored).recover_if_possible()
    assert torch.equal(restored.weight, model.weight)


def test_only_the_best_and_the_latest_are_kept(tmp_path):
    checkpointer = checkpointer_of(tmp_path, torch.nn.Linear(1, 1))
    for pesq in (1.5, 2.5, 2.0):
        checkpointer.save_and_keep_only(meta={"pesq": pesq}, max_keys=["pesq"])
    kept = sorted(c.meta["pesq"] for c in checkpointer.list_checkpoints())
    assert kept == [2.0, 2.5]


def save_twice(rank, folder):
    """Save in one of two processes, of which the second sees new checkpoints late."""
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=20), 2, rank
    )
    checkpointer = checkpointer_of(folder / "checkpoints", torch.nn.Linear(1, 1))
    if rank == 1:
        checkpointer.find_checkpoints = lambda **options: []
    for name in ("first", "second"):
        checkpointer.save_and_keep_only(name=name)
    torch.distributed.destroy_process_group()


def test_processes_need_not_see_the_same_checkpoints(tmp_path):
    torch.multiprocessing.spawn(save_twice, (tmp_path,), nprocs=2)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["CKPT+second"]


def test_a_save_that_breaks_off_leaves_no_checkpoint(tmp_path, monkeypatch):
    model = torch.nn.Linear(1, 1)
    checkpointer = checkpointer_of(tmp_path, model)
    checkpointer.save_checkpoint(name="whole")

    def break_off(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint(name="broken")
    names = [c.path.name for c in checkpointer.list_checkpoints()]
    assert names == ["CKPT+whole"]


def test_what_a_broken_save_left_is_removed_at_the_next_start(tmp_path):
    (tmp_path / "partial-CKPT+broken").mkdir()
    checkpointer_of(tmp_path, torch.nn.Linear(1, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_line_and_leaves_no_part(tmp_path):
    resource = pytest.importorskip("resource")
    checkpointer = checkpointer_of(tmp_path, torch.nn.Linear(100, 100))
    checkpointer.save_checkpoint(name="whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # bytes a file
    try:
        with pytest.raises(InputError, match="is the disk full") as error:
            checkpointer.save_checkpoint(name="broken")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["CKPT+whole"]


def test_a_checkpoint_of_nan_is_one_clear_line(tmp_path):
    lobe = MSCFF(3, 4, 6)
    with torch.no_grad():
        lobe.fuse.weight[0, 0] = torch.nan
    checkpointer_of_lobe(tmp_path, lobe).save_checkpoint(name="a")
    with pytest.raises(InputError, match="CKPT\\+a can't be loaded.*weight holds NaN"):
        checkpointer_of_lobe(tmp_path, MSCFF(3, 4, 6)).recover_if_possible()


def test_saving_under_the_same_name_replaces(tmp_path):
    model = torch.nn.Linear(1, 1)
    checkpointer = checkpointer_of(tmp_path, model)
    checkpointer.save_checkpoint(name="last")
    with torch.no_grad():
        model.weight.fill_(7.0)
    checkpointer.save_checkpoint(name="last")
    with torch.no_grad():
        model.weight.fill_(0.0)
    checkpointer.recover_if_possible()
    assert model.weight.item() == 7.0


def test_a_checkpoint_of_another_architecture_is_one_clear_line(tmp_path):
    checkpointer_of(tmp_path, torch.nn.Linear(3, 2)).save_checkpoint(name="a")
    with pytest.raises(InputError, match="CKPT\\+a can't be loaded") as error:
        checkpointer_of(tmp_path, torch.nn.Linear(3, 4)).recover_if_possible()
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_network_with_equal_shapes_is_one_clear_line(tmp_path):
    checkpointer_of_lobe(tmp_path, MSCFF(3, 4, 6)).save_checkpoint(name="a")
    dilated = MSCFF(3, 4, 6, dilations=(1, 2, 4))
    with pytest.raises(
        InputError, match="CKPT\\+a belongs to another network"
    ) as error:
        checkpointer_of_lobe(tmp_path, dilated).recover_if_possible()
    assert "dilations.1 is 1 there and 2 here" in str(error.value)
    assert "Delete" not in str(error.value)  # it is sound
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_the_same_network_is_loaded(tmp_path):
    lobe, restored = MSCFF(3, 4, 6), MSCFF(3, 4, 6)
    checkpointer_of_lobe(tmp_path, lobe).save_checkpoint()
    checkpointer_of_lobe(tmp_path, restored).recover_if_possible()
    assert torch.equal(restored.fuse.weight, lobe.fuse.weight)


def test_a_checkpoint_without_a_description_of_its_network_is_loaded(tmp_path):
    lobe, restored = MSCFF(3, 4, 6), MSCFF(3, 4, 6)
    checkpointer_of(tmp_path, lobe).save_checkpoint()
    checkpointer_of_lobe(tmp_path, restored).recover_if_possible()
    assert torch.equal(restored.fuse.weight, lobe.fuse.weight)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, damage):
    model = torch.nn.Linear(100, 100)
    checkpointer = checkpointer_of(tmp_path, model)
    path = checkpointer.save_checkpoint(name="a").paramfiles["model"]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "truncated":
        content = content[:middle]
    else:
        content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="CKPT\\+a can't be loaded"):
        checkpointer.recover_if_possible()


@pytest.mark.parametrize(
    "content", [b"", b"[", b"text", b"{}", b"\xff", b"unixtime: .nan", b"\x1b[2J"]
)
def test_a_checkpoint_whose_values_are_damaged_is_not_passed_over(tmp_path, content):
    """Training would begin anew, or from an older one, without a word."""
    checkpointer = checkpointer_of(tmp_path, torch.nn.Linear(1, 1))
    path = checkpointer.save_checkpoint(name="a").path / "CKPT.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="CKPT.yaml is damaged") as error:
        checkpointer.recover_if_possible(max_key="pesq")
    assert str(error.value).isprintable()
