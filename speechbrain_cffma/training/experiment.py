"""Experiments: a YAML that includes others, read with overrides into objects.

HyperPyYAML's `!include` nests what it includes, so that it can't be overridden from the
command line. Here the files of `include:` are merged key by key: a later file replaces
keys of an earlier one, the file that includes them replaces both, and variants and the
command line replace them all.

Authors
 * The speechbrain-cffma developers 2026
"""

import difflib
import io
import os
import pydoc
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError

from speechbrain_cffma.errors import CFFMAError, InputError, one_line
from speechbrain_cffma.files import of_project
from speechbrain_cffma.training.overrides import (
    LESS_THAN,
    is_path,
    references,
    tag_of,
    texts_of,
    value_of,
)

#: Parts of names in experiments and runs of 0.1.0, and what they are now.
MOVED = {
    "cffma.brain.EnhancementBrain": "cffma.training.brain.EnhancementBrain",
    "cffma.checkpoints.AtomicCheckpointer": "cffma.training.checkpoints.AtomicCheckpointer",
    "cffma.data.RecordedPairs": "cffma.data.datasets.RecordedPairs",
    "cffma.data.TrainingCrops": "cffma.data.datasets.TrainingCrops",
    "cffma.mixing.DynamicMixer": "cffma.data.mixing.DynamicMixer",
    "heard_weight": "unmasked_weight",
    "DynamicMix.prepare.said_of_bundled": "DynamicMix.prepare.if_only_bundled",
}
#: Keys of 0.1.0 that are gone, and what to give instead.
REPLACED = {
    "corpus": "give --speech_folder=CORPUS/speech and --noise_folder=CORPUS/noise",
}
#: Keys that runs of 0.1.0 lack, and the values that go on with them as before.
ADDED = {"best_metric": "pesq", "loss_weights": None, "target_transform": None}
#: Similarity of two keys, of which one is probably meant for the other.
SIMILAR = 0.85


def read_experiment(path, overrides=None):
    """Read an experiment's YAML with what it includes, variants and overrides.

    `include:` holds the path of another YAML, relative to the file that includes it, or
    a list of paths. A variant is a YAML in a folder `variants` next to the experiment or
    to a file that it includes. The key `variant` holds its name, or a list of names of
    variants that replace different keys. The key `pretrained` replaces the network, which
    is all keys of the files in a folder `network`, by `network/pretrained.yaml`. The
    names of the variants, and `pretrained`, are appended to `experiment`, so that the run
    gets its own output_folder.

    A `~` in a path stands for the home folder. A default in `recipes/` is found from
    any working directory.

    Arguments
    ---------
    path : str or Path
        The YAML.
    overrides : dict, str or None
        Texts by their keys, as `parse_command_line` returns them, or YAML with these
        keys, as `speechbrain.parse_arguments` returns it. If the default of a key is
        text or a path, the text is taken as it stands, except for `null`, which unsets
        the key, and for lists of folders; otherwise the text is YAML. If the default does
        not tell, the name of the key decides. True switches a boolean on.

    Returns
    -------
    str
        HyperPyYAML text without references, for `load_experiment`.

    Raises
    ------
    InputError
        If a file is missing or is not valid, a required key is not given, an override
        matches no key or has no valid value, or a variant does not exist.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "run.yaml").write_text("lr: 0.1\\nsteps: 10\\ndouble: !ref <steps> * 2")
    >>> _ = (folder / "mine.yaml").write_text("include: [run.yaml]\\nsteps: 20")
    >>> print(read_experiment(folder / "mine.yaml", {"lr": "0.5"}))
    lr: 0.5
    steps: 20
    double: 40
    <BLANKLINE>
    """
    overrides = texts_of(overrides) if isinstance(overrides, str) else overrides or {}
    files = _with_included(Path(path))
    tree = _merge(files)
    if (tag_of(tree.get("brain")) or "").endswith(".EnhancementBrain"):
        tree = {**ADDED, **tree}

    def chosen(key):
        if key in overrides and key in tree:
            return value_of(key, overrides[key], tree)
        return tree.get(key)

    names = _listed(chosen("variant"))
    network = {}
    if chosen("pretrained") is not None:
        network = _replace_network(tree, files, path)
    _add_variants(tree, names, files, network)
    if network:
        names = [*names, "pretrained"]
    for key in overrides:
        if key in network:
            raise InputError(
                f"--{key} can't be combined with --pretrained, which replaces the network"
            )
        if key not in tree:
            close = difflib.get_close_matches(key, tree)
            hint = f"did you mean --{close[0]}?" if close else None
            hint = REPLACED.get(key) or hint or "see the files that it includes"
            raise InputError(f"{path} has no key {key!r} to override: {hint}")
    tree.update({key: value_of(key, text, tree) for key, text in overrides.items()})
    _refuse_misspelt_keys(files, tree)
    tree.pop("variant", None)  # merged, like included files
    if names and "experiment" in tree:
        suffix = "".join(f"-{name}" for name in names)
        tree["experiment"] = _with_suffix(tree["experiment"], suffix)
    for key, node in tree.items():
        if tag_of(node) == "!PLACEHOLDER":
            raise InputError(f"{path}: {key!r} is a !PLACEHOLDER: give --{key}=...")
    text = _dump(_in_order_of_use(tree, path))
    try:
        text = resolve_references(text).getvalue()
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error
    return text.replace(LESS_THAN, "<")


