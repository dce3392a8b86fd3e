"""Decoded images in the user's cache folder, so that they are decoded once."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from samt.bench.atomic import replaced
from samt.bench.data.raw import Pixels


def folder() -> Path:
    """The user's cache folder, or what the environment variable SAMT_CACHE_DIR names."""
    import pooch

    return Path(os.environ.get("SAMT_CACHE_DIR") or pooch.os_cache("samt")).expanduser()


def load(key: str) -> Pixels | None:
    """Read what `save` wrote.

    Args:
        key: the key under which the images were saved.

    Returns:
        The images, or None if they are not there or damaged: then they are decoded again.
    """
    try:
        with np.load(_path(key), allow_pickle=False) as archive:
            return archive["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def save(key: str, images: Pixels) -> None:
    """Keep images, whole or not at all. A cache that cannot be written is no error.

    Args:
        key: the key under which `load` finds them; it must depend on all that decides the pixels.
        images: the decoded images.
    """
    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            np.savez(file, images=images)


def _path(key: str) -> Path:
    return folder() / "images" / f"{key}.npz"
