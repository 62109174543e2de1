"""The work of a job in blocks: files of a folder, a shard, or a row group of Parquet.

A block is what a worker takes at a time. Its rows are enhanced one after the other, and
its results become one part of the job's results.

Authors
 * The speechbrain-cffma developers 2026
"""

import hashlib
import io
import os
import tarfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from speechbrain_cffma import media
from speechbrain_cffma.cluster import storage
from speechbrain_cffma.errors import InputError, why_failed
from speechbrain_cffma.inference.enhance import find_audio_in

SHARD, TABLE = ".tar", ".parquet"
#: The first bytes of a compressed file.
GZIP = b"\x1f\x8b"
#: Folder of the results in the output. Readers of Parquet skip names with an underscore.
RESULTS = "_results"
#: Files per block.
FILES = 64
#: Bytes of rows that are collected before they are written to Parquet.
ROW_GROUP_BYTES = 64 << 20


class Result(NamedTuple):
    """What became of a row.

    Arguments
    ---------
    path : str
        Its file; "SHARD:MEMBER" in a shard, "TABLE:ROW" in a Parquet file.
    seconds : float
        Length of the audio; 0 if it failed or was skipped.
    status : str
        "enhanced", "failed", or "skipped" if its output was there already.
    reason : str
        Why it failed; "" otherwise.
    turned_down : float
        By how many dB the highest peak was turned down.
    """

    path: str
    seconds: float = 0.0
    status: str = "enhanced"
    reason: str = ""
    turned_down: float = 0.0


def _result(path, outcome):
    """The result of a row, from what `Enhance.outcome` returns."""
    _, seconds, turned_down, failure = outcome
    status = "failed" if failure else "enhanced"
    return Result(path, seconds, status, failure, turned_down)


def _outcome(enhance, call, name, killed):
    """The outcome of a row, unless it has killed workers for a reason `killed`."""
    return (None, 0.0, 0.0, killed) if killed else enhance.outcome(call, name)


def _is_newer(target, source):
    """Whether an output exists and is newer than its source."""
    written = storage.changed(target)
    read = storage.changed(source) if written is not None else None
    return read is not None and written >= read


class Files(NamedTuple):
    """Audio files, each with an output of its own.

    Arguments
    ---------
    rows : tuple of (str, str)
        Sources and targets.
    overwrite : bool
        Whether to enhance files again whose output is newer.
    """

    rows: tuple
    overwrite: bool = False
    #: What is enhanced stays, if the worker dies.
    keeps_rows = True

    @property
    def id(self):
        """A name that is the same for the same files."""
        return _digest(*(source for source, _ in self.rows))

    @property
    def name(self):
        """Its name in messages."""
        return self.rows[0][0]

    @property
    def targets(self):
        """The files that it writes."""
        return [target for _, target in self.rows]

    def work(self, enhance, n_done, killers):
        """Enhance the rows that are left.

        Arguments
        ---------
        enhance : Enhance
            The model and its options.
        n_done : int
            Number of rows that are done.
        killers : dict
            Rows that have killed workers, by their index, with the reason.

        Yields
        ------
        Result
            The result of each row, when its output is complete.
        """
        for index, (source, target) in enumerate(self.rows[n_done:], n_done):
            if not self.overwrite and _is_newer(target, source):
                yield Result(source, status="skipped")
                continue
            call = partial(enhance.file, source, target)
            yield _result(source, _outcome(enhance, call, source, killers.get(index)))


