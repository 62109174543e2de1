"""Experiments: a YAML that may name a base, read with overrides into objects.

HyperPyYAML's `!include` nests what it includes, so that it can't be overridden from
the command line. Here an experiment's top-level keys replace those of its `base:`.

Authors
 * The speechbrain-cffma developers 2026
"""

import difflib
import io
import re
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError

from speechbrain_cffma.errors import CFFMAError, InputError, one_line


def read_experiment(path, overrides=""):
    """Read an experiment's YAML with its base and the overrides, references resolved.

    Arguments
    ---------
    path : str or Path
        The YAML; its key `base:`, if any, names another one relative to it.
    overrides : str
        YAML of top-level keys, as `speechbrain.parse_arguments` returns it. A key
        without a value switches a boolean on.

    Returns
    -------
    str
        HyperPyYAML text without references, for `load_experiment`.

    Raises
    ------
    InputError
        If a file is missing or no YAML, or an override matches no key or has no value.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "base.yaml").write_text("lr: 0.1\\nsteps: 10\\ndouble: !ref <steps> * 2")
    >>> _ = (folder / "mine.yaml").write_text("base: base.yaml\\nsteps: 20")
    >>> print(read_experiment(folder / "mine.yaml", "lr: 0.5"))
    lr: 0.5
    steps: 20
    double: 40
    <BLANKLINE>
    """
    tree = _merge_base(Path(path))
    for key, value in _read_overrides(overrides).items():
        if key not in tree:
            close = difflib.get_close_matches(key, tree)
            hint = f"did you mean --{close[0]}?" if close else "see its keys there"
            raise InputError(f"{path} has no key {key!r} to override: {hint}")
        if value is None and re.search(rf"^{re.escape(key)}:\s*$", overrides, re.M):
            if not isinstance(tree[key], bool):
                raise InputError(f"--{key} needs a value: --{key}=...")
            value = True
        tree[key] = value
    try:
        return resolve_references(_dump(_in_order_of_use(tree))).getvalue()
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


def load_experiment(text, only=None):
    """Make the objects that an experiment names.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    only : str or None
        Make this key's object alone; what it does not need is not even built.

    Returns
    -------
    dict or object
        All keys with their objects, or the one.

    Raises
    ------
    InputError
        If there is no such key, or a name in the YAML leads to nothing that can be imported.

    Example
    -------
    >>> load_experiment("a: 1\\nb: !new:no.such.Class", only="a")
    1
    """
    if only is not None:
        tree = YAML().load(text)
        if only not in tree:
            raise InputError(f"the experiment has no key {only!r}")
        text = _dump({only: tree[only]})
    try:
        loaded = load_hyperpyyaml(text)
    except CFFMAError:
        raise
    except ImportError as error:
        raise InputError(
            f"the experiment names what can't be imported: {one_line(error)}"
        ) from error
    return loaded if only is None else loaded[only]


def _read_overrides(text):
    try:
        tree = YAML().load(text) or {}
    except YAMLError as error:
        raise InputError(f"the overrides are no YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"the overrides are not of the form --key=value: {text}")
    return tree


def _merge_base(path, above=()):
    """The tree of a YAML: the keys of its base, in their order, replaced by its own."""
    if path.resolve() in above:
        raise InputError(f"the experiment {path} is its own base")
    try:
        tree = YAML().load(path)
    except OSError as error:
        raise InputError(
            f"the experiment {path} can't be read ({error.strerror})"
        ) from error
    except YAMLError as error:
        raise InputError(f"{path} is not a valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a YAML of keys and values")
    if "base" not in tree:
        return tree
    merged = _merge_base(path.parent / str(tree.pop("base")), (*above, path.resolve()))
    merged.update(tree)
    return merged


def _in_order_of_use(tree):
    """The same keys, each behind those it refers to, as HyperPyYAML needs them."""
    ordered = CommentedMap()

    def place(key, above=()):
        if key in ordered or key not in tree:
            return
        if key in above:
            raise ValueError(f"{' -> '.join([*above, key])} is a circle of references")
        for used in _references(tree[key]):
            place(used, (*above, key))
        ordered[key] = tree[key]

    for key in tree:
        place(key)
    return ordered


def _references(node):
    """The top-level keys that a node refers to."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        return [name for child in node for name in _references(child)]
    if isinstance(node, TaggedScalar):
        return re.findall(r"<([^>\[.]+)", node.value)
    return []


def _dump(tree):
    stream = io.StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()
