"""Log-magnitude spectrogram and its inverse.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import nn

from speechbrain_cffma.errors import InputError


class LogSpectrogram(nn.Module):
    """Short-time Fourier transform to log1p magnitude and phase, and back.

    Periodic Hamming window, centred frames, reflect padding. With X the STFT:
    `magnitude = |X| + eps`, `phase = X / magnitude`, `log_magnitude = log1p(magnitude)`;
    inverse `X = (expm1(log_magnitude) - eps) * phase`. Always computed in float32.

    Arguments
    ---------
    n_fft : int
        Size of the Fourier transform; it gives n_fft // 2 + 1 frequencies F.
    hop_length : int
        Samples between two frames.
    win_length : int
        Samples in a window.

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

    #: Keeps the phase finite where the spectrum is zero (as in the published code).
    eps = 1e-6

    def __init__(self, n_fft=400, hop_length=160, win_length=400):
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        # Not part of the weights: it follows from the arguments.
        self.register_buffer(
            "window", torch.hamming_window(win_length), persistent=False
        )

    def _apply(self, *args, **kwargs):
        """Move the window with the module, but never to another precision."""
        super()._apply(*args, **kwargs)
        self.window = torch.hamming_window(self.win_length, device=self.window.device)
        return self

    def n_frames(self, n_samples):
        """Number of frames T that `n_samples` samples give.

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

    # Compiled, transforms gain nothing, and the inverse would be compiled for each length.
    @torch.compiler.disable
    def forward(self, wav):
        """Transform waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S].

        Returns
        -------
        log_magnitude : torch.Tensor
            log1p magnitude [B, T, F].
        phase : torch.Tensor
            Complex numbers of magnitude 1 (0 where the spectrum is 0) [B, T, F].

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
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                wav.float(),
                self.n_fft,
                self.hop_length,
                self.win_length,
                self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            ).transpose(1, 2)  # [B, F, T] -> [B, T, F]
            magnitude = spectrum.abs() + self.eps
            return torch.log1p(magnitude), spectrum / magnitude

    @torch.compiler.disable
    def inverse(self, log_magnitude, phase, length):
        """Transform back.

        Arguments
        ---------
        log_magnitude : torch.Tensor
            log1p magnitude [B, T, F].
        phase : torch.Tensor
            Complex phase [B, T, F], as `forward` returns it.
        length : int
            Number of samples S to return.

        Returns
        -------
        torch.Tensor
            Waveforms [B, S].
        """
        with torch.autocast(log_magnitude.device.type, enabled=False):
            magnitude = torch.expm1(log_magnitude.float()) - self.eps
            return torch.istft(
                (magnitude * phase).transpose(1, 2),
                self.n_fft,
                self.hop_length,
                self.win_length,
                self.window,
                center=True,
                length=length,
            )
