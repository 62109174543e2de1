"""A connection to a Ray cluster, and what has to hold on each of its nodes.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import os
import secrets
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from speechbrain_cffma.cluster import storage
from speechbrain_cffma.errors import (
    CFFMAError,
    InputError,
    InstallError,
    one_line,
    reason,
)

OWN = "speechbrain-cffma"
#: Packages on which results depend. Ray compares its own version and Python's.
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy", "scipy", "soundfile", "av")
#: Ray makes it for the first cluster on a computer.
TOKEN = Path.home() / ".ray" / "auth_token"
#: Seconds within which a node must answer.
PATIENCE = 120
#: Whether `connected` has connected this process, and so stops its calls in the end.
_is_own = False


def import_ray():
    """Import Ray, which only this folder and `--engine ray` need.

    Returns
    -------
    module
        The package `ray`.

    Raises
    ------
    InstallError
        If it is not installed.

    Example
    -------
    >>> import_ray().__name__  # doctest: +SKIP
    'ray'
    """
    # Ray reports its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Tasks that ask for no GPU see none, as in Ray's next version.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Workers of a cluster that is started here get the priority of this process.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if TOKEN.is_file() and "ray" not in sys.modules:  # which reads this when imported
        # Clusters that are started here have it. For "auto" Ray uses it by itself, for an
        # address it does not; clusters without tokens accept it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InstallError(
            "Ray is not installed: pip install 'speechbrain-cffma[ray]'"
        ) from error
    return ray


@contextmanager
def connected(address=None, n_cpus=None):
    """Connect to a running cluster, or start one on this computer for as long as needed.

    The end of the connection stops all calls that are not done. Within a process that has
    called `ray.init`, its connection is used and left open.

    Arguments
    ---------
    address : str or None
        Address of a running cluster, such as "10.0.0.1:6379"; "auto" for the one that
        this computer is a node of. None for the one that the environment variable
        RAY_ADDRESS names; without it a cluster is started on this computer.
    n_cpus : int or None
        Number of CPUs of a cluster that is started; None for all.

    Yields
    ------
    module
        The package `ray`, connected.

    Raises
    ------
    InstallError
        If Ray is not installed, or the cluster has another version of it or of Python.
    InputError
        If there is no cluster at the address.

    Example
    -------
    >>> with connected(n_cpus=2) as ray:  # doctest: +SKIP
    ...     ray.get(ray.remote(max).remote(1, 2))
    2
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:
        raise InputError(
            f"--address {address}: give the HOST:PORT of the head node, and run the "
            "command on a node of the cluster or by `ray job submit`"
        )
    if address not in ("auto", "local"):
        _knock(address)
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": n_cpus, "include_dashboard": False}
    try:
        ray.init(address, **options)
    # Ray raises various types; the message tells what happened.
    except Exception as error:
        raise _refusal(address, error) from error
    global _is_own
    _is_own = True
    try:
        yield ray
    finally:
        _is_own = False
        ray.shutdown()


def is_own():
    """Whether the connection is one of `connected`, and not of the process around it.

    Returns
    -------
    bool
        True if its end stops the calls of this process.

    Example
    -------
    >>> is_own()
    False
    """
    return _is_own


def _knock(address):
    """Check that something listens at HOST:PORT, for which Ray would wait minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _refusal(address, error) from error


def _refusal(address, error):
    if address == "local":
        return CFFMAError(f"Ray doesn't start on this computer [{one_line(error)}]")
    if "ersion mismatch" in str(error):
        return InstallError(
            f"the cluster at {address} has another version of Ray or Python: install "
            f"the same on all nodes [{one_line(error)}]"
        )
    return InputError(
        f"no Ray cluster at {address}: start one by `ray start --head`, join it from "
        f"this computer by `ray start --address=HOST:PORT`, or leave --address out "
        f"[{one_line(error)}]"
    )


def on_each_node(function, *arguments):
    """Call a function once on each node of the cluster that is connected.

    Arguments
    ---------
    function : callable
        A Python function. If it is defined inside another one, it is sent by its code,
        so that the nodes need not have its module.
    *arguments
        Its arguments.

    Returns
    -------
    dict
        The results, by the node's address. A node on which the call fails has the
        exception as its result; one that is lost meanwhile is left out.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     on_each_node(lambda text: len(text), "abc")
    {'172.17.0.2': 3}
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    nodes = living_nodes()
    calls = {
        node: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(*arguments)
        for node in nodes
    }

    def outcome(call):
        try:
            return ray.get(call, timeout=PATIENCE)
        except Exception as error:
            return error

    outcomes, found = {node: outcome(call) for node, call in calls.items()}, {}
    living = living_nodes()
    for node, value in outcomes.items():
        # Ray notices some seconds later that a node is lost; it need not answer.
        is_lost = isinstance(value, ray.exceptions.TaskUnschedulableError)
        if isinstance(value, Exception) and (is_lost or node not in living):
            continue
        name = nodes[node]
        if name in found:  # several nodes on one computer, as in tests
            name = f"{name} ({node[:8]})"
        found[name] = value
    return found


