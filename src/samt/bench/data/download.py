"""Files from the network: checked, resumable, and never half-written."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from samt.bench.atomic import settle
from samt.bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

_TIMEOUT = (10, 30)  # to connect, and between two packets
_CHUNK = 1 << 16
_ATTEMPTS = 3  # at one mirror, without any progress
_MOST_ATTEMPTS = 50  # however slow its progress


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        path: below the data directory, with forward slashes.
        sha256: of the whole file.
        size: in bytes.
        urls: the official place first, then mirrors.
    """

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...]


class _UnreachableError(Exception):
    """This mirror does not deliver; another one may."""


class _MismatchError(Exception):
    """The file is complete, but not the published one."""


def fetch(file: RemoteFile, data_dir: Path) -> Path:
    """Download a file, unless it is there.

    What has arrived lies in `NAME.part` until all of it is there and its checksum is right, so a
    download that breaks off goes on where it stopped, from any mirror. A file that is not the
    published one is kept as `NAME.bad`. A file that is already there is never touched.

    Args:
        file: what and from where.
        data_dir: folder of all data sets.

    Returns:
        The file.

    Raises:
        DataError: no mirror delivers, the checksum is wrong, or the folder cannot be written.
    """
    target = data_dir / file.path
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not target.exists():  # another process may just have finished
                _from_mirrors(file, target)
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({error.strerror or error}): free some space, or choose "
            f"another folder with --data-dir"
        ) from error
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock of one download, so that no two processes write one `.part`."""
    from filelock import FileLock, Timeout

    path = target.with_name(f".{target.name}.lock")
    try:
        with FileLock(path, timeout=0):
            yield
        with suppress(OSError):
            path.unlink(missing_ok=True)  # only now that the file is there nobody needs it
    except Timeout as error:
        raise DataError(
            f"another process is downloading {target}: wait until it is done"
        ) from error


def _from_mirrors(file: RemoteFile, target: Path) -> None:
    failures: list[str] = []
    for url in file.urls:
        with _noted(url, failures):
            _Resuming(file, target).fetch(url)
            return
    raise DataError(
        f"cannot download {target.name} ({'; '.join(failures)}): check the connection and try "
        f"again, which goes on where it stopped, or put the file there yourself"
    )


@contextmanager
def _noted(url: str, failures: list[str]) -> Iterator[None]:
    """Note why a mirror failed, so that the next one is tried."""
    try:
        yield
    except (_UnreachableError, _MismatchError) as error:
        failures.append(f"{url}: {error}")


class _Resuming:
    """A download that goes on where an earlier one stopped."""

    def __init__(self, file: RemoteFile, target: Path) -> None:
        self._file, self._target = file, target
        self._part = target.with_name(f"{target.name}.part")
        self._bad = target.with_name(f"{target.name}.bad")

    def fetch(self, url: str) -> None:
        """Download `url`; what is whole and right becomes the file."""
        resumed = self._there > 0
        self._fill(url)
        if resumed and not self._is_right():
            # The beginning may have come from another file: once more from the start.
            self._part.unlink()
            self._fill(url)
        if not self._is_right():
            self._part.replace(self._bad)
            raise _MismatchError(f"its checksum is wrong, kept as {self._bad}")
        with self._part.open("rb+") as whole:
            settle(whole, self._target)

    @property
    def _there(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _is_right(self) -> bool:
        import pooch

        return str(pooch.file_hash(str(self._part), alg="sha256")) == self._file.sha256

    def _fill(self, url: str) -> None:
        """Ask until the file is complete, as long as something new arrives."""
        import requests
        import urllib3

        failures, reason = 0, "it breaks off again and again"
        for _ in range(_MOST_ATTEMPTS):
            before = self._there
            if before >= self._file.size:
                return
            try:
                self._receive(url)
                reason = "it ends early"
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error)
            failures = 0 if self._there > before else failures + 1
            if failures == _ATTEMPTS:
                break
        raise _UnreachableError(reason)

    def _receive(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        start = self._there
        # As it is stored: a server must not pack it once more, nor this side unpack it.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            _session() as session,
            session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response,
        ):
            if start and _is_other_range(response, start):
                self._part.unlink()  # so that the next request is for all of it
                return
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                start = 0
            bar = tqdm(
                total=self._file.size,
                initial=start,
                desc=self._part.stem,
                unit="B",
                unit_scale=True,
                disable=None,  # only in a terminal
                leave=False,
            )
            with bar, self._part.open("ab" if start else "wb") as output:
                left = self._file.size - start
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    # One byte too many is enough to know that it is another file.
                    output.write(chunk[: left + 1])
                    bar.update(len(chunk))
                    left -= len(chunk)
                    if left < 0:
                        return


def _session() -> requests.Session:
    """One that never goes from an encrypted place to one that is not."""
    import requests

    class Encrypted(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            goes_to = urljoin(resp.url, target or "")
            if urlsplit(resp.url).scheme == "https" and urlsplit(goes_to).scheme != "https":
                raise requests.exceptions.InvalidSchema("it redirects to a place without TLS")
            return target

    return Encrypted()


def _is_other_range(response: requests.Response, start: int) -> bool:
    """Whether the server has no such rest, or sends another one than was asked for."""
    content_range = response.headers.get("Content-Range", "")
    other = response.status_code == 206 and not content_range.startswith(f"bytes {start}-")
    return other or response.status_code == 416


def _reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code}"
    return " ".join(str(error).split())[:120] or type(error).__name__


def is_official(file: RemoteFile, path: Path) -> bool:
    """Whether a file on this machine is, byte by byte, the published one."""
    import pooch

    same_size = path.stat().st_size == file.size
    return same_size and str(pooch.file_hash(str(path), alg="sha256")) == file.sha256
