"""Where the files that ship with citadel are: ``templates`` and ``consul.d``.

A wheel carries them inside the package; an editable install leaves them at the top of the source tree, next to the
package. Both are reached through importlib.resources, so that a package imported from a zip works too.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from citadel_consul.errors import InvalidInput

PACKAGE = "citadel_consul"


def shipped(directory: str) -> Traversable:
    """The directory ``templates`` or ``consul.d`` as it came with this installation.

    Raises InvalidInput if the installation does not hold it.
    """
    package = files(PACKAGE)
    packaged = package.joinpath("_data", directory)
    if packaged.is_dir():
        return packaged
    if isinstance(package, Path) and (package.parent / "pyproject.toml").is_file():
        checkout = package.parent / directory
        if checkout.is_dir():
            return checkout
    raise InvalidInput.at(directory, "is missing from this installation of citadel", "install the package again")
