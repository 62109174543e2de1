"""Formats: what is read, by whom, and what is written; sizes, tags, pipes, full disks."""

import contextlib
import io
import os
import struct
import sys
import threading

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import audio, media
from speechbrain_cffma.data.files import prepare_files
from speechbrain_cffma.errors import InputError, InstallError

RATE = 16000
SAMPLES = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype("float32")
GIB = 2**30


def contents(path, **part):
    """All samples [C, n] of a file."""
    with media.open_source(path, **part) as source:
        return np.concatenate(list(source.blocks), axis=1)


def made_of(sample_rate=RATE, channels=1, seconds=1.0, form="WAV", subtype="PCM_16"):
    """A source that is nothing but its form."""
    return media.Source(sample_rate, channels, seconds, form, subtype, iter(()))


def write(path, samples=SAMPLES, source=None, subtype=None):
    with media.open_target(path, source or made_of(), subtype) as target:
        target.write(np.atleast_2d(samples))


def encode(path, codec, rate=RATE, delay=0.0, form=None, **tags):
    """Let PyAV write the samples; beside a picture if the sound begins after a delay."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(tags)
        if delay:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width = pictures.height = 64
            black = np.zeros((64, 64, 3), dtype="uint8")
        sound = container.add_stream(codec, rate=rate, layout="mono")
        sound.bit_rate = 64000
        if delay:
            picture = av.VideoFrame.from_ndarray(black, format="rgb24")
            container.mux([*pictures.encode(picture), *pictures.encode(None)])
        bits = 32 if "24" in codec else 16
        whole = (SAMPLES[None] * 2 ** (bits - 1)).astype(f"int{bits}")
        frame = av.AudioFrame.from_ndarray(whole, format=f"s{bits}", layout="mono")
        frame.sample_rate = rate
        frame.pts = round(delay * rate)
        container.mux([*sound.encode(frame), *sound.encode(None)])
    return path


class TestUnclosedWav:
    """Headers that don't tell the size, as recorders leave them and pipes have them."""

    def wav(self, riff, data, head=b"RIFF", ds64=b"", behind=b""):
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
        header = head + struct.pack("<I", riff) + b"WAVE" + ds64 + form
        return header + b"data" + struct.pack("<I", data) + behind

    @pytest.mark.parametrize(
        ("riff", "data"),
        [
            (0, 0),
            (36, 0),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x7FFFF024, 0x7FFFF000),
            (0x80000024, 0x80000000),
        ],
    )
    def test_what_is_there_is_read(self, tmp_path, riff, data):
        path = tmp_path / "a.wav"
        pcm = (SAMPLES * 2**15).astype("<i2").tobytes()
        path.write_bytes(self.wav(riff, data, behind=pcm))
        with media.open_source(path) as source:
            assert source.seconds == 1
        np.testing.assert_allclose(contents(path)[0], SAMPLES, atol=2**-15)
        np.testing.assert_array_equal(
            audio.read(path, start=700, n_samples=90), contents(path)[0, 700:790]
        )
        (file,) = prepare_files([path], [tmp_path / "copy.wav"], n_jobs=1)
        assert (file.fault, file.n_samples) == ("", RATE)

    def test_rf64_is_read_alike(self, tmp_path):
        ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, 0, 0, 0)
        pcm = (SAMPLES * 2**15).astype("<i2").tobytes()
        unknown = 2**32 - 1
        (tmp_path / "a.wav").write_bytes(self.wav(unknown, unknown, b"RF64", ds64, pcm))
        np.testing.assert_allclose(
            contents(tmp_path / "a.wav")[0], SAMPLES, atol=2**-15
        )

    @pytest.mark.parametrize("n_bytes", [0, 16, 28, 36, 50])
    def test_a_header_that_ends_early_is_one_line(self, tmp_path, n_bytes):
        ds64 = b"ds64" + bytes(4)
        whole = self.wav(0, 0, b"RF64", ds64)
        (tmp_path / "a.wav").write_bytes(whole[:20] + whole[-8:] + bytes(n_bytes))
        (tmp_path / "b.wav").write_bytes(whole[:n_bytes])
        for name in ("a.wav", "b.wav"):
            with pytest.raises(InputError, match=f"{name} can't be read"):
                contents(tmp_path / name)

    def test_a_closed_file_without_samples_has_none(self, tmp_path):
        """What follows are no samples."""
        behind = b"LIST" + struct.pack("<I", 400) + b"INFO" + bytes(396)
        whole = self.wav(36 + len(behind), 0, behind=behind)
        (tmp_path / "a.wav").write_bytes(whole)
        with media.open_source(tmp_path / "a.wav") as source:
            assert list(source.blocks) == []

    @pytest.mark.parametrize("header", ["unknown", "without the upper bits"])
    def test_beyond_4_gib(self, tmp_path, header):
        n_bytes = 9 * GIB // 2  # nearly all of it a hole, which takes no space
        riff, data = 0xFFFFFFFF, 0xFFFFFFFF
        if header != "unknown":
            riff, data = (n_bytes + 36) % 2**32, n_bytes % 2**32
        path = tmp_path / "a.wav"
        path.write_bytes(self.wav(riff, data))
        with open(path, "r+b") as file:
            file.seek(44 + n_bytes - 2)
            file.write(struct.pack("<h", 2**14))
        with media.open_source(path, start=n_bytes // 2 - 3) as source:
            assert source.seconds == n_bytes / 2 / RATE
            assert np.concatenate(list(source.blocks), axis=1).tolist() == [[0, 0, 0.5]]

    def test_a_flac_of_unknown_length_is_read(self, tmp_path):
        """As it leaves a pipe: its header tells 0 samples."""
        soundfile.write(tmp_path / "a.flac", SAMPLES, RATE)
        content = bytearray((tmp_path / "a.flac").read_bytes())
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        (tmp_path / "a.flac").write_bytes(content)
        np.testing.assert_allclose(
            contents(tmp_path / "a.flac")[0], SAMPLES, atol=2**-15
        )
        files = prepare_files([tmp_path / "a.flac"], [tmp_path / "b"], n_jobs=1)
        assert (files[0].fault, files[0].source_samples) == ("", RATE)


class TestOtherAudio:
    """PyAV reads what libsndfile refuses."""

    @pytest.mark.parametrize(
        ("name", "codec", "form"),
        [
            ("a.m4a", "aac", None),
            ("a.mp3", "aac", "mp4"),  # another name than its content
            ("a.wav", "aac", "adts"),
            ("a.wma", "wmav2", "asf"),
            ("a.caf", "alac", "mov"),
            ("a.ts", "mp2", "mpegts"),
            ("a.mka", "libopus", "matroska"),
        ],
    )
    def test_it_is_known_by_its_content(self, tmp_path, name, codec, form):
        rate = 48000 if codec in ("mp2", "libopus") else RATE
        path = encode(tmp_path / name, codec, rate, form=form)
        with media.open_source(path) as source:
            samples = np.concatenate(list(source.blocks), axis=1)[0]
            assert (source.sample_rate, source.channels) == (rate, 1)
        assert len(samples) == pytest.approx(len(SAMPLES), abs=4000)  # codecs pad
        (file,) = prepare_files([path], [tmp_path / "copy.wav"], n_jobs=1)
        assert file.fault == ""
        assert file.source_rate == rate
        assert audio.find_audio(tmp_path, media.AUDIO | media.VIDEO)[0].name in (
            name,
            "copy.wav",
        )

    def test_a_part_is_that_part_of_the_whole(self, tmp_path):
        path = encode(tmp_path / "a.m4a", "aac")
        whole = contents(path)
        part = contents(path, start=3000, n_samples=5000)
        np.testing.assert_array_equal(part, whole[:, 3000:8000])

    @pytest.mark.parametrize(
        ("codec", "subtype"),
        [
            ("aac", "PCM_16"),
            ("pcm_s16le", "PCM_16"),
            ("pcm_s24le", "PCM_24"),
            ("pcm_f32le", "FLOAT"),
        ],
    )
    def test_samples_are_kept_as_finely(self, tmp_path, codec, subtype):
        with media.open_source(encode(tmp_path / "a.mka", codec)) as source:
            assert source.subtype == subtype

    @pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
    def test_sound_that_begins_late_stays_with_its_picture(self, tmp_path, name):
        path = encode(tmp_path / name, "mp2", 48000, delay=0.5)
        samples = contents(path)[0]
        begin = np.flatnonzero(np.abs(samples) > 0.05)[0] / 48000
        assert begin == pytest.approx(0.5, abs=0.03)  # MP2 itself lags

    def test_an_unknown_codec_is_one_line(self, tmp_path):
        path = encode(tmp_path / "a.mka", "pcm_s16le")
        path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
        with pytest.raises(InputError, match="a.mka can't be read .*codec"):
            contents(path)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.mp4", "ffconcat version 1.0\nfile other.ts\n"),
            ("a.m3u8", "#EXTM3U\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"),
        ],
    )
    def test_a_playlist_opens_no_other_file(self, tmp_path, name, content):
        encode(tmp_path / "other.ts", "mp2", 48000)
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=f"{name} can't be read"):
            contents(tmp_path / name)

    @pytest.mark.parametrize(
        ("name", "error"), [("a.m4a", InstallError), ("a.wav", InputError)]
    )
    def test_without_pyav_it_says_what_to_install(
        self, tmp_path, monkeypatch, name, error
    ):
        monkeypatch.setitem(sys.modules, "av", None)
        (tmp_path / name).write_text("no sound")
        with pytest.raises(error, match=r"speechbrain-cffma\[video") as caught:
            contents(tmp_path / name)
        assert f"{name} can't be read" in str(caught.value)


