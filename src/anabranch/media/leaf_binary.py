"""Where the program of our own leaf server is."""

import os
import shutil
from pathlib import Path

from anabranch.media.leaf import LeafUnavailableError

PROGRAM = "anabranch-leaf"
VARIABLE = "ANABRANCH_LEAF_SERVER"
_PACKAGED = Path(__file__).parent / "bin" / PROGRAM


def find_server() -> Path:
    """Return the program: ``$ANABRANCH_LEAF_SERVER``, the package's own, or the one on the PATH.

    Raises:
        LeafUnavailableError: there is none, or the variable names none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise LeafUnavailableError(f"${VARIABLE}: {named} cannot be executed")
        return Path(named)
    if os.access(_PACKAGED, os.X_OK):
        return _PACKAGED
    found = shutil.which(PROGRAM)
    if found is None:
        raise LeafUnavailableError(
            f"the leaf server {PROGRAM} is missing: ./scripts/up builds it,"
            " or `leaf: janus` does without it"
        )
    return Path(found)