def load_experiment(text, only=None):
    """Make the objects of an experiment.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    only : str or None
        Make only the object of this key, and what it needs.

    Returns
    -------
    dict or object
        Objects by their keys, or the one object.

    Raises
    ------
    InputError
        If there is no such key, or a name in the YAML can't be imported.

    Example
    -------
    >>> load_experiment("a: 1\\nb: !new:no.such.Class", only="a")
    1
    """
    if only is not None:
        tree = YAML().load(text)
        if only not in tree:
            raise InputError(
                f"the experiment has no key {only!r}, nor have the files that it includes"
            )
        text = _dump({only: tree[only]})
    try:
        loaded = load_hyperpyyaml(text)
    except CFFMAError:
        raise
    except pydoc.ErrorDuringImport as error:  # whatever ended the import
        if isinstance(error.value, KeyboardInterrupt | ModuleNotFoundError):
            raise error.value from None
        raise InputError(f"the experiment: {one_line(error)}") from error
    except ImportError as error:
        raise InputError(
            f"the experiment names what can't be imported: {one_line(error)}"
        ) from error
    return loaded if only is None else loaded[only]


def prepare_data(text):
    """Run the preparation of an experiment: its key `prepare`, a function or a list.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.

    Example
    -------
    >>> prepare_data("prepare: [!name:builtins.print [one], !name:builtins.print [two]]")
    one
    two
    """
    for step in _listed(load_experiment(text, only="prepare")):
        step()


def differing_keys(text, other, given=()):
    """Compare two experiments, which different releases may have read.

    Arguments
    ---------
    text : str
        What `read_experiment` returns.
    other : str
        Likewise.
    given : iterable of str
        Keys that count even if only one experiment has them. Others were added or removed
        by a release, which changes nothing by default.

    Returns
    -------
    list of str
        Top-level keys with different values.

    Example
    -------
    >>> differing_keys("a: 1\\nb: 2", "b: 3  # more\\na: 1\\nc: 4")
    ['b']
    """
    trees = [YAML().load(_with_current_names(t)) for t in (text, other)]
    of_one = (trees[0].keys() ^ trees[1].keys()) - set(given)
    if len({isinstance(tree.get("prepare"), list) for tree in trees}) > 1:
        of_one.add("prepare")  # 0.1.0 had one function for what are several steps now
    plain = [_plain(tree, without=of_one)[1] for tree in trees]
    keys = dict.fromkeys(key for tree in plain for key in tree)
    return [key for key in keys if plain[0].get(key) != plain[1].get(key)]


def _plain(node, without):
    """The content of a node with its tags, but without comments and some keys at any
    depth: objects have arguments of these names, too."""
    if isinstance(node, dict):
        content = {k: _plain(v, without) for k, v in node.items() if k not in without}
    elif isinstance(node, list):
        content = [_plain(item, without) for item in node]
    else:
        content = node.value if isinstance(node, TaggedScalar) else node
    return tag_of(node), content


def read_defaults(path):
    """Read an experiment's YAML with what it includes, without variants.

    Arguments
    ---------
    path : str or Path
        The YAML.

    Returns
    -------
    dict
        Values by their keys, with references.

    Raises
    ------
    InputError
        If a file is missing or no YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.5")
    >>> dict(read_defaults(path))
    {'lr': 0.5}
    """
    return _merge(_with_included(Path(path)))


def _with_included(path, above=()):
    """A YAML after all that it includes: a list of (path, tree)."""
    if path.resolve() in above:
        raise InputError(f"the experiment {path} includes itself")
    tree = read_yaml(path)
    _refuse_former_keys(path, tree)
    files = []
    for name in _listed(tree.pop("include", None)):
        included = path.parent / os.path.expanduser(str(name))
        if not included.is_file():
            raise InputError(f"{path} includes {included}, which is not a file")
        files += _with_included(included, (*above, path.resolve()))
    return [*files, (path, tree)]


