"""Experiments: a YAML that may name a base and variants, read with overrides into objects.

HyperPyYAML's `!include` nests what it includes, so that it can't be overridden from
the command line. Here an experiment's top-level keys replace those of its `base:`, and
those of its `variant:` replace both.

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
    """Read an experiment's YAML with its base, variants and overrides, references resolved.

    A variant is a YAML in a folder `variants` beside the experiment or one of its bases.
    The key `variant:` holds its name, or a list of names of variants that replace
    different keys; the names are appended to `experiment`, so that a run has another
    output_folder. A variant of the name of a key is chosen by giving that key a value.
    The key `without:`, of a variant or an experiment, lists keys of what is below it
    that go: what they made is of no use beside it.

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
        If a file is missing or no YAML, a key must be given and is not, an override
        matches no key or has no value, or there is no such variant.

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
    files = _with_bases(Path(path))
    tree = _merge(files)
    tree.pop("without", None)
    asked = read_overrides(overrides)
    paths = _variants_beside([file for file, _ in files])
    variants = _names(asked.get("variant", tree.get("variant")))
    for key in paths:
        if key in variants and key in tree:
            raise InputError(f"the variant {key} is chosen by --{key}=... instead")
        if asked.get(key, tree.get(key)) is not None:
            variants.append(key)
    gone = _add_variants(tree, variants, paths, path)
    for key, value in asked.items():
        if key in gone:
            raise InputError(
                f"{path} has no key {key!r} to override with the variant {gone[key]}, "
                "which replaces what it is for"
            )
        if key not in tree:
            close = difflib.get_close_matches(key, tree)
            hint = f"did you mean --{close[0]}?" if close else "see its keys there"
            raise InputError(f"{path} has no key {key!r} to override: {hint}")
        if value is None and re.search(rf"^{re.escape(key)}:\s*$", overrides, re.M):
            if not isinstance(tree[key], bool):
                raise InputError(f"--{key} needs a value: --{key}=...")
            value = True
        tree[key] = value
    tree.pop("variant", None)  # merged, as the base is
    if variants and "experiment" in tree:
        tree["experiment"] = _with_suffix(tree["experiment"], "-" + "-".join(variants))
    for key, value in tree.items():
        if isinstance(value, TaggedScalar) and str(value.tag) == "!PLACEHOLDER":
            raise InputError(f"{path}: {key!r} is a !PLACEHOLDER: give --{key}=...")
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


def differing_keys(text, other):
    """Compare two experiments.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    other : str
        Likewise.

    Returns
    -------
    list of str
        The top-level keys that only one has, or with other values.

    Example
    -------
    >>> differing_keys("a: 1\\nb: 2", "b: 3  # more\\na: 1")
    ['b']
    """
    trees = [YAML().load(t) for t in (text, other)]
    # As text, since tags such as !new: have no other meaning here.
    plain = [{key: _dump({key: tree[key]}) for key in tree} for tree in trees]
    keys = dict.fromkeys(key for tree in plain for key in tree)
    return [key for key in keys if plain[0].get(key) != plain[1].get(key)]


def read_overrides(text):
    """Read what replaces keys of an experiment.

    Arguments
    ---------
    text : str
        YAML of top-level keys, as `speechbrain.parse_arguments` returns it.

    Returns
    -------
    dict
        Values by their keys.

    Raises
    ------
    InputError
        If it is of another form.

    Example
    -------
    >>> read_overrides("lr: 0.5")["lr"]
    0.5
    """
    try:
        tree = YAML().load(text) or {}
    except YAMLError as error:
        raise InputError(f"the overrides are no YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"the overrides are not of the form --key=value: {text}")
    return tree


def _with_bases(path):
    """A YAML, its base, the base of that and so on: a list of (path, tree)."""
    files = []
    while True:
        if path.resolve() in [file.resolve() for file, _ in files]:
            raise InputError(f"the experiment {path} is its own base")
        tree = read_yaml(path)
        files.append((path, tree))
        if "base" not in tree:
            return files
        path = path.parent / str(tree.pop("base"))


def read_yaml(path):
    """Read a YAML of top-level keys as it stands, without its base.

    Arguments
    ---------
    path : str or Path
        The YAML.

    Returns
    -------
    dict
        Values by their keys.

    Raises
    ------
    InputError
        If it is missing, or no such YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.5")
    >>> read_yaml(path)["lr"]
    0.5
    """
    try:
        tree = YAML().load(Path(path))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})") from error
    except YAMLError as error:
        raise InputError(f"{path} is not a valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a YAML of keys and values")
    return tree


def _merge(files):
    """The keys of the last base, in their order, replaced by those of the files above."""
    *above, (_, merged) = files
    for _, tree in reversed(above):
        merged.update(tree)
        for key in tree.get("without", []):
            merged.pop(key, None)
    return merged


def _names(variant):
    """The names of the variants in the value of the key `variant`."""
    if variant is None:
        return []
    return [str(name) for name in (variant if isinstance(variant, list) else [variant])]


def _variants_beside(files):
    """The paths of the variants beside some files, by their names."""
    # Of two of the same name, the one nearer to the experiment.
    return {
        path.stem: path
        for file in reversed(files)
        for path in sorted((file.parent / "variants").glob("*.yaml"))
    }


def _add_variants(tree, names, paths, experiment):
    """Replace keys of the tree by those of variants; return which variant took which away."""
    set_by, gone = {}, {}
    for name in names:
        if name not in paths:
            known = ", ".join(sorted(paths)) or "none"
            raise InputError(
                f"{experiment} has no variant {name!r}; its variants are: {known}"
            )
        variant = _merge(_with_bases(paths[name]))
        without = variant.pop("without", [])
        for key in [*variant, *without]:
            if key in set_by:
                raise InputError(
                    f"the variants {set_by[key]} and {name} can't be combined: both "
                    f"replace {key!r}"
                )
            set_by[key] = name
        tree.update(variant)
        for key in without:
            tree.pop(key, None)
            gone[key] = name
    return gone


def _with_suffix(value, suffix):
    """A text, a `!ref` of one or a `!PLACEHOLDER`, with something behind it."""
    if not isinstance(value, TaggedScalar):
        return f"{value}{suffix}"
    value.value += suffix
    return value


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
