"""Audio files: whatever comes in, mono at 16 kHz goes on, and faults have names."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from speechbrain_cffma import audio
from speechbrain_cffma.data.files import prepare_files
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation.scores import read_at


def tone(sample_rate=16000, channels=1, seconds=1.0, level=0.5):
    """440 Hz, [S, channels]."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    samples = level * np.sin(2 * np.pi * 440 * time)
    return np.repeat(samples[:, None], channels, axis=1)


def prepare(source, target=None):
    """The one file as AudioFile."""
    target = target or source.parent / "copies" / "copy.wav"
    return prepare_files([source], [target], n_jobs=1)[0]


class TestPrepareFiles:
    @pytest.mark.parametrize(
        ("name", "form", "subtype", "sample_rate", "channels"),
        [
            ("a.wav", "WAV", "PCM_16", 16000, 1),
            ("a.WAV", "WAV", "PCM_24", 48000, 1),
            ("a.wav", "WAV", "FLOAT", 8000, 1),
            ("a.wav", "WAV", "PCM_16", 16000, 2),
            ("a.flac", "FLAC", "PCM_16", 16000, 1),
            ("a.flac", "FLAC", "PCM_24", 44100, 2),
            ("a.ogg", "OGG", "VORBIS", 22050, 1),
            ("a.opus", "OGG", "OPUS", 16000, 1),
            ("a.opus", "OGG", "OPUS", 48000, 2),
            ("a.mp3", "MP3", "MPEG_LAYER_III", 44100, 2),
            ("a.aiff", "AIFF", "PCM_16", 11025, 1),
        ],
    )
    def test_any_format_becomes_mono_at_16_khz(
        self, tmp_path, name, form, subtype, sample_rate, channels
    ):
        source = tmp_path / name
        soundfile.write(
            source, tone(sample_rate, channels), sample_rate, subtype, format=form
        )
        file = prepare(source)
        samples, prepared_rate = soundfile.read(file.path)
        middle = samples[4000:12000]  # 220 periods
        assert file.fault == ""
        assert (prepared_rate, samples.ndim) == (16000, 1)
        assert file.n_samples == len(samples) == 16000
        assert np.abs(np.fft.rfft(middle)).argmax() == 220
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / 2**0.5, rel=0.02)

    def test_the_source_s_rate_and_length_are_noted(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", tone(48000), 48000)
        file = prepare(tmp_path / "a.wav")
        assert (file.source_rate, file.source_samples) == (48000, 48000)

    @pytest.mark.parametrize("suffix", ["wav", "flac"])
    def test_mono_at_16_khz_is_used_in_place(self, tmp_path, suffix):
        source = tmp_path / f"a.{suffix}"
        soundfile.write(source, tone(), 16000)
        file = prepare(source, tmp_path / "copy.wav")
        assert file.path == str(source)
        assert not (tmp_path / "copy.wav").exists()

    def test_lossy_files_are_always_converted(self, tmp_path):
        """They can't be read quickly, nor exactly, from the middle."""
        source = tmp_path / "a.opus"
        soundfile.write(source, tone(), 16000, "OPUS", format="OGG")
        assert prepare(source, tmp_path / "copy.wav").path == str(tmp_path / "copy.wav")

    def test_channels_are_averaged(self, tmp_path):
        left = tone()
        soundfile.write(tmp_path / "a.wav", np.hstack([left, 0 * left]), 16000, "FLOAT")
        samples = audio.read(prepare(tmp_path / "a.wav").path)
        np.testing.assert_allclose(samples, left[:, 0] / 2, atol=1e-4)

    def test_samples_above_full_scale_are_not_clipped(self, tmp_path):
        loud = tone(channels=2, level=2.5)
        soundfile.write(tmp_path / "a.wav", loud, 16000, "FLOAT")
        samples = audio.read(prepare(tmp_path / "a.wav").path)
        np.testing.assert_array_equal(samples, loud[:, 0].astype(np.float32))

    @pytest.mark.parametrize("sample_rate", [16000, 48000])
    @pytest.mark.parametrize(
        ("samples", "fault"),
        [
            (np.zeros(8000), "silent"),
            (np.full(8000, 0.9e-4), "silent"),
            (np.r_[tone()[:, 0], np.nan], "NaN or Inf"),
            (np.r_[tone()[:, 0], np.inf], "NaN or Inf"),
            (tone()[:399, 0], "shorter than 25 ms"),
            (np.zeros(0), "shorter than 25 ms"),
        ],
        ids=["silent", "nearly silent", "NaN", "Inf", "short", "empty"],
    )
    def test_a_fault_is_named_and_leaves_no_copy(
        self, tmp_path, samples, fault, sample_rate
    ):
        source, target = tmp_path / "a.wav", tmp_path / "copy.wav"
        soundfile.write(source, samples, sample_rate, "FLOAT")
        file = prepare(source, target)
        assert fault in file.fault
        assert file.path == str(source)
        assert not target.exists()

    def test_the_shortest_usable_file_has_25_ms(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", tone()[:400], 16000)
        assert prepare(tmp_path / "a.wav").fault == ""

    @pytest.mark.parametrize("content", [b"", b"not audio", b"RIFF\0\0\0\0WAVEfmt "])
    def test_a_file_that_is_no_audio_is_unreadable(self, tmp_path, content):
        (tmp_path / "a.wav").write_bytes(content)
        assert "unreadable" in prepare(tmp_path / "a.wav").fault

    def test_a_missing_file_is_unreadable(self, tmp_path):
        assert "unreadable" in prepare(tmp_path / "a.wav").fault

    def test_a_copy_is_made_once(self, tmp_path, monkeypatch):
        soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
        first = prepare(tmp_path / "a.wav")
        monkeypatch.setattr(audio, "write", lambda *_: pytest.fail("made again"))
        assert prepare(tmp_path / "a.wav") == first

    @pytest.mark.parametrize("time", [0, 4_000_000_000], ids=["older", "newer"])
    def test_a_copy_is_renewed_when_the_source_is_another_file(self, tmp_path, time):
        source = tmp_path / "a.wav"
        soundfile.write(source, tone(8000), 8000)
        prepare(source)
        soundfile.write(source, tone(8000, seconds=2), 8000)
        os.utime(source, (time, time))
        assert prepare(source).n_samples == 32000

    def test_processes_keep_the_order(self, tmp_path):
        sources = [tmp_path / f"{i}.wav" for i in range(6)]
        for i, source in enumerate(sources):
            soundfile.write(source, tone(8000)[: 4000 - 500 * i], 8000)
        targets = [tmp_path / "copies" / source.name for source in sources]
        files = prepare_files(sources, targets, n_jobs=2)
        assert [file.path for file in files] == [str(target) for target in targets]
        assert [file.n_samples for file in files] == [8000 - 1000 * i for i in range(6)]

    def test_a_log_has_no_progress_bar(self, tmp_path, capsys):
        soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
        prepare(tmp_path / "a.wav")
        assert capsys.readouterr().err == ""


class TestFindAudio:
    def test_finds_subfolders_in_sorted_order(self, tmp_path):
        for name in ("b.flac", "a/c.WAV", "a/b.opus", "a/notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path) for path in audio.find_audio(tmp_path)]
        assert [path.as_posix() for path in found] == ["a/b.opus", "a/c.WAV", "b.flac"]

    def test_hidden_files_are_passed_over(self, tmp_path):
        for name in ("a.wav", "._a.wav"):
            (tmp_path / name).touch()
        assert audio.find_audio(tmp_path) == [tmp_path / "a.wav"]

    @pytest.mark.parametrize("name", [".hidden/a.wav", "day.wav/notes.txt"])
    def test_hidden_folders_and_folders_named_like_files_are_passed_over(
        self, tmp_path, name
    ):
        (tmp_path / name).parent.mkdir()
        for path in (tmp_path / "b.wav", tmp_path / name):
            path.touch()
        assert audio.find_audio(tmp_path) == [tmp_path / "b.wav"]

    def test_links_to_folders_are_followed_once(self, tmp_path):
        for name in ("in/day1/a.wav", "disk/day2/b.wav"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
        top = tmp_path / "in"
        (top / "day2").symlink_to(tmp_path / "disk" / "day2")
        (top / "again").symlink_to(top / "day1")
        (top / "day1" / "loop").symlink_to(top)
        found = [path.relative_to(top).as_posix() for path in audio.find_audio(top)]
        assert found == ["again/a.wav", "day2/b.wav"]

    @pytest.mark.parametrize("mark", audio.RESULT_FILES)
    def test_results_among_the_data_are_passed_over(self, tmp_path, mark, caplog):
        results = tmp_path / "results" / "mini"
        for path in (tmp_path / "a.wav", results / "enhanced" / "b.wav"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (results / mark).touch()
        assert audio.find_audio(tmp_path) == [tmp_path / "a.wav"]
        assert (
            f"{results} is left out: it holds results, as its {mark} shows"
            in caplog.text
        )
        # Named itself, a folder of results is searched.
        found = audio.find_audio(results)
        assert found == [results / "enhanced" / "b.wav"]

    def test_a_folder_that_is_left_out_is_not_searched(self, tmp_path):
        for name in ("a.wav", "out/b.wav"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = audio.find_audio(tmp_path, leave_out=[tmp_path / "out"])
        assert found == [tmp_path / "a.wav"]

    def test_a_folder_that_can_t_be_read_is_told(self, tmp_path, monkeypatch, caplog):
        (tmp_path / "a.wav").touch()
        (tmp_path / "locked").mkdir()
        scandir = os.scandir

        def denied(path):
            if Path(path).name == "locked":
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", denied)
        assert audio.find_audio(tmp_path) == [tmp_path / "a.wav"]
        assert "locked is left out: it can't be read (Permission denied)" in caplog.text

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="none does not exist"):
            audio.find_audio(tmp_path / "none")

    def test_a_folder_without_audio_is_an_error(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(InputError, match="no audio files"):
            audio.find_audio(tmp_path)


class TestReadAndWrite:
    def test_a_part_is_that_part_of_the_whole(self, tmp_path, speech):
        soundfile.write(tmp_path / "a.wav", speech.numpy(), 16000)
        whole = audio.read(tmp_path / "a.wav")
        part = audio.read(tmp_path / "a.wav", start=700, n_samples=900)
        np.testing.assert_array_equal(part, whole[700:1600])
        assert part.dtype == np.float32

    def test_what_can_t_be_read_is_an_error_of_one_line(self, tmp_path):
        (tmp_path / "a.wav").write_text("not audio")
        with pytest.raises(InputError, match="a.wav can't be read") as caught:
            audio.read(tmp_path / "a.wav")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("level", [0.5, 1.0, 3.0])
    def test_what_is_written_is_read(self, tmp_path, level):
        samples = tone(level=level)[:, 0].astype(np.float32)
        audio.write(tmp_path / "new" / "a.wav", samples)
        np.testing.assert_allclose(
            audio.read(tmp_path / "new" / "a.wav"), samples, atol=1 / 32768
        )

    def test_what_can_t_be_written_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="file/a.wav can't be written"):
            audio.write(tmp_path / "file" / "a.wav", np.zeros(400))

    def test_writing_leaves_no_other_file(self, tmp_path):
        audio.write(tmp_path / "a.wav", tone()[:, 0])
        assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


class TestResample:
    @pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000])
    @pytest.mark.parametrize("n_samples", [1, 400, 8001])
    def test_is_that_of_torchaudio(self, sample_rate, n_samples):
        """Copies that earlier releases made by it stay valid."""
        samples = np.random.default_rng(0).uniform(-1, 1, n_samples).astype("float32")
        expected = torchaudio.functional.resample(
            torch.from_numpy(samples).double(), sample_rate, 16000
        ).numpy()
        seen = audio.resample(samples, sample_rate)
        assert seen.dtype == samples.dtype
        np.testing.assert_allclose(seen, expected, atol=1e-6)

    def test_a_file_is_scored_as_training_copies_it(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", tone(48000), 48000, "FLOAT")
        copy = prepare(tmp_path / "a.wav").path
        scored = read_at(tmp_path / "a.wav", 16000)
        np.testing.assert_allclose(audio.read(copy), scored, atol=1 / 32768)
