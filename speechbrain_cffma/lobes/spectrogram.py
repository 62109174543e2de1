"""Log-magnitude spectrogram and its inverse.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import (
    Count,
    frame_mask,
    n_valid_samples,
    never_compiled,
    statistics_dtype,
    without_autocast,
    zero_padding,
)
from speechbrain_cffma.registry import lobe


@lobe
class LogSpectrogram(nn.Module):
    """Short-time Fourier transform to log1p magnitude and phase, and back.

    Periodic Hamming window, centred frames, reflect padding. With X the STFT:
    `magnitude = |X| + eps`, `phase = X / magnitude`, `log_magnitude = log1p(magnitude)`;
    inverse: `X = (expm1(log_magnitude) - eps) * phase`. The transform computes in
    float32, or in float64 for float64 inputs.

    With `lengths`, padding does not change an utterance's result: the transform reflects
    the utterance's own end, and the inverse divides by the windows of its valid frames.

    Arguments
    ---------
    n_fft : int
        Size of the Fourier transform; there are F = n_fft // 2 + 1 frequencies.
    hop_length : int
        Samples between two frames.
    win_length : int
        Samples in a window.

    Raises
    ------
    InputError
        Unless 1 <= hop_length <= win_length <= n_fft.

    Example
    -------
    >>> spectrogram = LogSpectrogram()
    >>> wav = torch.randn(2, 16000)
    >>> log_magnitude, phase = spectrogram(wav)
    >>> log_magnitude.shape, phase.dtype
    (torch.Size([2, 101, 201]), torch.complex64)
    >>> restored = spectrogram.inverse(log_magnitude, phase, length=16000)
    >>> torch.allclose(restored, wav, atol=1e-5)
    True
    """

    #: Keeps the phase finite where X is zero (as in the published code).
    eps = 1e-6

    def __init__(self, n_fft=400, hop_length=160, win_length=400):
        super().__init__()
        if not 1 <= hop_length <= win_length <= n_fft:
            raise InputError(
                "LogSpectrogram needs hop_length <= win_length <= n_fft, not "
                f"{hop_length}, {win_length} and {n_fft}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        # The arguments determine the window, so it is not saved with the weights.
        window = torch.empty(win_length)
        if not window.is_meta:  # which has no values
            window = torch.hamming_window(win_length)
        self.register_buffer("window", window, persistent=False)

    def _window(self, dtype):
        """The window as `dtype`."""
        if dtype == self.window.dtype:
            return self.window
        return torch.hamming_window(
            self.win_length, dtype=dtype, device=self.window.device
        )

    def _apply(self, *args, **kwargs):
        """Move the window to the module's device, but keep it in float32."""
        super()._apply(*args, **kwargs)
        self.window = torch.hamming_window(self.win_length, device=self.window.device)
        return self

    def n_frames(self, n_samples: Count) -> Count:
        """Number of frames T for a number of samples.

        Arguments
        ---------
        n_samples : int or torch.Tensor
            Number of samples S.

        Returns
        -------
        int or torch.Tensor
            1 + S // hop_length
        """
        return 1 + n_samples // self.hop_length

    # Compiling makes transforms no faster, and would compile the inverse for each length.
    @never_compiled
    def forward(
        self, wav: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Transform waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        log_magnitude : torch.Tensor
            log1p magnitude [B, T, F].
        phase : torch.Tensor
            Complex numbers of magnitude 1 (0 where X is 0) [B, T, F]. Padded frames hold
            no meaningful value.

        Raises
        ------
        InputError
            If the waveform is too short for the reflect padding.
        """
        if wav.shape[-1] <= self.n_fft // 2:
            raise InputError(
                f"a waveform of {wav.shape[-1]} samples is too short for an STFT "
                f"with n_fft={self.n_fft}: it needs more than {self.n_fft // 2}"
            )
        with without_autocast(wav):
            wav = wav.to(statistics_dtype(wav.dtype))
            n_frames = self.n_frames(wav.shape[1])
            if lengths is not None:
                wav = self._reflect_ends(wav, lengths)
            spectrum = torch.stft(
                wav,
                self.n_fft,
                self.hop_length,
                self.win_length,
                self._window(wav.dtype),
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )[..., :n_frames].transpose(1, 2)  # [B, F, T] -> [B, T, F]
            magnitude = spectrum.abs() + self.eps
            return torch.log1p(magnitude), spectrum / magnitude

    def _reflect_ends(self, wav, lengths):
        """Append its reflection to each utterance: [B, S + n_fft / 2]."""
        wav = F.pad(wav, (0, self.n_fft // 2))
        last = n_valid_samples(lengths, wav.shape[1] - self.n_fft // 2)
        last = last.unsqueeze(1) - 1  # [B, 1]
        place = torch.arange(wav.shape[1], device=wav.device)
        reflected = wav.gather(1, (last - (place - last).abs()).clamp(min=0))
        return reflected.masked_fill(place > last + self.n_fft // 2, 0.0)

    @never_compiled
    def inverse(
        self,
        log_magnitude: Tensor,
        phase: Tensor,
        length: int,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Transform spectrograms back to waveforms.

        Arguments
        ---------
        log_magnitude : torch.Tensor
            log1p magnitude [B, T, F].
        phase : torch.Tensor
            Complex phase [B, T, F], as `forward` returns it.
        length : int
            Number of samples S to return.
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Waveforms [B, S], 0 in the padding and where no frame reaches.
        """
        dtype = statistics_dtype(log_magnitude.dtype)
        with without_autocast(log_magnitude):
            magnitude = torch.expm1(log_magnitude.to(dtype)) - self.eps
            window = self._window(dtype)
            side = (self.n_fft - self.win_length) // 2
            window = F.pad(window, (side, self.n_fft - self.win_length - side))
            squares = window.square().expand(1, magnitude.shape[1], -1)
            if lengths is not None:
                n_valid = n_valid_samples(lengths, length)
                n_frames = magnitude.shape[1]
                mask = frame_mask(self.n_frames(n_valid) / n_frames, n_frames)
                magnitude = zero_padding(magnitude, mask)
                squares = mask * squares  # [B, T, n_fft]
            # Views, so that the gradient has the memory order [B, F, T] as in
            # `torch.istft`: another order rounds differently.
            spectrum = torch.view_as_real((magnitude * phase).mT)
            spectrum = torch.view_as_complex(spectrum).mT
            frames = torch.fft.irfft(spectrum, self.n_fft) * window
            wav = self._overlap_add(frames, length)
            # The clamp gives 0 where no window reaches, if `length` exceeds the frames.
            wav = wav / self._overlap_add(squares, length).clamp(min=1e-11)
            if lengths is None:
                return wav
            padded = torch.arange(length, device=wav.device) >= n_valid.unsqueeze(1)
            return wav.masked_fill(padded, 0.0)

    def _overlap_add(self, frames, length):
        """Overlap-add frames [B, T, n_fft] to waveforms [B, S].

        `torch.istft` would check on the device that the windows cover each sample, and
        so wait for the GPU.
        """
        n_samples = (frames.shape[1] - 1) * self.hop_length + self.n_fft
        wav = torch.ops.aten.unfold_backward(
            frames, (len(frames), n_samples), 1, self.n_fft, self.hop_length
        )[:, self.n_fft // 2 :][:, :length]
        return F.pad(wav, (0, length - wav.shape[1]))