def living_nodes():
    """Return the nodes that Ray does not know to be lost.

    Returns
    -------
    dict
        Their addresses by their ids.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     list(living_nodes().values())
    ['172.17.0.2']
    """
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in import_ray().nodes()
        if node["Alive"]
    }


class Conditions(NamedTuple):
    """What must hold on each node, also on one that joins the cluster later.

    Arguments
    ---------
    versions : tuple of (str, str or None)
        Packages with their versions; None: it must be missing.
    path : str or None
        A path or URI that the node must see.
    """

    versions: tuple
    path: str | None = None

    def check(self):
        """Check the node that this process runs on.

        Raises
        ------
        InstallError
            If it has other versions. The message names the node, the package and both.
        InputError
            If it does not see the path.
        """
        node = import_ray().util.get_node_ip_address()
        packages = [package for package, _ in self.versions]
        _compare(node, _version_reader()(packages), self.versions)
        if self.path and storage.changed(self.path) is None:
            raise InputError(_not_shared(node, self.path))


def check_versions(packages=PACKAGES):
    """Check that all nodes have the driver's version of this and of other packages.

    Arguments
    ---------
    packages : tuple of str
        Names of the distributions on which the results depend. A package that is
        missing here must be missing on each node.

    Returns
    -------
    tuple of (str, str or None)
        The packages with their versions, for `Conditions`.

    Raises
    ------
    InstallError
        If a node differs. The message names the node, the package and both versions.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     check_versions()
    """
    installed, packages = _version_reader(), (OWN, *packages)
    here = installed(packages)
    for node, there in _answers(installed, packages):
        _compare(node, there, here)
    return here


def _version_reader():
    # Sent by its code, since this package may be missing on a node.
    def installed(packages):
        from importlib import metadata

        def version(package):
            try:
                if package == OWN:  # it need not be installed
                    from speechbrain_cffma import __version__

                    return __version__
                return metadata.version(package)
            except (ImportError, metadata.PackageNotFoundError):
                return None

        return tuple((package, version(package)) for package in packages)

    return installed


def _compare(node, there, here):
    for (package, has), (_, needs) in zip(there, here, strict=True):
        if has != needs:
            raise InstallError(
                f"the node {node} has {has or 'no version'} of {package}, this computer "
                f"{needs or 'no version'}: install the same on all nodes"
            )


def _not_shared(node, path, lack="does not see"):
    return f"the node {node} {lack} {path}: use a folder that all nodes share"


def check_folder(folder):
    """Check that all nodes see a folder of this computer under the same path.

    Arguments
    ---------
    folder : str or Path
        A folder on this computer that can be written; it is created if it is missing.

    Raises
    ------
    InputError
        If a node sees no such folder. The message names both.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     check_folder("results")
    """
    folder = Path(folder).absolute()
    mark = folder / f".{secrets.token_hex(8)}.seen"

    def sees(path):
        import os

        return os.path.exists(path)

    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise InputError(f"{folder} can't be written ({reason(error)})") from error
        for node, sees_it in _answers(sees, str(mark)):
            if not sees_it:
                raise InputError(_not_shared(node, f"the folder {folder}"))
    finally:
        mark.unlink(missing_ok=True)


def check_files(paths):
    """Check that all nodes see files of this computer under the same paths.

    Arguments
    ---------
    paths : iterable of (str or Path)
        The files, which may be folders. Those that this computer doesn't see either are
        left out.

    Raises
    ------
    InputError
        If a node lacks one, or has one of another size there. The message names both.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     check_files(["clean/a.wav", "noisy/a.wav"])
    """

    def sizes_of(paths):
        import os

        return [
            0 if os.path.isdir(p) else os.path.getsize(p) if os.path.exists(p) else None
            for p in paths
        ]

    paths = list(dict.fromkeys(map(os.path.abspath, paths)))
    here = sizes_of(paths)
    for node, there in _answers(sizes_of, paths):
        for path, size, seen in zip(paths, here, there, strict=True):
            if size not in (None, seen):
                lack = "does not see" if seen is None else "has another version of"
                raise InputError(_not_shared(node, path, lack))


def _answers(function, *arguments):
    """What `on_each_node` gives, as pairs; a node that doesn't answer is an error."""
    for node, answer in on_each_node(function, *arguments).items():
        if isinstance(answer, Exception):
            raise CFFMAError(f"the node {node} does not answer [{one_line(answer)}]")
        yield node, answer
