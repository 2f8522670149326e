"""A module's code, imported under a name of its own: versions of it live side by side."""

import importlib
import sys
from itertools import takewhile
from pathlib import Path

from anabranch.services.errors import ModuleError
from anabranch.services.module import Module


def load(code: Path, entry: str) -> Module:
    """Import ``FILE:CLASS`` from a directory and make an instance.

    What the file imports from its own directory is its own, too: it is not found by a module that
    is loaded later, nor by an import that is made later.

    Raises:
        ModuleError: the class is not there, or is no module.
        Exception: whatever the module's own code raises.
    """
    file, _, name = entry.partition(":")
    # Not a set of them all: to hold the names of a thousand modules copies the pages they are in.
    last = next(reversed(sys.modules))
    sys.path.insert(0, str(code))
    try:
        module = importlib.import_module(file)
    finally:
        sys.path.remove(str(code))
        sys.path_importer_cache.pop(str(code), None)  # it knows what was there
        for each in list(takewhile(lambda name: name != last, reversed(sys.modules))):
            origin = getattr(sys.modules[each], "__file__", None)
            if origin is not None and code in Path(origin).parents:
                del sys.modules[each]
    if code not in Path(module.__file__ or "/").parents:
        raise ModuleError(f"{file} is also the name of a module of Python's: choose another")
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, Module):
        raise ModuleError(f"{entry} is no class that derives from anabranch's Module")
    return found()
