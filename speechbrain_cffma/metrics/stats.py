"""Metrics for SpeechBrain's recipes.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import torch
from speechbrain.utils.metric_stats import MetricStats

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metrics.scoring import METRICS
from speechbrain_cffma.metrics.signals import MetricError


class EnhancementStats(MetricStats):
    """Collects the scores of one metric over a stage, and the utterances without a score.

    In a recipe's YAML, `!name:` makes a new object for each stage:

        pesq_stats: !name:speechbrain_cffma.metrics.stats.EnhancementStats
            metric: pesq

    Arguments
    ---------
    metric : str or callable
        A name in `METRICS`, or a function of clean and enhanced samples [S] and the
        sample rate. The function returns a float, or raises a `MetricError` if there is
        no score.
    sample_rate : int
        In Hz.
    **options : dict
        Further arguments of the metric, such as the scale of `csig`.

    Example
    -------
    >>> clean = getfixture("speech").repeat(2, 1)
    >>> noisy = clean + 0.01 * torch.randn_like(clean)
    >>> noisy[1] = 0
    >>> stats = EnhancementStats("si_sdr")
    >>> stats.append(["a", "b"], predict=noisy, target=clean)
    >>> summary = stats.summarize()
    >>> summary["n_scored"], summary["n_failed"], summary["failed"]
    (1, 1, [('b', 'SI-SDR: the signal is silent')])
    >>> summary["average"] == stats.summarize("average") == summary["max_score"]
    True
    """

    def __init__(self, metric, sample_rate=SAMPLE_RATE, **options):
        if not callable(metric) and metric not in METRICS:
            raise ValueError(
                f"there is no metric {metric!r}: choose one of {', '.join(METRICS)}"
            )
        # With n_jobs > 1, SpeechBrain repeats a failing batch for ever.
        super().__init__(METRICS.get(metric, metric), n_jobs=1, batch_eval=False)
        self.sample_rate = sample_rate
        self.options = options

    def clear(self):
        """Forget all scores and failures."""
        super().clear()
        self.failed = []

    def append(self, ids, predict, target, lengths=None):
        """Score a batch.

        Arguments
        ---------
        ids : list of str
            The ID of each utterance.
        predict : torch.Tensor
            Enhanced waveforms [B, S], or a list of [S].
        target : torch.Tensor
            Clean waveforms [B, S], or a list of [S].
        lengths : torch.Tensor
            Relative lengths [B]; None if there is no padding.
        """
        lengths = [1.0] * len(ids) if lengths is None else lengths.tolist()
        batch = list(zip(ids, predict, target, lengths, strict=True))
        self.summary = {}
        for utterance, enhanced, clean, length in batch:
            try:
                value = self._score(_unpad(clean, length), _unpad(enhanced, length))
            except MetricError as error:
                self.failed.append((utterance, str(error)))
            else:
                self.ids.append(utterance)
                self.scores.append(value)

    def summarize(self, field=None):
        """Summarise the scores; utterances without a score are counted and left out.

        Arguments
        ---------
        field : str
            The statistic to return; all by default.

        Returns
        -------
        float or dict
            average, min_score, min_id, max_score and max_id (NaN or None if there is no
            score), n_scored, n_failed, and failed: a list of (id, reason).
        """
        if self.scores:
            self.summary = dict(super().summarize())
            self.summary["average"] = math.fsum(self.scores) / len(self.scores)
        else:
            self.summary = {
                "average": math.nan,
                "min_score": math.nan,
                "min_id": None,
                "max_score": math.nan,
                "max_id": None,
            }
        self.summary |= {
            "n_scored": len(self.scores),
            "n_failed": len(self.failed),
            "failed": list(self.failed),
        }
        return self.summary if field is None else self.summary[field]

    def write_stats(self, filestream, verbose=False):
        """Write the summary, and a line for each utterance without a score.

        Arguments
        ---------
        filestream : file-like object
            Where to write.
        verbose : bool
            Whether to print it as well.
        """
        summary = self.summarize()
        lines = [
            f"Average score: {summary['average']}",
            f"Min score: {summary['min_score']} id: {summary['min_id']}",
            f"Max score: {summary['max_score']} id: {summary['max_id']}",
            f"Scored: {summary['n_scored']}, failed: {summary['n_failed']}",
            *(f"{utterance}: {reason}" for utterance, reason in self.failed),
        ]
        message = "\n".join(lines) + "\n"
        filestream.write(message)
        if verbose:
            print(message, end="")

    def _score(self, clean, enhanced):
        value = self.metric(clean, enhanced, self.sample_rate, **self.options)
        if not math.isfinite(value):
            raise MetricError(f"the score is {value}")
        return float(value)


def _unpad(wav, length):
    """A waveform [S] without its padding, as a float array."""
    wav = torch.as_tensor(wav)[: round(length * len(wav))]
    return wav.detach().float().cpu().numpy()
