"""A job: a pool of workers, the rows that each holds, and the results.

A worker is an actor that is asked for one row after the other. If it dies, the row that
it held is known. Ray Data repeats the whole batch instead, with the row that kills, and
its checkpoints record rows only when their block is written.

Nothing is stored to resume from: an output that is newer than its source is done.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
import warnings
from collections import Counter, deque
from typing import NamedTuple

from speechbrain_cffma.cluster import storage
from speechbrain_cffma.cluster.blocks import RESULTS, Result
from speechbrain_cffma.cluster.calls import LIVES, raised
from speechbrain_cffma.cluster.connection import import_ray, living_nodes
from speechbrain_cffma.errors import CFFMAError, one_line, printable
from speechbrain_cffma.files import remove_partials
from speechbrain_cffma.inference.limiter import PeakWarning


class Finished(NamedTuple):
    """A worker's answer after the last row of a block.

    Arguments
    ---------
    results : list of Result
        The results of all its rows.
    """

    results: list


class Worker:
    """A process with the model, which works on one block at a time.

    Arguments
    ---------
    enhance : Enhance
        The model and its options.
    output : str
        The output of the job, which gets the results.
    conditions : Conditions or None
        What must hold on the node.
    """

    def __init__(self, enhance, output, conditions=None):
        self.enhance, self.output = enhance, output
        self.conditions = conditions

    def load(self):
        """Check the node, and load the model.

        Returns
        -------
        str
            The id of the node.
        """
        if self.conditions:
            self.conditions.check()
        warnings.simplefilter("ignore", PeakWarning)  # they are in the results
        self.enhance.load()
        return import_ray().get_runtime_context().get_node_id()

    def begin(self, block, done, killers):
        """Begin a block; see `step` for what is returned.

        Arguments
        ---------
        block : Files or Shard or RowGroup
            The block.
        done : list of Result
            Rows that another worker has done.
        killers : dict
            Rows that have killed workers, by their index, with the reason.

        Returns
        -------
        Result or Finished
            See `step`.
        """
        self.block, self.rows_done = block, list(done)
        self.before = {r.path: r for r in read_part(part_of(self.output, block))}
        have_failed = any(r.status == "failed" for r in self.before.values())
        if self.before and not (block.keeps_rows or have_failed) and block.is_done():
            self.rows = (r._replace(status="skipped") for r in self.before.values())
        else:
            self.rows = block.work(self.enhance, len(done), killers)
        return self.step()

    def step(self):
        """Work on the next row.

        Returns
        -------
        Result or Finished
            The row's result; after the last row the block's, which are then stored.
        """
        result = next(self.rows, None)
        if result is not None:
            is_whole = result.path == self.block.name and not self.block.keeps_rows
            # A shard that ends too early has no output: nothing in it was enhanced.
            self.rows_done = [result] if is_whole else [*self.rows_done, result]
            return result
        # What an earlier job has stored of a row that is skipped now stays.
        kept = [
            self.before.get(printable(r.path), r) if r.status == "skipped" else r
            for r in self.rows_done
        ]
        write_part(part_of(self.output, self.block), kept)
        return Finished(self.rows_done)


def part_of(output, block):
    """Where the results of a block are.

    Arguments
    ---------
    output : str
        The output of the job.
    block : Files or Shard or RowGroup
        The block.

    Returns
    -------
    str
        Path or URI.
    """
    return storage.join(output, f"{RESULTS}/{block.id}.parquet")


def write_part(path, results):
    """Write a part of the results.

    Arguments
    ---------
    path : str
        Path or URI.
    results : list of Result
        Its rows. Names that are no text, as file systems allow, are escaped.
    """
    import pyarrow
    from pyarrow import parquet

    rows = [
        {k: printable(v) if isinstance(v, str) else v for k, v in r._asdict().items()}
        for r in results
    ]
    with storage.whole(path) as part:
        parquet.write_table(pyarrow.Table.from_pylist(rows, _schema()), part)


def read_part(path):
    """Read a part of the results.

    Arguments
    ---------
    path : str
        Path or URI.

    Returns
    -------
    list of Result
        Its rows; none if it is missing or broken.
    """
    from pyarrow import ArrowInvalid, parquet

    if storage.changed(path) is None:
        return []
    with storage.open_seekable(path) as file:
        try:
            return [Result(**row) for row in parquet.read_table(file).to_pylist()]
        except (ArrowInvalid, TypeError):  # It is written again.
            return []


def forget_moved(output, blocks):
    """Take rows out of the results that are now in another block, as files were added.

    Arguments
    ---------
    output : str
        The output of the job.
    blocks : list of (Files or Shard or RowGroup)
        The work of the job.
    """
    folder = storage.join(output, RESULTS)
    current = {part_of(output, block) for block in blocks}
    others = [
        path
        for path, name in storage.listing(folder, True)
        if name.endswith(".parquet")
        and not name.startswith(".")
        and path not in current
    ]
    if not others:
        return
    moved = {printable(source) for b in blocks if b.keeps_rows for source, _ in b.rows}
    for path in others:
        results = read_part(path)
        kept = [result for result in results if result.path not in moved]
        if not kept:
            storage.remove(path)
        elif len(kept) < len(results):
            write_part(path, kept)


def _schema():
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema(
        [
            ("path", text),
            ("seconds", number),
            ("status", text),
            ("reason", text),
            ("turned_down", number),
        ]
    )


class _Task:
    """A block, and what is known of it from workers that have died."""

    def __init__(self, block):
        self.block = block
        self.done = []
        self.deaths = Counter()
        self.killers = {}

    def lost(self, cause):
        """Note that the next row has killed a worker; tell whether the block has."""
        row = len(self.done)
        self.deaths[row] += 1
        self.why = f"it has killed {LIVES} workers ({cause})"
        is_of_block = row in self.killers and self.deaths[row] >= 2 * LIVES
        if self.deaths[row] >= LIVES:
            self.killers[row] = self.why
        return is_of_block

    def again(self):
        """Prepare the task for another worker."""
        if not self.block.keeps_rows:
            self.done = []
        return self


class _Member:
    """A worker of the pool: its actor, its node and its task."""

    def __init__(self, actor):
        self.actor = actor
        self.node = self.task = None


def run(
    blocks,
    enhance,
    output,
    n_workers,
    check=lambda: None,
    conditions=None,
    **resources,
):
    """Work on blocks, with a pool of workers on the cluster that is connected.

    Arguments
    ---------
    blocks : iterable of (Files or Shard or RowGroup)
        The work.
    enhance : Enhance
        The model and its options; precision and device are resolved.
    output : str
        The output of the job, which gets the results.
    n_workers : int
        Number of workers.
    check : callable
        Called about once a second; what it raises ends the job.
    conditions : Conditions or None
        What must hold on the node of each worker.
    **resources
        Resources of a worker, as `num_cpus` and `num_gpus` of `ray.remote`.

    Yields
    ------
    Result or Finished
        Each row's result as it is done, and each block's results at its end.

    Raises
    ------
    CFFMAError
        If the model can't be loaded, the conditions don't hold on a node, or workers die
        before they get work.
    """
    ray = import_ray()
    waiting = deque(map(_Task, blocks))
    written = [part_of(output, task.block) for task in waiting]
    written += [target for task in waiting for target in task.block.targets]
    folders = {os.path.dirname(path) for path in written if not storage.is_remote(path)}
    shared = ray.put(enhance)  # once for all workers
    kind = ray.remote(max_restarts=0, max_task_retries=0, **resources)(Worker)
    calls, idle, early_deaths = {}, [], 0

    def ask(member, method, *arguments):
        calls[getattr(member.actor, method).remote(*arguments)] = member

    def hire():
        ask(_Member(kind.remote(shared, output, conditions)), "load")

    for _ in range(min(n_workers, len(waiting))):
        hire()
    try:
        # Not `while calls`: a worker may wait for resources to the end.
        while waiting or any(member.task for member in calls.values()):
            while waiting and idle:
                member = idle.pop()
                task = member.task = waiting.popleft()
                ask(member, "begin", task.block, task.done, task.killers)
            ready, _ = ray.wait(list(calls), timeout=1)
            check()
            for call in ready:
                member = calls.pop(call)
                try:
                    answer = ray.get(call)
                except ray.exceptions.RayTaskError as error:
                    raise raised(error, "a worker failed") from error
                except ray.exceptions.RayError as error:
                    task = member.task
                    if task is None:
                        early_deaths += 1
                        if early_deaths > n_workers + LIVES:
                            raise CFFMAError(
                                f"workers die before they get work [{one_line(error)}]"
                            ) from error
                    elif member.node in living_nodes() and task.lost(_cause(error)):
                        result = Result(task.block.name, 0.0, "failed", task.why)
                        write_part(part_of(output, task.block), [result])
                        yield Finished([result])
                    else:
                        waiting.appendleft(task.again())
                    hire()
                    continue
                if isinstance(answer, Result):
                    member.task.done.append(answer)
                    yield answer
                    ask(member, "step")
                    continue
                if isinstance(answer, Finished):
                    yield answer
                else:
                    member.node = answer  # It is loaded.
                member.task = None
                idle.append(member)
    finally:
        for member in [*calls.values(), *idle]:
            ray.kill(member.actor)
        # What workers were writing when they were killed, now or before.
        for folder in folders:
            remove_partials(folder)


def _cause(error):
    """How a worker died, in a few words."""
    text = str(error)
    if "OOM" in text or "memory" in text:
        return "memory exhausted"
    for name in ("SIGSEGV", "SIGKILL", "SIGABRT", "SIGBUS"):
        if name in text:
            return name
    return "its process ended"