class TestSampleFormat:
    @pytest.mark.parametrize(
        ("form", "subtype", "name", "expected"),
        [
            ("WAV", "MPEG_LAYER_III", "b.wav", "PCM_16"),  # libsndfile reads it only
            ("WAV", "IMA_ADPCM", "b.wav", "PCM_16"),  # would grow to whole blocks
            ("WAV", "GSM610", "b.wav", "PCM_16"),
            ("WAV", "PCM_U8", "b.wav", "PCM_U8"),
            ("WAV", "ULAW", "b.au", "ULAW"),
            ("WAV", "PCM_32", "b.flac", "PCM_24"),
            ("WAV", "DOUBLE", "b.flac", "PCM_24"),
            ("WAV", "PCM_16", "b.mp3", "MPEG_LAYER_III"),
            ("WAV", "PCM_16", "b.opus", "OPUS"),
            ("OGG", "OPUS", "b.oga", "OPUS"),
            ("OGG", "VORBIS", "b.ogg", "VORBIS"),
            ("OGG", "VORBIS", "b.caf", "PCM_16"),
            ("CAF", "ALAC_24", "b.caf", "ALAC_24"),
            ("CAF", "ALAC_24", "b.wav", "PCM_24"),
            ("AU", "G721_32", "b.au", "PCM_16"),
            ("", "FLOAT", "b.w64", "FLOAT"),
        ],
    )
    @pytest.mark.parametrize("n_samples", [1, 5001])
    def test_the_target_keeps_what_it_can_and_the_length(
        self, tmp_path, form, subtype, name, expected, n_samples
    ):
        source = made_of(form=form, subtype=subtype)
        write(tmp_path / name, SAMPLES[:n_samples], source)
        info = soundfile.info(tmp_path / name)
        assert (info.subtype, info.frames) == (expected, n_samples)

    @pytest.mark.parametrize(
        ("name", "form", "subtype", "message"),
        [
            (
                "b.opus",
                {"sample_rate": 44100},
                None,
                "Opus supports 8, .* not 44.1: choos",
            ),
            (
                "b.mp3",
                {"sample_rate": 96000},
                None,
                "MP3 supports 8, .* 48 kHz, not 96: ",
            ),
            ("b.mp3", {"channels": 6}, None, "MP3 supports at most 2 channels, not 6"),
            (
                "b.flac",
                {"channels": 9},
                None,
                "FLAC supports at most 8 channels, not 9",
            ),
            ("b.wav", {}, "MPEG_LAYER_III", "WAV can't store MPEG_LAYER_III samples"),
            ("b.wav", {}, "NONE", "WAV can't store NONE samples"),
            ("b.aiff", {"seconds": 2e5}, None, "AIFF files end at 4 GiB: choose .wav"),
            ("b.m4a", {}, None, "its extension must be one of .aif, .aifc"),
        ],
    )
    def test_what_a_target_can_not_take_is_one_line(
        self, tmp_path, name, form, subtype, message
    ):
        with pytest.raises(InputError, match=f"{name} can't be written: .*{message}"):
            write(tmp_path / name, source=made_of(**form), subtype=subtype)
        assert list(tmp_path.iterdir()) == []


