"""Rules of the house: imports in one direction, other packages by their public names, no tower, nothing too long."""

import ast
import importlib
import inspect
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from scvi.model.base import BaseMinifiedModeModelClass, UnsupervisedTrainingMixin

import mixvi
from mixvi import datasets

SOURCE = Path(mixvi.__file__).parent
FILES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}


def imports(node):
    """Modules that a file imports, also inside functions, with the names that are taken from them."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.ImportFrom):
        yield node.module, [alias.name for alias in node.names]
    elif isinstance(node, ast.Import):
        yield from ((alias.name, []) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


AGAINST_THE_DIRECTION = {
    ("mixvi.model._report", "mixvi.report"): "GMVAE.report writes the page of the model",
}  # imports inside a function, and why


def test_no_import_circle():
    """A file of a package needs that package's __init__ only if it takes a name that is defined there."""
    graph = {}
    for name, path in FILES.items():
        found = set()
        for module, names in imports(ast.parse(path.read_text())):
            if module in FILES:
                submodules = {f"{module}.{taken}" for taken in names} & set(FILES)
                found |= submodules or {module}
        graph[name] = found - {name}
    for name, other in AGAINST_THE_DIRECTION:
        graph[name].remove(other)  # raises KeyError if it is not imported any more
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def constants(tree):
    """Upper-case names that a file assigns, outside functions and classes."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)]
        yield from (name for name in names if name.isupper())


def test_a_constant_has_one_meaning():
    """No two files assign the same name, so a search for it finds its definition and its uses only."""
    where = {}
    for name, path in FILES.items():
        for constant in set(constants(ast.parse(path.read_text()))):
            where.setdefault(constant, []).append(name)
    assert len(where) > 100
    assert not {constant: names for constant, names in where.items() if len(names) > 1}


def private(name):
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


@pytest.mark.parametrize("name", sorted(FILES))
def test_other_packages_are_used_by_their_public_names(name):
    tree = ast.parse(FILES[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.module.startswith("mixvi"):
            assert not private(node.module), node.module
            assert not any(map(private, (alias.name for alias in node.names))), ast.unparse(node)
        elif isinstance(node, ast.Import):
            assert not any(private(alias.name) for alias in node.names if not alias.name.startswith("mixvi"))


def private_attributes(tree):
    """Each ``x._name`` of a file, as x and _name. Named tuples have public ones of this form."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in ("_replace", "_asdict"):
            yield ast.unparse(node.value), node.attr


SHOWN = {"_get_init_params", "_get_setup_method_args", "_validate_anndata"}  # to developers of models by scvi-tools


def test_private_attributes_are_our_own():
    """What is private in another package stands in `_upstream.py` only, with the version in which it was seen."""
    trees = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
    ours = {name.split(".")[-1] for name in FILES}
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            ours.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            ours.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    used = {(name, key) for name, tree in trees.items() for _, key in private_attributes(tree) if key not in ours}
    assert {name for name, key in used if key not in SHOWN} == {"mixvi._upstream"}
    assert {key for _, key in used} >= SHOWN, "SHOWN names what is not used"


@pytest.mark.parametrize("room", ["perturb", "pl", "report", "cli"])
def test_users_of_models_use_their_public_names(room):
    for name in (name for name in FILES if name.startswith(f"mixvi.{room}")):
        used = [f"{of}.{key}" for of, key in private_attributes(ast.parse(FILES[name].read_text()))]
        assert all(text.startswith(("self.", "cls.", "mixvi.")) for text in used), (name, used)


def test_numerics_and_clusters_do_not_know_anndata():
    """Except N2D, whose UMAP is that of scanpy."""
    for room in ("module", "ops", "cluster"):
        for name, path in FILES.items():
            if name.startswith(f"mixvi.{room}") and name != "mixvi.cluster.n2d":
                taken = {module.split(".")[0] for module, _ in imports(ast.parse(path.read_text()))}
                assert not taken & {"anndata", "scanpy"}, name


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_two_levels_of_models(name):
    """A final class, mixins that derive from nothing, and `LatentModel`."""
    final, *between = getattr(mixvi, name).__mro__
    ours = between[: between.index(UnsupervisedTrainingMixin)]
    assert ours[-1].__bases__ == (UnsupervisedTrainingMixin, BaseMinifiedModeModelClass)
    assert all(mixin.__bases__ == (object,) for mixin in ours[:-1])
    assert final.__bases__ == tuple(ours)
    assert len(ours) == 3 or name != "GMVAE"


def methods_of_models():
    """Every public method of the models that is defined in this package, also those of mixins, by its name."""
    for model in (mixvi.AE, mixvi.VAE, mixvi.CVAE, mixvi.GMVAE):
        for key in dir(model):
            method = getattr(model, key)
            if not key.startswith("_") and callable(method) and method.__module__.startswith("mixvi"):
                yield f"{model.__name__}.{key}", method