class Shard(NamedTuple):
    """A WebDataset shard. Its audio is enhanced, and the other members are kept.

    Arguments
    ---------
    source, target : str
        Paths or URIs of the shards.
    overwrite : bool
        Whether to write it again if it is newer than the source.
    """

    source: str
    target: str
    overwrite: bool = False
    keeps_rows = False

    @property
    def id(self):
        """A name that is the same for the same shard."""
        return _digest(self.source)

    @property
    def name(self):
        """Its name in messages."""
        return self.source

    @property
    def targets(self):
        """The file that it writes."""
        return [self.target]

    def is_done(self):
        """Whether the output is newer than the source."""
        return not self.overwrite and _is_newer(self.target, self.source)

    def work(self, enhance, n_done, killers):
        """Enhance all audio members; see `Files.work`. The shard appears at the end.

        A member that fails is left out.

        Arguments
        ---------
        enhance : Enhance
            The model and its options.
        n_done : int
            Without effect, since the shard is the unit.
        killers : dict
            Rows that have killed workers, by their index, with the reason.

        Yields
        ------
        Result
            The result of each audio member, or of a shard that can't be read.
        """
        try:
            with (
                storage.local_copy(self.source) as noisy,
                storage.whole(self.target) as partial_,
                _members(noisy) as members,
                tarfile.open(partial_, "w", format=tarfile.PAX_FORMAT) as output,
            ):
                index = 0
                taken = _names_in(noisy)
                written = {}  # names of audio members: names in the output, or None
                for member in members:
                    members.members = []  # which would grow with the shard
                    content = members.extractfile(member) if member.isfile() else None
                    if member.islnk() and member.linkname in written:
                        member.linkname = written[member.linkname]
                        if member.linkname is None:  # There is nothing to link to.
                            continue
                    if content is None or not _is_audio(member.name):
                        output.addfile(member, content)
                        continue
                    name = f"{self.source}:{member.name}"
                    # Read here: a truncated shard is no failure of a row.
                    n_bytes = min(member.size, enhance.max_bytes)
                    samples = content.read(n_bytes)
                    call = partial(
                        _enhanced_member, enhance, samples, name, member, taken
                    )
                    outcome = _outcome(enhance, call, name, killers.get(index))
                    written[member.name] = None
                    if outcome[0]:
                        written[member.name] = _add_member(output, member, *outcome[0])
                    yield _result(name, outcome)
                    index += 1
                _check_end(noisy, members.offset)
        except Exception as error:  # The other blocks go on.
            yield _failed(self, error)


def _is_audio(name):
    return PurePosixPath(name).suffix.lower() in media.AUDIO | media.VIDEO


def _failed(block, error):
    """The result of a block that can't be read or written as a whole."""
    reason = f"{block.source} can't be enhanced ({error})"
    if not isinstance(error, (tarfile.TarError, OSError)):
        reason = why_failed(error, block.source)
    return Result(block.name, status="failed", reason=reason)


def _members(shard):
    """Open a shard for reading."""
    with open(shard, "rb") as file:
        if file.read(2) == GZIP:
            raise tarfile.ReadError("it is compressed: unpack it by gunzip")
    return tarfile.open(shard, "r:")


def _names_in(shard):
    """The names of all members of a shard."""
    names = set()
    with _members(shard) as members:
        for member in members:
            members.members = []
            names.add(member.name)
    return names


def _enhanced_member(enhance, samples, name, member, taken):
    """Enhance a member, unless its new name is that of another one."""
    (content, suffix), *outcome = enhance.content(samples, name, member.size)
    new = _renamed(member.name, suffix)
    if new != member.name and new in taken:
        raise InputError(f"{name} would be written as {new}, which is in the shard too")
    return (content, suffix), *outcome


def _renamed(name, suffix):
    return str(PurePosixPath(name).with_suffix(suffix))


def _add_member(shard, noisy, content, suffix):
    """Add an enhanced file to a shard, in place of a noisy member; return its name."""
    member = tarfile.TarInfo(_renamed(noisy.name, suffix))
    member.mode, member.mtime, member.size = noisy.mode, noisy.mtime, len(content)
    shard.addfile(member, io.BytesIO(content))
    return member.name


