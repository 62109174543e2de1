"""Enhance a recording with onnxruntime, without torch.

    pip install numpy soundfile onnxruntime
    python enhance_onnx.py model.onnx noisy.wav enhanced.wav

`cffma export` writes the model. Recordings may have any length and number of channels,
but must have the model's sample rate; `cffma enhance` accepts other rates.

Authors
 * The speechbrain-cffma developers 2026
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

#: Long recordings are cut into windows. In seconds: distance of the windows, length of
#: the cross-fade, context before and after the used part, and minimum length of the last
#: window.
HOP, FADE, MARGIN, SHORTEST = 14, 1, 0.5, 4


class Enhancer:
    """A model and its transforms. Waveforms are [channels, samples], float32."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path)
        self.refines = self.session.get_outputs()[0].name == "spectrum"
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.sample_rate = int(metadata["sample_rate"])
        self.min_samples = int(metadata["min_samples"])
        self.n_fft = int(metadata["n_fft"])
        self.hop_length = int(metadata["hop_length"])
        self.eps = float(metadata["eps"])
        self.level = float(metadata["level"]) if "level" in metadata else None
        self.suppression = float(metadata.get("suppression", "inf"))
        win_length = int(metadata["win_length"])
        phase = 2 * np.pi * np.arange(win_length) / win_length
        before = (self.n_fft - win_length) // 2
        around = (before, self.n_fft - win_length - before)
        self.window = np.pad(0.54 - 0.46 * np.cos(phase), around)  # Hamming

    def enhance(self, noisy):
        """Enhance a recording of any length."""
        n_samples = noisy.shape[1]
        hop, fade, margin, shortest = (
            int(s * self.sample_rate) for s in (HOP, FADE, MARGIN, SHORTEST)
        )
        fade_in = np.sin(np.linspace(0, np.pi / 2, fade + 2)[1:-1]) ** 2
        enhanced = np.zeros_like(noisy)
        for used in range(0, max(1, n_samples - fade - margin), hop):
            begin = max(0, used - margin)
            end = used + hop + fade + margin
            if end >= n_samples:
                begin = min(begin, max(0, n_samples - shortest))
                begin = begin // 320 * 320  # where a frame of the SSL model begins
            part = self.enhance_window(noisy[:, begin:end])[:, used - begin :]
            if used:
                part[:, :fade] *= fade_in
                part[:, :fade] += enhanced[:, used : used + fade] * (1 - fade_in)
            enhanced[:, used:end] = part
        return enhanced

    def enhance_window(self, noisy):
        """Apply the mask to the log magnitude and keep the phase; with a refiner, use its
        spectrum."""
        n_samples = noisy.shape[1]
        missing = max(0, self.min_samples - n_samples)
        noisy = np.pad(noisy, ((0, 0), (0, missing)))
        gain = np.float32(1)
        if self.level is not None:
            rms = np.sqrt(np.mean(noisy**2, axis=1, keepdims=True))
            gain = np.float32(10 ** (self.level / 20)) / np.maximum(rms, 1e-5)
        noisy = gain * noisy
        spectrum = self.stft(noisy)
        magnitude = np.abs(spectrum) + self.eps
        log_magnitude = np.log1p(magnitude).astype(np.float32)
        phase = spectrum / magnitude
        inputs = {"noisy": noisy, "log_magnitude": log_magnitude}
        if self.refines:
            parts = np.stack([phase.real, phase.imag], axis=3).astype(np.float32)
            (parts,) = self.session.run(["spectrum"], {**inputs, "phase": parts})
            refined = parts[..., 0] + 1j * parts[..., 1]
            enhanced = np.abs(refined) + self.eps
            phase = refined / enhanced
        else:
            (mask,) = self.session.run(["mask"], inputs)
            enhanced = np.expm1(mask * log_magnitude)
        floor = 10 ** (-self.suppression / 20) * magnitude
        enhanced = np.maximum(enhanced, floor) - self.eps
        return self.istft(enhanced * phase, n_samples) / gain

    def stft(self, wav):
        """Centred frames [channels, frames, freqs]."""
        half = self.n_fft // 2
        padded = np.pad(wav, ((0, 0), (half, half)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft, axis=1)
        return np.fft.rfft(frames[:, :: self.hop_length] * self.window)

    def istft(self, spectrum, n_samples):
        """Overlap-add, divided by the sum of the squared windows."""
        frames = np.fft.irfft(spectrum, self.n_fft) * self.window
        n_channels, n_frames, _ = frames.shape
        total = self.n_fft + self.hop_length * (n_frames - 1)
        wav, weight = np.zeros((n_channels, total)), np.zeros(total)
        for t in range(n_frames):
            place = slice(t * self.hop_length, t * self.hop_length + self.n_fft)
            wav[:, place] += frames[:, t]
            weight[place] += self.window**2
        middle = slice(self.n_fft // 2, self.n_fft // 2 + n_samples)
        return (wav[:, middle] / weight[middle]).astype(np.float32)


def main(model, source, target):
    """Enhance a file; sample rate, channels, levels and sample format are kept."""
    try:
        enhancer = Enhancer(model)
    except Exception as error:  # onnxruntime's errors have no common class
        sys.exit(f"error: {model} is not a model from cffma export [{error}]")
    subtype = soundfile.info(source).subtype
    noisy, sample_rate = soundfile.read(source, dtype="float32", always_2d=True)
    if sample_rate != enhancer.sample_rate:
        sys.exit(
            f"error: {source} is at {sample_rate} Hz and the model at {enhancer.sample_rate}: "
            f"convert it, for example: ffmpeg -i {source} -ar {enhancer.sample_rate} new.wav"
        )
    if not len(noisy) or not np.isfinite(noisy).all():
        sys.exit(f"error: {source} has no samples, or samples that are not finite")
    is_plain = subtype.startswith(("PCM", "FLOAT", "DOUBLE"))
    if not is_plain or not soundfile.check_format(Path(target).suffix[1:], subtype):
        subtype = None  # the default of the target's format
    soundfile.write(target, enhancer.enhance(noisy.T).T, sample_rate, subtype)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python enhance_onnx.py model.onnx noisy.wav enhanced.wav")
    try:
        main(*sys.argv[1:])
    except soundfile.LibsndfileError as error:
        sys.exit(f"error: {error}")
