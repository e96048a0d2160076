"""Where the files that ship with citadel are: ``templates`` and ``consul.d``.

A wheel carries them inside the package; an editable install leaves them at the top of the source tree, next to the
package. Both are reached through importlib.resources, so that a package imported from a zip works too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from citadel_consul.errors import InvalidInput

PACKAGE = "citadel_consul"
TEMPLATE_PATH_VARIABLE = "CITADEL_TEMPLATE_PATH"


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


def template_dirs(override: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """The user's template directories in the order they are searched, before those that ship with citadel.

    ``override`` comes first, then what ``CITADEL_TEMPLATE_PATH`` lists, separated as in ``PATH``. A directory that
    is named and not there is InvalidInput: a template that is silently not used would be worse.
    """
    listed = (os.environ if environ is None else environ).get(TEMPLATE_PATH_VARIABLE, "")
    directories = (*override, *(Path(entry) for entry in listed.split(os.pathsep) if entry))
    missing = [str(directory) for directory in directories if not directory.is_dir()]
    if missing:
        raise InvalidInput.at("template directory", f"{', '.join(missing)} does not exist", "create it or drop it")
    return directories