def public_functions():
    """Every function and method that is reached without an underscore, defined in this package, by its name."""
    yield from methods_of_models()
    for name in sorted(FILES):
        if private(name) or name == "mixvi.__main__":
            continue
        module = importlib.import_module(name)
        for key, thing in vars(module).items():
            if key.startswith("_") or not getattr(thing, "__module__", "").startswith("mixvi"):
                continue
            if inspect.isclass(thing):
                for method, value in vars(thing).items():
                    value = getattr(value, "__func__", value)  # of class methods
                    if (
                        not method.startswith("_")
                        and inspect.isfunction(value)
                        and value.__module__ == thing.__module__
                    ):
                        yield f"{thing.__module__}.{thing.__name__}.{method}", getattr(thing, method)
            elif inspect.isfunction(thing):
                yield f"{thing.__module__}.{key}", thing


def test_parameters_are_documented():
    """A function of two arguments or more has a section on them, its own or that of the method it overrides."""
    missing = []
    for name, function in public_functions():
        doc = inspect.getdoc(function) or ""
        taken = set(inspect.signature(function).parameters) - {"self", "cls"}
        if (len(taken) > 1 and "Parameters\n----------\n" not in doc) or doc.startswith("See "):
            missing.append(name)
    assert not missing


def lines_of_code(function):
    """Number of lines of a function, without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    return function.end_lineno - function.lineno + 1 - has_docstring * (first.end_lineno - first.lineno + 1)


def test_files_and_functions_are_short():
    """At most 300 lines, and at most 40 lines of code in all but five functions."""
    assert not [name for name, path in FILES.items() if len(path.read_text().splitlines()) > 300]
    functions = [
        (f"{name}.{node.name}", lines_of_code(node))
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    long = [name for name, n_lines in functions if n_lines > 40]
    assert len(long) <= 5, long


UNTESTED = {
    "__init__": "lists the names of its package, which tests of the other files import",
    "__main__": "runs the command line; test_cli.py starts it",
    "_mixin": "an empty class, for type checkers",
    "_version": "reads one text; test_cli.py asks for it",
}  # files of any folder without a file of tests, and why


def test_every_file_has_its_tests():
    """Of src/mixvi/model/_vae.py they are in tests/model/test_vae.py, and so on."""
    tests, missing = Path(__file__).parent, set()
    for path in FILES.values():
        place = path.relative_to(SOURCE)
        if not (tests / place.parent / f"test_{place.stem.lstrip('_')}.py").exists():
            missing.add(place)
    assert not [str(place) for place in missing if place.stem not in UNTESTED]
    assert set(UNTESTED) == {place.stem for place in missing}, "UNTESTED names files that have tests, or are gone"


def calls_of_ours(fit):
    """The calls from our function to our function, down to each function that `fit` enters, as (file, function)."""
    found = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCE)):
            calls = []
            while frame is not None:
                if frame.f_code.co_filename.startswith(str(SOURCE)):
                    path = Path(frame.f_code.co_filename).relative_to(SOURCE)
                    calls.append((path.as_posix(), frame.f_code.co_qualname.split(".")[-1]))
                frame = frame.f_back
            found.add(tuple(reversed(calls)))

    sys.setprofile(note)
    try:
        fit()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize(
    ("name", "kwargs", "loss"),
    [
        ("VAE", {}, "losses"),
        ("GMVAE", {}, "losses"),
        *(("VAE", {"likelihood": likelihood}, "losses") for likelihood in ("poisson", "zinb", "normal", "bernoulli")),
        ("VAE", {"likelihood": "nb", "size_factor": True}, "losses"),
        ("VAE", {"likelihood": "normal", "n_layers": 0}, "bound"),  # in full batch
    ],
)
def test_the_way_to_the_loss_and_to_a_likelihood_is_short(name, kwargs, loss):
    """From `train()` to the loss, 6 functions in 4 files; from there to log p(x | z, c), 5 in 3, with its helpers.

    The hidden layers of the decoder are left out: they are no part of a likelihood. The kernel of the negative binomial
    is compiled, so that Python does not see its call. It is as deep as `_csr`, which is called beside it.
    """
    kwargs = dict(kwargs)
    adata = datasets.blobs(100, 12, n_clusters=2, kind="count")
    if kwargs.get("likelihood") == "bernoulli":
        adata.X = adata.X.clip(max=1)
    adata.obs["size"] = adata.X.sum(1)
    size_factor_key = "size" if kwargs.pop("size_factor", False) else None
    getattr(mixvi, name).setup_anndata(adata, size_factor_key=size_factor_key)
    model = getattr(mixvi, name)(adata, **kwargs)
    ways = calls_of_ours(lambda: model.train(max_epochs=2, early_stopping=False))
    to_loss = {way for way in ways if way[-1] == ("module/_elbo.py", loss) and way[0][1] == "train"}
    assert to_loss
    to_number = {
        way[i + 1 :]
        for way in ways
        for i in range(len(way) - 1)
        if way[i] == ("module/_elbo.py", loss) and "likelihood" in way[i + 1][0] and "module/nets.py" not in dict(way)
    }
    assert to_number
    for longest, n_functions, n_files in ((to_loss, 6, 4), (to_number, 5, 3)):
        for way in longest:
            assert len(way) <= n_functions, way
            assert len(dict(way)) <= n_files, way
