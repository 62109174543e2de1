"""Several signals through a model together, as a GPU needs it.

Authors
 * The speechbrain-cffma developers 2026
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from speechbrain_cffma.inference.device import for_inference
from speechbrain_cffma.inference.mixin import InferenceMixin


class Together(InferenceMixin, torch.nn.Module):
    """An enhancer whose calls from several threads become one call of the model.

    Each thread enhances a signal of its own, window by window. When all of them wait for
    the model, their windows are padded to the longest and enhanced as one batch.

    Arguments
    ---------
    model : InferenceMixin
        The enhancer, packed and on its device. It must accept lengths.
    n_threads : int
        Number of signals that are enhanced at a time.

    Example
    -------
    >>> together = Together(getfixture("tiny_enhancer"), n_threads=2)
    >>> signals = [torch.randn(16000), torch.randn(12000)]
    >>> [len(enhanced) for enhanced in together.map(together.enhance, signals)]
    [16000, 12000]
    """

    def __init__(self, model, n_threads):
        super().__init__()
        self.model = model
        self.packed = model.packed
        self.n_threads = n_threads
        self.changed = threading.Condition()
        self.n_active, self.waiting = 0, []

    @property
    def spectrogram(self):
        """The model's spectrogram transform, which `InferenceMixin` needs."""
        return self.model.spectrogram

    def map(self, function, values):
        """Call a function for each value, in threads.

        Arguments
        ---------
        function : callable
            A function that enhances one signal with this object.
        values : iterable
            Its arguments.

        Returns
        -------
        list
            What it returns, in the order of the values.
        """
        values = list(values)
        results, left = [None] * len(values), iter(range(len(values)))
        # Counted before they start, so that none begins alone.
        self.n_active = min(self.n_threads, len(values))

        def work():
            try:
                while (index := self._next(left)) is not None:
                    results[index] = function(values[index])
            finally:
                with self.changed:
                    self.n_active -= 1
                    self._run_if_all_wait()

        with ThreadPoolExecutor(max(1, self.n_active)) as pool:
            for thread in [pool.submit(work) for _ in range(self.n_active)]:
                thread.result()
        return results

    def _next(self, left):
        with self.changed:
            return next(left, None)

    def forward(self, noisy, lengths=None, suppression=None):
        """Enhance waveforms [B, S]; see `CFFMAEnhancer`."""
        call = _Call(noisy, suppression)
        with self.changed:
            self.waiting.append(call)
            self._run_if_all_wait()
            self.changed.wait_for(lambda: call.result is not None)
        if isinstance(call.result, Exception):
            raise call.result
        return call.result

    def _run_if_all_wait(self):
        if self.waiting and len(self.waiting) == self.n_active:
            calls, self.waiting = self.waiting, []
            try:
                with for_inference(self.model):
                    results = self._run(calls)
            except Exception as error:  # All threads report it.
                results = [error] * len(calls)
            for call, result in zip(calls, results, strict=True):
                call.result = result
            self.changed.notify_all()

    def _run(self, calls):
        rows = [row for call in calls for row in call.noisy]
        n_samples = torch.tensor([len(row) for row in rows])
        noisy = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = (n_samples / noisy.shape[1]).to(noisy.device)
        enhanced, log_magnitude = self.model(noisy, lengths, calls[0].suppression)
        results, first = [], 0
        for call in calls:
            last = first + len(call.noisy)
            n = call.noisy.shape[1]
            n_frames = int(self.spectrogram.n_frames(torch.tensor(n)))
            results.append(
                (enhanced[first:last, :n], log_magnitude[first:last, :n_frames])
            )
            first = last
        return results


class _Call:
    def __init__(self, noisy, suppression):
        self.noisy, self.suppression = noisy, suppression
        self.result = None
