"""Pages of the API: under which name an object is documented, which members it shows, which fields it has."""

import importlib
import inspect
import re
from pathlib import Path

FIELD = re.compile(r"^    (\w+): [^#\n]+  # (.*)$", re.MULTILINE)


def public_names() -> dict[type, str]:
    """The name under which each class has its page."""
    names = {}
    for full in names_of(Path(__file__).parent / "api.md"):
        module, _, name = full.rpartition(".")
        found = getattr(importlib.import_module(module), name, None)
        if inspect.isclass(found):
            names.setdefault(found, full)
    return names


def names_of(page: Path) -> list[str]:
    """What the tables of a page list."""
    return [f"mixvi.{name}" for name in re.findall(r"^   ([\w.]+)$", page.read_text(), re.MULTILINE)]


def members(name: str) -> dict[str, list[str]]:
    """Documented properties and methods that mixvi itself defines, those of base classes first."""
    package, _, attribute = name.rpartition(".")
    bases = [base for base in getattr(importlib.import_module(package), attribute).__mro__ if _ours(base)]
    found = {"Attributes": [], "Methods": []}
    for base in reversed(bases):
        for key, value in vars(base).items():
            kind = "Attributes" if isinstance(value, property) else "Methods"
            if key.startswith("_") or not (kind == "Attributes" or callable(getattr(base, key))):
                continue
            if key not in found[kind] and any(getattr(vars(b).get(key), "__doc__", None) for b in bases):
                found[kind].append(key)
    return found


def _ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "mixvi"


def edit(app, what, name, obj, options, lines) -> None:
    """Fields of a named tuple as parameters, from the comments beside them."""
    if what != "class" or not hasattr(obj, "_fields"):
        return
    if "Attributes" in lines:
        lines[lines.index("Attributes")] = "Parameters"
    elif "Parameters" not in lines:
        comments = dict(FIELD.findall(inspect.getsource(obj)))
        lines += ["", "Parameters", "----------"]
        for field in obj._fields:
            lines += [field, *([f"    {comments[field]}"] if field in comments else [])]


def publish(app, what, name, obj, options, lines) -> None:
    """Public names in what other extensions have added."""
    for cls, public in public_names().items():
        lines[:] = [line.replace(f"{cls.__module__}.{cls.__qualname__}.", f"{public}.") for line in lines]