def _check_end(path, offset):
    """Check that a shard has an end; `tarfile` doesn't miss it."""
    with open(path, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is truncated")


class RowGroup(NamedTuple):
    """A row group of a Parquet file, which becomes a file of its own.

    Arguments
    ---------
    source : str
        Path or URI of the Parquet file.
    index : int
        Index of the row group.
    target : str
        Path or URI of the Parquet file to write.
    column : str
        The column of audio.
    overwrite : bool
        Whether to write it again if it is newer than the source.
    """

    source: str
    index: int
    target: str
    column: str
    overwrite: bool = False
    keeps_rows = False

    @property
    def id(self):
        """A name that is the same for the same row group."""
        return _digest(self.source, str(self.index))

    @property
    def name(self):
        """Its name in messages."""
        return f"{self.source}:{self.index}"

    @property
    def targets(self):
        """The file that it writes."""
        return [self.target]

    def is_done(self):
        """Whether the output is newer than the source."""
        return not self.overwrite and _is_newer(self.target, self.source)

    def work(self, enhance, n_done, killers):
        """Enhance all rows; see `Files.work`. The output appears at the end.

        Arguments
        ---------
        enhance : Enhance
            The model and its options.
        n_done : int
            Without effect, since the row group is the unit.
        killers : dict
            Rows that have killed workers, by their index, with the reason.

        Yields
        ------
        Result
            The result of each row. A row that fails has no audio in the output.
        """
        import pyarrow
        from pyarrow import parquet

        try:
            with (
                storage.open_seekable(self.source) as file,
                storage.whole(self.target) as partial_,
            ):
                table = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
                schema = _enhanced_schema(table.schema_arrow, self.column)
                first = sum(
                    table.metadata.row_group(i).num_rows for i in range(self.index)
                )
                rows, n_bytes = [], 0
                with parquet.ParquetWriter(partial_, schema) as output:
                    # One by one, so that the largest row bounds the memory.
                    batches = table.iter_batches(1, row_groups=[self.index])
                    for index, batch in enumerate(batches):
                        (row,) = batch.to_pylist()
                        name = f"{self.source}:{first + index}"
                        cell = row[self.column], batch[self.column][0]
                        call = partial(_enhanced_cell, enhance, *cell, name)
                        outcome = _outcome(enhance, call, name, killers.get(index))
                        yield _result(name, outcome)
                        row[self.column] = _for_arrow(outcome[0])
                        rows.append(row)
                        n_bytes += batch.nbytes
                        if n_bytes > ROW_GROUP_BYTES:
                            output.write_table(pyarrow.Table.from_pylist(rows, schema))
                            rows, n_bytes = [], 0
                    if rows:
                        output.write_table(pyarrow.Table.from_pylist(rows, schema))
        except Exception as error:  # The other blocks go on.
            yield _failed(self, error)


def _enhanced_cell(enhance, value, scalar, name):
    """Enhance a cell; an array of samples keeps the type that it has in the file."""
    import numpy as np

    if not isinstance(value, dict) or value.get("array") is None:
        return enhance.value(value, name)
    samples = scalar["array"].values
    if samples.type.num_fields:  # lists of samples, one for each channel
        channels = [
            c.values.to_numpy(zero_copy_only=False) for c in samples if c.is_valid
        ]
        if len({len(channel) for channel in channels}) != 1 or len(channels) != len(
            samples
        ):
            raise InputError(f"{name} has channels of different lengths")
        samples = np.stack(channels)
    else:
        samples = samples.to_numpy(zero_copy_only=False)
    return enhance.value({**value, "array": samples}, name)


def _for_arrow(value):
    """An enhanced value as Arrow takes it: channels are a list."""
    if isinstance(value, dict) and getattr(value.get("array"), "ndim", 1) > 1:
        return {**value, "array": list(value["array"])}
    return value


def _enhanced_schema(schema, column):
    """The schema of the output: audio that was given by its path becomes bytes."""
    import pyarrow

    index = schema.get_field_index(column)
    field = schema.field(index)
    if pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type):
        schema = schema.set(index, field.with_type(pyarrow.large_binary()))
    return schema


def audio_column(schema, name):
    """Find the column of audio in a Parquet file.

    Arguments
    ---------
    schema : pyarrow.Schema
        Its schema.
    name : str
        Its name, for the message.

    Returns
    -------
    str
        "audio", or else the only column of bytes.

    Raises
    ------
    InputError
        If there is none, or several, or if two columns have the same name.
    """
    import pyarrow

    for column in set(schema.names):
        if schema.names.count(column) > 1:
            raise InputError(f"{name} has several columns {column}: rename all but one")
    if "audio" in schema.names:
        return "audio"
    kinds = pyarrow.types
    found = [
        field.name
        for field in schema
        if kinds.is_binary(field.type) or kinds.is_large_binary(field.type)
    ]
    if len(found) != 1:
        raise InputError(
            f"{name} has no column of audio among {', '.join(schema.names)}: "
            "name it 'audio'"
        )
    return found[0]


def _digest(*names):
    return hashlib.sha256(
        "\0".join(names).encode(errors="surrogateescape")
    ).hexdigest()[:16]


# --- planning ---


