"""Python files, also those that lie in a zip archive: what one is, and how it is imported under another name."""

from __future__ import annotations

import importlib.util
import os
import zipimport
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from types import CodeType


def is_source(path: str) -> bool:
    """Whether a module can be made of what lies there."""
    return os.path.isfile(path) or _archive_of(path) is not None


def source_spec(name: str, path: str) -> ModuleSpec | None:
    """How the file is imported as the module `name`; None where it is none."""
    archive = None if os.path.isfile(path) else _archive_of(path)
    if archive is None:
        return importlib.util.spec_from_file_location(name, path)
    spec = importlib.util.spec_from_loader(name, _Archived(archive, path), origin=path)
    if spec is not None:
        spec.has_location = True  # so that the module has its `__file__`
    return spec


def _archive_of(path: str) -> zipimport.zipimporter | None:
    """The folder of a zip archive that has the file."""
    folder, file = os.path.split(path)
    try:
        archive = zipimport.zipimporter(folder)
    except zipimport.ZipImportError:
        return None
    return archive if archive.find_spec(os.path.splitext(file)[0]) is not None else None


class _Archived(InspectLoader):
    """Gives one file of an archive, whatever its module is called."""

    def __init__(self, archive: zipimport.zipimporter, path: str) -> None:
        self._archive = archive
        self._stem = os.path.splitext(os.path.basename(path))[0]

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - its name in the archive is another
        """Compiled."""
        return self._archive.get_code(self._stem)

    def get_source(self, fullname: str) -> str | None:  # noqa: ARG002
        """For tracebacks."""
        return self._archive.get_source(self._stem)

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        """A file is none."""
        return False