def _refuse_former_keys(path, tree):
    """Say what to write instead of the keys `base` and `without` of version 0.1.0."""
    if tree.get("base") is not None:
        names = []
        for base in map(Path, map(str, _listed(tree["base"]))):
            parts = ("run.yaml", "enhancement.yaml", "network/cffma.yaml")
            parts = parts if base.name == "base.yaml" else [base.name]
            names += [str(base.parent / part) for part in parts]
        raise InputError(
            f"{path}: instead of `base:` write `include: [{', '.join(names)}]`"
        )
    if "without" in tree:
        raise InputError(
            f"{path}: instead of `without:` give `include:` a list of files without the "
            "one that has these keys"
        )


def _refuse_misspelt_keys(files, tree):
    """Refuse an experiment's value that nothing refers to, if its name is nearly a key's."""
    *included, (path, experiment) = files
    known = {"include"}.union(*(keys for _, keys in included))
    # Overrides and --pretrained replace values. What these referred to is no mistake.
    trees = [tree, *(keys for _, keys in files)]
    used = {key for one in trees for value in one.values() for key in references(value)}
    for key in experiment:
        if key in known or key in used or tag_of(experiment[key]):
            continue
        close = difflib.get_close_matches(str(key), known, 1, SIMILAR)
        if close:
            raise InputError(
                f"{path} has the key {key!r}, which nothing uses: did you mean {close[0]!r}?"
            )


def read_yaml(path):
    """Read a YAML of keys and values as it stands, without what it includes.

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
        If it is missing, or is no such YAML.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 0.5")
    >>> read_yaml(path)["lr"]
    0.5
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = YAML().load(_with_current_names(text))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a YAML of keys and values")
    return tree


def _with_current_names(text):
    """YAML text with the new names of what has moved since 0.1.0."""
    for old, new in MOVED.items():
        text = text.replace(old, new)
    return text


def _merge(files):
    """The keys of all files; those of a later file replace those of an earlier one."""
    merged = {}
    for _, tree in files:
        merged.update(tree)
    for key, value in merged.items():
        if isinstance(value, str) and is_path(key):
            is_ours = value.startswith("recipes/")
            merged[key] = of_project(value) if is_ours else os.path.expanduser(value)
    return merged


def _listed(value):
    """A value, a list of values or None, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _replace_network(tree, files, experiment):
    """Replace the network by that of `pretrained`; return the keys that this rules out."""
    network = _merge((file, t) for file, t in files if file.parent.name == "network")
    if not network:
        raise InputError(
            f"{experiment} includes no file of a folder network/, which --pretrained replaces"
        )
    trained = read_yaml(of_project("hparams/network/pretrained.yaml"))
    for key in network:
        tree.pop(key)
    tree.update(trained)
    # What is null there, such as a refiner, can be added to a trained model.
    return network.keys() - {key for key, value in trained.items() if value is None}


def _add_variants(tree, names, files, network):
    """Replace keys of the tree by those of variants; `network` are keys that are gone."""
    # Of two variants of the same name, the one nearer to the experiment counts.
    paths = {
        path.stem: path
        for file, _ in files
        for path in sorted((file.parent / "variants").glob("*.yaml"))
    }
    set_by = dict.fromkeys(network, "--pretrained")
    for name in map(str, names):
        if name not in paths:
            known = ", ".join(sorted(paths)) or "none"
            hint = (
                f"did you mean --{name}=...?" if name in tree else f"there are {known}"
            )
            raise InputError(f"{files[-1][0]} has no variant {name!r}: {hint}")
        variant = _merge(_with_included(paths[name]))
        for key in variant:
            if key in set_by:
                raise InputError(
                    f"--variant={name} can't be combined with {set_by[key]}: both "
                    f"replace {key!r}"
                )
            set_by[key] = f"--variant={name}"
        if variant and not variant.keys() & tree.keys():
            raise InputError(
                f"{files[-1][0]} has no key that --variant={name} replaces: "
                f"{', '.join(variant)}"
            )
        tree.update(variant)


def _with_suffix(value, suffix):
    """A text, a `!ref` or a `!PLACEHOLDER` with a suffix."""
    if not isinstance(value, TaggedScalar):
        return f"{value}{suffix}"
    value.value += suffix
    return value


def _in_order_of_use(tree, path):
    """The same keys, each after those that it refers to, as HyperPyYAML needs them."""
    ordered = CommentedMap()

    def place(key, above=()):
        if key in ordered:
            return
        if key not in tree:
            raise InputError(
                f"{path}: {above[-1]!r} refers to {key!r}, which is no key"
            )
        if key in above:
            circle = " -> ".join([*above, key])
            raise InputError(f"{path}: {circle} is a circle of references")
        for used in references(tree[key]):
            place(used, (*above, key))
        ordered[key] = tree[key]

    seeding = [key for key in tree if key == "__set_seed"]  # before anything random
    for key in [*seeding, *tree]:
        place(key)
    return ordered


def _dump(tree):
    stream = io.StringIO()
    YAML().dump(tree, stream)
    return stream.getvalue()