def plan(inputs, output, overwrite=False):
    """Find the work of a job.

    Arguments
    ---------
    inputs : list of str
        Files, folders and URIs. Shards (.tar) and Parquet files among them are known by
        their extension.
    output : str
        Folder or URI to write to.
    overwrite : bool
        Whether to enhance again what is newer than its source.

    Returns
    -------
    blocks : list of (Files or Shard or RowGroup)
        The work, in the order of the inputs.
    failures : list of str
        A line for each file that gets no block.

    Raises
    ------
    InputError
        If a folder can't be read, has no audio, or is the output; if the only file can't
        be read.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "in"
    >>> folder.mkdir()
    >>> for name in ("a.wav", "b.wav", "c.tar"):
    ...     (folder / name).touch()
    >>> blocks, failures = plan([str(folder)], str(folder.parent / "out"))
    >>> [type(block).__name__ for block in blocks]
    ['Files', 'Shard']
    """
    pairs, failures = [], []
    for path in inputs:
        found = _found(path, output)
        if not found:
            failures.append(f"{path} can't be read (No such file or directory)")
        pairs += [
            (source, storage.join(output, _written(name))) for source, name in found
        ]
    pairs, refused = _without_conflicts(pairs)
    files, blocks = [], []
    for source, target in pairs:
        suffix = PurePosixPath(source).suffix.lower()
        if suffix == SHARD:
            blocks.append(Shard(source, target, overwrite))
        elif suffix == TABLE:
            try:
                blocks += _row_groups(source, target, overwrite)
            except InputError as error:  # The other files go on.
                refused.append(str(error))
        else:
            files.append((source, target))
    if len(pairs) == 1 and refused:
        raise InputError(refused[0])
    groups = [tuple(files[i : i + FILES]) for i in range(0, len(files), FILES)]
    return [Files(rows, overwrite) for rows in groups] + blocks, failures + refused


def _found(path, output):
    """The sources of an input, each with its path below the input."""
    known = media.AUDIO | media.VIDEO | {SHARD, TABLE}
    if _place(path) == _place(output):
        raise InputError(f"{path} is both input and output: choose another output")
    if storage.is_remote(path):
        found = [
            (source, name)
            for source, name in storage.listing(path)
            if PurePosixPath(name).suffix.lower() in known
            and not _place(source).startswith(f"{_place(output)}/")
        ]
        if not found:
            raise InputError(f"{path} has no audio files")
        return found
    if not os.path.isdir(path):
        return [(path, Path(path).name)] if os.path.exists(path) else []
    leave_out = [] if storage.is_remote(output) else [output]
    files = find_audio_in(path, known, leave_out)
    return [
        (str(file), str(file.relative_to(path)))
        for file in files
        if file.parent.name != RESULTS  # of an earlier job
    ]


def _place(path):
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)


def _written(name):
    """The relative path of an output; formats that can't be written become WAV."""
    path = PurePosixPath(name)
    is_written = path.suffix.lower() in {*media.CONTAINERS, SHARD, TABLE}
    return name if is_written else str(path.with_suffix(".wav"))


def _without_conflicts(pairs):
    """Pairs that can be written, and a line for each of the others."""
    sources = {}  # target -> sources
    for source, target in pairs:
        of_target = sources.setdefault(target, [])
        if source not in of_target:
            of_target.append(source)
    inputs = {_place(source) for source, _ in pairs}
    good, failures = [], []
    for target, of_target in sources.items():
        if len(of_target) > 1:
            failures += [
                f"{source}: {' and '.join(s for s in of_target if s != source)} would "
                f"also be written to {target}: rename one, or enhance it alone"
                for source in of_target
            ]
        elif _place(target) in inputs:
            failures.append(
                f"{of_target[0]}: {target} would replace an input: choose another output"
            )
        else:
            good.append((of_target[0], target))
    return good, failures


def _row_groups(source, target, overwrite):
    from pyarrow import ArrowException, parquet

    with storage.open_seekable(source) as file:
        try:
            table = parquet.ParquetFile(file)
        except ArrowException as error:
            raise InputError(f"{source} can't be read ({error})") from error
        column = audio_column(table.schema_arrow, source)
        return [
            RowGroup(
                source, i, storage.join(target, f"{i:05d}.parquet"), column, overwrite
            )
            for i in range(table.num_row_groups)
        ]
