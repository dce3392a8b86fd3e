"""Decoded images in the user's cache folder, so that they are decoded once."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samt.bench.atomic import replaced
from samt.bench.untrusted import opened


def folder() -> Path:
    """The user's cache folder, or what the environment variable SAMT_CACHE_DIR names."""
    import pooch

    return Path(os.environ.get("SAMT_CACHE_DIR") or pooch.os_cache("samt"))


def load(key: str, count: int) -> npt.NDArray[np.uint8] | None:
    """Read what `save` wrote.

    Args:
        key: of the images.
        count: how many there must be.

    Returns:
        The images, or None if they are not there or damaged: then they are decoded again.
    """
    try:
        with opened(_path(key)) as file, np.load(file, allow_pickle=False) as archive:
            images = archive["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = images.dtype == np.uint8 and images.ndim == 4 and len(images) == count
    return images if fits else None


def save(key: str, images: npt.NDArray[np.uint8]) -> None:
    """Keep images, whole or not at all. A cache that cannot be written is no error.

    Args:
        key: of the images.
        images: all of them.
    """
    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            np.savez(file, images=images)


def _path(key: str) -> Path:
    return folder() / "images" / f"{key}.npz"
