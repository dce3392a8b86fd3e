"""Published files from the network: pooch fetches them, checks them and puts them in place."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samt.bench.errors import DataError

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        path: its place below the data directory, with forward slashes.
        sha256: the SHA-256 of the whole file, in hexadecimal digits.
        size: its size in bytes.
        urls: the addresses that offer it, the official one first, then mirrors.
    """

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...]


def fetch(file: RemoteFile, data_dir: Path) -> Path:
    """Download a file, unless it is there. A file that is already there is never touched.

    Args:
        file: the published file.
        data_dir: the folder of all data sets.

    Returns:
        The path of the file.

    Raises:
        DataError: no address delivers the published file, or the folder cannot be written.
    """
    import pooch
    import requests

    target = data_dir / file.path
    if target.exists():
        return target
    pooch.get_logger().setLevel("WARNING")  # what is said is said by the command
    failures = []
    for url in file.urls:
        place = pooch.create(
            path=data_dir,
            base_url="",
            registry={file.path: f"sha256:{file.sha256}"},
            urls={file.path: url},
            retry_if_failed=1,
        )
        try:
            return Path(place.fetch(file.path, downloader=_downloader()))
        except ValueError:  # of pooch, which has removed the file
            failures.append(f"{url}: its checksum is wrong")
        except requests.RequestException as error:
            failures.append(f"{url}: {_reason(error)}")
        except OSError as error:
            raise DataError(
                f"cannot write {target} ({error.strerror or error}): free some space, or choose "
                f"another folder with --data-dir"
            ) from error
    raise DataError(
        f"cannot download {target.name} ({'; '.join(failures)}): check the connection and try "
        f"again, or put the file there yourself"
    )


def _downloader() -> Any:
    import pooch

    return pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=30, hooks={"response": _as_stored}
    )


def _as_stored(response: requests.Response, **_: object) -> None:
    """Keep a .gz file packed: some servers call it an encoding, which requests would undo."""
    response.raw.headers.pop("Content-Encoding", None)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code}"
    return " ".join(str(error).split())[:120] or type(error).__name__


def is_official(file: RemoteFile, path: Path) -> bool:
    """Whether a file on this machine is, byte by byte, the published one.

    Args:
        file: the published file.
        path: a file on this machine.
    """
    import pooch

    return path.stat().st_size == file.size and pooch.file_hash(str(path)) == file.sha256