class TestSize:
    @pytest.mark.parametrize("seconds", [0.0, 1e6], ids=["unknown", "long"])
    def test_a_wav_beyond_4_gib_is_rf64(self, tmp_path, seconds):
        n_samples = 5 * GIB // 8
        with media.open_target(
            tmp_path / "a.wav", made_of(seconds=seconds, subtype="PCM_32")
        ) as target:
            target.write(SAMPLES[None])
            target.file.seek(n_samples // 2)  # a hole
            target.file.seek(2 * n_samples - RATE)
            target.write(SAMPLES[None])
        info = soundfile.info(tmp_path / "a.wav")
        assert (info.format, info.frames) == ("RF64", 2 * n_samples)
        with media.open_source(tmp_path / "a.wav", info.frames - RATE) as source:
            end = np.concatenate(list(source.blocks), axis=1)[0]
        np.testing.assert_allclose(end, SAMPLES, atol=1e-6)

    @pytest.mark.parametrize("seconds", [0.0, 1.0, 1e6])
    def test_what_fits_is_a_wav(self, tmp_path, seconds):
        write(tmp_path / "a.wav", source=made_of(seconds=seconds))
        assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"
        assert soundfile.info(tmp_path / "a.wav").frames == RATE


class TestTags:
    TAGS = {"title": "Straße", "artist": "A", "date": "2020", "tracknumber": "3"}

    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.caf"])
    def test_they_are_kept(self, tmp_path, name):
        source = made_of()._replace(tags=self.TAGS)
        write(tmp_path / name, source=source)
        with media.open_source(tmp_path / name) as written:
            assert written.tags == self.TAGS

    @pytest.mark.parametrize("name", ["a.mp3", "a.aiff"])
    def test_what_would_be_garbled_is_left_out(self, tmp_path, name):
        write(tmp_path / name, source=made_of()._replace(tags=self.TAGS))
        with media.open_source(tmp_path / name) as written:
            assert "title" not in written.tags
            assert written.tags["artist"] == "A"

    @pytest.mark.parametrize("name", ["a.au", "a.w64", "a.aiff", "a.wav"])
    def test_a_format_without_them_or_without_room_keeps_the_sound(
        self, tmp_path, name
    ):
        source = made_of()._replace(tags={"comment": "x" * 30000})
        write(tmp_path / name, source=source)
        assert soundfile.info(tmp_path / name).frames == RATE

    def test_pyav_reads_them_too(self, tmp_path):
        path = encode(tmp_path / "a.m4a", "aac", title="Straße", artist="A", track="3")
        with media.open_source(path) as source:
            expected = {"title": "Straße", "artist": "A", "tracknumber": "3"}
            assert source.tags == expected


class TestPipes:
    @pytest.fixture
    def pipe(self, tmp_path):
        """`pipe(content)` is a named pipe that a thread writes the content to."""
        threads = []

        def pipe(content):
            path = tmp_path / "pipe"
            os.mkfifo(path)
            thread = threading.Thread(target=path.write_bytes, args=[content])
            threads.append(thread)
            thread.start()
            return path

        yield pipe
        for thread in threads:
            thread.join()

    @pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
    def test_a_named_pipe_is_read(self, tmp_path, pipe, name):
        if name == "a.m4a":
            encode(tmp_path / name, "aac")
        else:
            write(tmp_path / name)
        expected = contents(tmp_path / name)
        piped = contents(pipe((tmp_path / name).read_bytes()))
        np.testing.assert_array_equal(piped, expected)

    def test_a_named_pipe_is_written(self, tmp_path):
        path, read = tmp_path / "pipe", []
        os.mkfifo(path)
        thread = threading.Thread(target=lambda: read.append(path.read_bytes()))
        thread.start()
        write(path)
        thread.join()
        samples, _ = soundfile.read(io.BytesIO(read[0]), dtype="float32")
        np.testing.assert_allclose(samples, SAMPLES, atol=2**-15)
        assert not path.is_file()

    def test_closed_standard_streams_are_one_line(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        monkeypatch.setattr(sys, "stdout", None)
        with pytest.raises(
            InputError, match="standard input can't be read: it is clos"
        ):
            contents("-")
        with pytest.raises(
            InputError, match="standard output can't be written: it is "
        ):
            write("-")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_a_full_device_is_one_line(self):
        with pytest.raises(
            InputError, match="/dev/full can't be written .No space left"
        ):
            write("/dev/full")


class TestFullDisk:
    @contextlib.contextmanager
    def limit(self, n_bytes):
        """No file grows longer: a write beyond fails as on a full disk."""
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.opus"])
    @pytest.mark.parametrize("share", [0.5, 1.0], ids=["halfway", "last byte"])
    def test_nothing_gets_the_final_name(self, tmp_path, name, share):
        """What compressed files end with is written when they are closed."""
        write(tmp_path / name)
        n_bytes = (tmp_path / name).stat().st_size
        (tmp_path / name).unlink()
        with (
            self.limit(int(share * n_bytes) - 1),
            pytest.raises(InputError, match=f"{name} can't be written .File too large"),
        ):
            write(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_a_prepared_copy_is_whole_or_not_there(self, tmp_path):
        with (
            self.limit(20000),
            pytest.raises(InputError, match="copy.wav can't be writ"),
        ):
            audio.write(tmp_path / "copy.wav", SAMPLES)
        assert list(tmp_path.iterdir()) == []

    def test_samples_that_do_not_arrive_are_missed(self, tmp_path):
        """Whatever the reason: the last one is looked for."""
        with (  # noqa: PT012 (what raises is the end of the inner block)
            pytest.raises(
                InputError, match="a.wav can't be written: its end is missing"
            ),
            media.open_target(tmp_path / "a.wav", made_of()) as target,
        ):
            target.write(SAMPLES[None])
            target.n_samples += 1
        assert list(tmp_path.iterdir()) == []
