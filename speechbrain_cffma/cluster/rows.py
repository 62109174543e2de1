"""Enhance rows of a data set; this is the callable that Ray Data runs in its workers.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import os
import shutil
import tempfile
import warnings
from pathlib import Path, PurePosixPath

from speechbrain_cffma import media
from speechbrain_cffma.cluster import storage
from speechbrain_cffma.errors import CFFMAError, InputError, why_failed
from speechbrain_cffma.inference.limiter import PeakWarning

#: Options of `InferenceMixin.enhance_stream` and `enhance_file` that `Enhance` passes on.
OPTIONS = {"suppression", "high_band", "batch_size", "subtype"}


class Enhance:
    """Enhances the audio of rows: `ds.map_batches(Enhance(), concurrency=4)`.

    It holds the model's files and the options, and travels to the workers through Ray's
    object store. A worker loads and packs the model once. A row that fails gets its
    reason; the others go on.

    Arguments
    ---------
    model : str or Path
        "default", a model folder, or an id on the hub, which is downloaded here.
    device : str
        Device in the workers, such as "cpu" or "cuda". "auto" is resolved where the
        object is made: "cuda" if there is a GPU.
    precision : str
        "fp32", "bf16", or "auto", which is resolved where the object is made.
    column : str
        The column of audio. A row holds an encoded file (bytes), a path or `s3://` URI
        (str), `{"bytes": ..., "path": ...}` as in Hugging Face data sets, or
        `{"array": ..., "sampling_rate": ...}`.
    output_column : str
        The column of enhanced audio: of the same form, but bytes for a path, and None
        for a row that failed.
    max_row_mb : float
        Rows that are larger fail.
    rows_together : int or None
        Number of rows of a batch whose windows go through the model together; None for 1
        on the CPU, where it makes nothing faster, and 8 on other devices.
    **options
        `suppression`, `high_band` and `batch_size` of `InferenceMixin.enhance_stream`,
        and `subtype` of `InferenceMixin.enhance_file`.

    Raises
    ------
    InputError
        If the model is not found.
    TypeError
        If there is no such option.

    Example
    -------
    >>> enhance = Enhance(precision="fp32", suppression=20)
    >>> row = {"array": getfixture("speech").numpy(), "sampling_rate": 16000}
    >>> rows = enhance({"audio": [row, b"no audio"]})
    >>> rows["enhanced"][0]["array"].shape == row["array"].shape
    True
    >>> [failure[:19] for failure in rows["failure"]]
    ['', "audio can't be read"]
    """

    def __init__(
        self,
        model="default",
        *,
        device="auto",
        precision="auto",
        column="audio",
        output_column="enhanced",
        max_row_mb=512,
        rows_together=None,
        **options,
    ):
        if "auto" in (device, precision):
            from speechbrain_cffma.inference.device import (
                device_named,
                native_precision,
            )

            device = device_named(device)
            if precision == "auto":
                precision = native_precision(device)
        self.device, self.precision = str(device), precision
        if rows_together is None:
            rows_together = 1 if self.device == "cpu" else 8
        self.rows_together = rows_together
        self.files = _files_of(model)
        self.column, self.output_column = column, output_column
        self.max_bytes = int(max_row_mb * 1e6)
        if unknown := options.keys() - OPTIONS:
            raise TypeError(f"Enhance has no option {', '.join(sorted(unknown))}")
        self.options = {k: v for k, v in options.items() if v is not None}

    def load(self):
        """Load the model.

        Returns
        -------
        CFFMAEnhancer
            The packed model, the same one at each call in a process.
        """
        how = self.device, self.precision, self.rows_together
        return _load(self.files, *how)

    def file(self, source, target):
        """Enhance a file as `cffma enhance` does on one machine.

        Arguments
        ---------
        source, target : str
            Paths or URIs.

        Returns
        -------
        enhanced : None
            In the target.
        seconds : float
            Length of the enhanced file.
        turned_down : float
            By how many dB its highest peak was turned down.

        Raises
        ------
        CFFMAError
            If it fails.
        """
        if not (storage.is_remote(source) or storage.is_remote(target)):
            return None, *self._local_file(source, target)
        with (
            storage.local_copy(source) as noisy,
            tempfile.TemporaryDirectory() as folder,
        ):
            enhanced = Path(folder, "enhanced").with_suffix(
                PurePosixPath(target).suffix
            )
            try:
                outcome = self._local_file(noisy, enhanced)
            except CFFMAError as error:
                text = str(error).replace(str(noisy), source)
                raise type(error)(text.replace(str(enhanced), target)) from error
            with storage.whole(target) as partial:
                shutil.move(enhanced, partial)
        return None, *outcome

    def content(self, content, name="audio", n_bytes=None):
        """Enhance a file that is held in memory.

        Arguments
        ---------
        content : bytes
            An audio file, or a video.
        name : str
            Its name, for messages. Its extension gives the format of the output;
            without one, the content does.
        n_bytes : int or None
            Its size, if the content was too large to be read.

        Returns
        -------
        enhanced : (bytes, str)
            The enhanced file and its extension. Formats that can't be written become
            ".wav".
        seconds, turned_down : float
            See `file`.

        Raises
        ------
        CFFMAError
            If it fails.
        """
        self._check_size(n_bytes or len(content), name)
        with tempfile.TemporaryDirectory() as folder:
            noisy = Path(folder, "noisy").with_suffix(PurePosixPath(name).suffix)
            noisy.write_bytes(content)
            try:
                suffix = noisy.suffix or _suffix_of(noisy)
                suffix = suffix if suffix.lower() in media.CONTAINERS else ".wav"
                enhanced = Path(folder, "enhanced").with_suffix(suffix)
                outcome = self._local_file(noisy, enhanced)
            except CFFMAError as error:
                text = str(error).replace(str(noisy), name)
                text = text.replace(str(Path(folder, "enhanced")), name)
                raise type(error)(text) from error
            return (enhanced.read_bytes(), suffix), *outcome

    def value(self, value, name="audio"):
        """Enhance the value of a row.

        Arguments
        ---------
        value : bytes or str or dict
            One of the forms of `column`.
        name : str
            The row's name, for messages.

        Returns
        -------
        enhanced : bytes or dict
            The enhanced audio.
        seconds, turned_down : float
            See `file`.

        Raises
        ------
        CFFMAError
            If it fails.
        """
        if isinstance(value, str):
            with storage.local_copy(value) as path:
                self._check_size(_size(path, value), value)
                content = path.read_bytes()
            (enhanced, _), *outcome = self.content(content, value)
            return enhanced, *outcome
        if isinstance(value, bytes):
            (enhanced, _), *outcome = self.content(value, name)
            return enhanced, *outcome
        value = value if isinstance(value, dict) else {}
        if value.get("array") is not None:
            return self._samples(value, name)
        if value.get("bytes") is not None:
            path = value.get("path")
            (enhanced, suffix), *outcome = self.content(value["bytes"], path or name)
            if path:
                path = str(PurePosixPath(path).with_suffix(suffix))
            return {**value, "bytes": enhanced, "path": path}, *outcome
        if value.get("path"):
            enhanced, *outcome = self.value(value["path"])
            return {**value, "bytes": enhanced}, *outcome
        raise InputError(
            f"{name} is no audio: it must be bytes, a path, {{bytes, path}} or "
            "{array, sampling_rate}"
        )

    def outcome(self, enhance, name):
        """Call a function and turn a failure into its reason.

        Arguments
        ---------
        enhance : callable
            Returns the enhanced audio, seconds and turned_down, or raises.
        name : str
            Name of the row, for messages of other packages.

        Returns
        -------
        enhanced : object
            What the function returns first; None if it failed.
        seconds, turned_down : float
            See `file`; 0 if it failed.
        failure : str
            The reason; "" if it succeeded.
        """
        try:
            return *enhance(), ""
        except Exception as error:  # The other rows go on.
            return None, 0.0, 0.0, why_failed(error, name)

    def __call__(self, batch):
        """Enhance a batch of rows.

        Arguments
        ---------
        batch : dict
            Columns, each a sequence of the rows' values.

        Returns
        -------
        dict
            The columns, with four more: the enhanced audio; `seconds`; `turned_down`,
            by how many dB the highest peak was turned down; and `failure`, the reason,
            or "".
        """
        import numpy as np

        self.load()  # A model that can't be loaded is no failure of a row.

        def enhanced_row(value):
            return self.outcome(functools.partial(self.value, value), "audio")

        if self.column not in batch:
            raise InputError(
                f"there is no column {self.column!r} among {', '.join(batch)}: pass column="
            )
        values = batch[self.column]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PeakWarning)  # they are in `turned_down`
            if self.rows_together == 1:
                rows = list(map(enhanced_row, values))
            else:
                rows = self.load().map(enhanced_row, values)
        enhanced = np.empty(len(rows), dtype=object)
        enhanced[:] = [row[0] for row in rows]
        seconds, turned_down = (
            np.array([row[i] for row in rows], dtype="float64") for i in (1, 2)
        )
        failures = np.array([row[3] for row in rows], dtype=object)
        return {
            **batch,
            self.output_column: enhanced,
            "seconds": seconds,
            "turned_down": turned_down,
            "failure": failures,
        }

    def _local_file(self, source, target):
        written = []
        subtype = self.options.get("subtype")
        options = {k: v for k, v in self.options.items() if k != "subtype"}
        turned_down = self.load().enhance_file(
            source, target, subtype, progress=written.append, **options
        )
        return sum(written), turned_down

    def _samples(self, value, name):
        import numpy as np

        rate = value.get("sampling_rate")
        if rate is None:
            raise InputError(f"{name} has an array, but no sampling_rate")
        samples = np.asarray(value["array"])
        self._check_size(samples.nbytes, name)
        if samples.dtype == object:  # channels, as Parquet holds them
            samples = np.stack(list(samples))
        options = {k: v for k, v in self.options.items() if k != "subtype"}
        try:
            enhanced = self.load().enhance(samples, rate, **options)
        except CFFMAError as error:
            raise type(error)(f"{name}: {error}") from error
        return {**value, "array": enhanced}, samples.shape[-1] / rate, 0.0

    def _check_size(self, n_bytes, name):
        if n_bytes > self.max_bytes:
            raise InputError(
                f"{name} has {n_bytes / 1e6:.0f} MB, more than --max-row-mb "
                f"allows ({self.max_bytes / 1e6:.0f})"
            )


def _size(path, name):
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise InputError(f"{name} can't be read ({error.strerror})") from error


def _suffix_of(path):
    """The extension of a file by its content."""
    with media.open_source(path) as source:
        if source.subtype == "OPUS":
            return ".opus"
        containers = media.CONTAINERS.items()
        return next((s for s, c in containers if c == source.format), ".wav")


def _files_of(model):
    """The files of a model by name; None for the bundled one, which each node has."""
    from speechbrain_cffma.hub import folder as hub

    if model == hub.DEFAULT_MODEL:
        return None
    folder = hub.folder_of(model)
    return tuple(
        (name, (folder / name).read_bytes())
        for name in (hub.CONFIG_FILE, hub.WEIGHTS_FILE, hub.CARD_FILE)
        if (folder / name).is_file()
    )


@functools.lru_cache(maxsize=1)
def _load(files, device, precision, rows_together):
    from speechbrain_cffma.inference.device import device_named
    from speechbrain_cffma.lobes import CFFMAEnhancer

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files or ():
            Path(folder, name).write_bytes(content)
        enhancer = CFFMAEnhancer.from_pretrained(folder if files else "default")
    enhancer = enhancer.to(device_named(device)).pack(precision)
    if rows_together == 1:
        return enhancer
    from speechbrain_cffma.inference.together import Together

    return Together(enhancer, rows_together).eval()
