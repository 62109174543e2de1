"""Manifests: pairing, checks of files and the form on disk."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speechbrain_cffma.data import manifest
from speechbrain_cffma.data.files import AudioFile
from speechbrain_cffma.data.pairs import (
    check_matches,
    drop_faulty,
    match_files,
    pair_files,
    utterance_ids,
)
from speechbrain_cffma.data.prepared import find_sources, is_prepared, mark_prepared
from speechbrain_cffma.errors import InputError

FINE = AudioFile("fine.wav", 16000, 16000, 16000)
SILENT = AudioFile("a/silent.wav", fault="silent")
BROKEN = AudioFile("b/broken.wav", fault="unreadable")


class TestPairFiles:
    @staticmethod
    def pair(noisy, clean):
        return pair_files(
            [Path("noisy", name) for name in noisy],
            "noisy",
            [Path("clean", name) for name in clean],
            "clean",
        )

    def test_twins_have_the_same_relative_path(self):
        pairs = self.pair(["p1/001.wav", "p2/001.wav"], ["p2/001.wav", "p1/001.wav"])
        assert pairs == [
            ("p1/001", Path("noisy/p1/001.wav"), Path("clean/p1/001.wav")),
            ("p2/001", Path("noisy/p2/001.wav"), Path("clean/p2/001.wav")),
        ]

    def test_their_extensions_may_differ(self):
        pairs = self.pair(["a.1.flac"], ["a.1.wav"])
        assert pairs == [("a.1", Path("noisy/a.1.flac"), Path("clean/a.1.wav"))]

    def test_all_noisy_files_without_twin_are_named_with_their_count(self):
        with pytest.raises(InputError, match="2 of 3 .*: b, d/c") as caught:
            self.pair(["a.wav", "b.wav", "d/c.wav"], ["a.wav", "c.wav"])
        assert "\n" not in str(caught.value)

    def test_clean_files_without_twin_are_left_out_with_their_count(self, caplog):
        assert len(self.pair(["a.wav"], ["a.wav", "b.wav", "c.wav"])) == 1
        assert "2 files in clean match no noisy file" in caplog.text


class TestPairBy:
    """Twins that share a part of their names, as those of the DNS Challenge do."""

    NOISY = ["clnsp1_train_69005_1_snr15_tl-21_fileid_158", "x_snr0_tl-9_fileid_1"]
    CLEAN = ["clean_fileid_1", "clean_fileid_15", "clean_fileid_158"]

    @staticmethod
    def twins(names, clean, pair_by):
        paths = [Path("clean", f"{name}.wav") for name in clean]
        found = match_files(names, paths, "clean", pair_by)
        return {name: path.stem for name, path in found.items()}

    @pytest.mark.parametrize("pair_by", [r"fileid_\d+", r"fileid_(\d+)", r"(\d+)$"])
    def test_what_it_finds_is_equal_in_twins(self, pair_by):
        twins = self.twins(self.NOISY, self.CLEAN, pair_by)
        assert twins == {
            self.NOISY[0]: "clean_fileid_158",
            self.NOISY[1]: "clean_fileid_1",
        }

    def test_all_groups_count(self):
        clean = ["a_p1_001", "a_p2_001"]
        twins = self.twins(["p2_cafe_001"], clean, r"(p\d).*_(\d+)")
        assert twins == {"p2_cafe_001": "a_p2_001"}

    def test_a_clean_file_may_have_several_noisy_twins(self):
        twins = self.twins(["a_0dB", "a_5dB"], ["a", "b"], "^[a-z]")
        assert twins == {"a_0dB": "a", "a_5dB": "a"}

    def test_a_file_in_which_it_finds_nothing_has_no_twin(self):
        assert self.twins(["a_1", "b"], ["x_1", "b", "c"], r"\d") == {"a_1": "x_1"}

    def test_without_it_the_whole_name_counts(self):
        assert self.twins(["a", "p/a"], ["a", "p/a", "p/ab"], None) == {
            "a": "a",
            "p/a": "a",
        }

    def test_finding_the_same_in_two_clean_files_is_an_error(self):
        with pytest.raises(
            InputError, match="same text in clean/b_1.wav and clean/a_1.wav"
        ):
            self.twins(["a_1"], ["b_1", "a_1"], r"\d")

    def test_no_regular_expression_is_an_error(self):
        with pytest.raises(
            InputError, match=r"'\(a', which is not a regular expression"
        ):
            self.twins(["a"], ["a"], "(a")

    def test_pairs_are_named_as_the_noisy_file(self):
        noisy = [Path("noisy", f"{name}.wav") for name in self.NOISY]
        clean = [Path("clean", f"{name}.wav") for name in self.CLEAN[::2]]
        pairs = pair_files(noisy, "noisy", clean, "clean", r"fileid_\d+")
        assert pairs == [
            (self.NOISY[0], noisy[0], clean[1]),
            (self.NOISY[1], noisy[1], clean[0]),
        ]

    def test_noisy_files_without_twin_are_named_with_it(self):
        noisy = [Path("noisy/a_1.wav"), Path("noisy/a_2.wav")]
        with pytest.raises(
            InputError,
            match=r"1 of 2 .* with the same \\d in clean; add or remove: a_2",
        ):
            pair_files(noisy, "noisy", [Path("clean/b_1.wav")], "clean", r"\d")


class TestCheckTwins:
    def test_equal_ones_pass(self):
        check_matches(["a"], [FINE], [FINE])

    @pytest.mark.parametrize(
        ("other", "figure"),
        [
            (FINE._replace(source_samples=15999), "15999 samples"),
            (FINE._replace(source_rate=48000), "48000 Hz"),
        ],
        ids=["length", "sample rate"],
    )
    def test_another_length_or_sample_rate_is_an_error(self, other, figure):
        with pytest.raises(
            InputError, match="2 pairs .*such as b.*All: b, c"
        ) as caught:
            check_matches(["a", "b", "c"], [FINE] * 3, [FINE, other, other])
        assert figure in str(caught.value)

    def test_faulty_files_are_left_to_the_check_of_faults(self):
        check_matches(["a"], [FINE], [SILENT])


class TestUsable:
    def test_all_are_without_fault(self, caplog):
        assert drop_faulty([FINE] * 3, "train") == [True] * 3
        assert caplog.text == ""

    def test_below_one_percent_of_training_files_are_skipped_and_named(self, caplog):
        with caplog.at_level(logging.WARNING):
            good = drop_faulty([FINE] * 100 + [SILENT], "train")
        assert good == [True] * 100 + [False]
        assert "skipping 1 of 101 training files: a/silent.wav: silent" in caplog.text

    def test_one_percent_of_training_files_is_an_error(self):
        with pytest.raises(InputError, match="1 of 100 train files"):
            drop_faulty([FINE] * 99 + [SILENT], "train")

    @pytest.mark.parametrize("split", ["valid", "test"])
    def test_a_single_evaluation_file_is_an_error(self, split):
        with pytest.raises(InputError, match=f"1 of 1001 {split} files"):
            drop_faulty([FINE] * 1000 + [SILENT], split)

    def test_an_error_names_every_file_with_its_fault(self):
        with pytest.raises(InputError) as caught:
            drop_faulty([SILENT, FINE, BROKEN], "train")
        assert "a/silent.wav: silent, b/broken.wav: unreadable" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_pair_counts_once(self, caplog):
        pairs = [(FINE, FINE)] * 100 + [(SILENT, BROKEN)]
        assert drop_faulty(pairs, "train") == [True] * 100 + [False]
        assert "skipping 1 of 101" in caplog.text
        assert "silent.wav" in caplog.text
        assert "broken.wav" in caplog.text


class TestFile:
    def test_what_is_written_is_read(self, tmp_path):
        row = {
            "ID": "p1/ü, 1",
            "duration": 1.2345678,
            "noisy_wav": tmp_path / "a b.wav",
            "snr": 2.5,
        }
        manifest.write_manifest(tmp_path / "new" / "a.csv", [row, {**row, "snr": ""}])
        first, second = manifest.read_manifest(tmp_path / "new" / "a.csv")
        assert tuple(first) == manifest.COLUMNS
        assert (first["ID"], first["duration"], first["snr"]) == (
            "p1/ü, 1",
            1.2345678,
            2.5,
        )
        assert first["noisy_wav"] == str(tmp_path / "a b.wav")
        assert first["clean_wav"] == ""
        assert second["snr"] is None

    def test_writing_leaves_no_other_file(self, tmp_path):
        manifest.write_manifest(tmp_path / "a.csv", [])
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]

    def test_an_empty_one_has_no_rows(self, tmp_path):
        manifest.write_manifest(tmp_path / "a.csv", [])
        assert manifest.read_manifest(tmp_path / "a.csv") == []

    def test_a_missing_one_is_an_error_that_says_what_to_do(self, tmp_path):
        with pytest.raises(InputError, match="a.csv .*prepare"):
            manifest.read_manifest(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        "text",
        ["name,length\na,1\n", "ID,duration,snr\na,long,\n", "ID,duration,snr\na\n"],
        ids=["other columns", "no number", "short row"],
    )
    def test_other_columns_are_an_error_that_names_the_right_ones(self, tmp_path, text):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(InputError, match="a.csv .*ID, duration, noisy_wav"):
            manifest.read_manifest(tmp_path / "a.csv")


class TestPrepared:
    ARGUMENTS = {"folder": Path("a"), "speakers": ("p1", "p2"), "seed": 1}

    @pytest.fixture(autouse=True)
    def manifests(self, tmp_path):
        for split in ("train", "valid", "test"):
            manifest.write_manifest(tmp_path / f"{split}.csv", [])

    def test_only_after_it_was_marked(self, tmp_path):
        assert not is_prepared(tmp_path, self.ARGUMENTS)
        mark_prepared(tmp_path, self.ARGUMENTS)
        assert is_prepared(tmp_path, self.ARGUMENTS)

    def test_not_when_a_manifest_is_gone(self, tmp_path):
        mark_prepared(tmp_path, self.ARGUMENTS)
        (tmp_path / "valid.csv").unlink()
        assert not is_prepared(tmp_path, self.ARGUMENTS)

    def test_not_with_other_arguments(self, tmp_path):
        mark_prepared(tmp_path, self.ARGUMENTS)
        assert not is_prepared(tmp_path, {**self.ARGUMENTS, "seed": 2})

    def test_data_that_another_process_uses_are_not_replaced(self, tmp_path):
        mark_prepared(tmp_path, {"seed": 1})
        use = (
            "import sys; from speechbrain_cffma.data.prepared import is_prepared; "
            "print(is_prepared(sys.argv[1], {'seed': 1}), flush=True); input()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", use, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "True\n"
        with pytest.raises(InputError, match="another run uses .* --manifest_folder"):
            is_prepared(tmp_path, {"seed": 2})
        assert is_prepared(tmp_path, {"seed": 1})
        process.communicate("end\n")
        assert not is_prepared(tmp_path, {"seed": 2})

    def test_not_after_a_preparation_with_other_arguments_began(self, tmp_path):
        mark_prepared(tmp_path, self.ARGUMENTS)
        is_prepared(tmp_path, {**self.ARGUMENTS, "seed": 2})
        assert not is_prepared(tmp_path, self.ARGUMENTS)

    @pytest.fixture
    def sources(self, tmp_path):
        """Two files of 4 bytes that were there when the folder was marked."""
        paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
        for path in paths:
            path.write_bytes(b"RIFF")
        mark_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))
        return paths

    @staticmethod
    def states(folder):
        return find_sources([folder]).states

    def test_with_the_same_files(self, tmp_path, sources):
        assert is_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))

    def test_not_when_a_file_has_another_length(self, tmp_path, sources, caplog):
        times = sources[0].stat()
        sources[0].write_bytes(b"RIFF and more")
        os.utime(sources[0], ns=(times.st_atime_ns, times.st_mtime_ns))
        assert not is_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))
        assert f"1 files changed since {tmp_path} was prepared" in caplog.text
        assert caplog.text.count("a.wav") == 1

    def test_not_when_a_file_was_replaced_by_one_of_its_length(self, tmp_path, sources):
        os.utime(sources[0], ns=(0, 0))
        assert not is_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))

    def test_not_when_a_file_was_renamed(self, tmp_path, sources, caplog):
        sources[1].rename(tmp_path / "c.wav")
        assert not is_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))
        assert "1 files were added" in caplog.text
        assert "1 files were removed" in caplog.text

    def test_not_when_a_version_that_kept_no_states_marked_it(self, tmp_path):
        (tmp_path / "prepared.json").write_text('{"folder": "a", "n_files": [2]}')
        assert not is_prepared(tmp_path, self.ARGUMENTS)

    @pytest.mark.parametrize("mark", [b"", b"{", b"[]", b'{"sources": 1}', b"\xff"])
    def test_not_by_a_mark_that_is_damaged(self, tmp_path, sources, mark):
        (tmp_path / "prepared.json").write_bytes(mark)
        assert not is_prepared(tmp_path, self.ARGUMENTS, self.states(tmp_path))

    def test_not_in_a_folder_that_is_missing(self, tmp_path):
        assert not is_prepared(tmp_path / "none", self.ARGUMENTS)


def test_two_files_of_the_same_name_but_for_the_extension_are_an_error():
    paths = [Path("noisy/a.wav"), Path("noisy/b.wav"), Path("noisy/a.flac")]
    with pytest.raises(InputError, match="differ only in the extension.*: a$"):
        utterance_ids(paths, "noisy")
