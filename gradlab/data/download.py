"""Reading the file of a data set: from the data folder, else from the network into that folder.

Whatever is read agrees with its checksum. A download is resumed after an interruption, appears
under its name only when it is whole, and is made by one process at a time.
"""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from gradlab.data.cache import cache_folder
from gradlab.data.sources import PUBLIC, SOURCES, Source
from gradlab.files import move

__all__ = ["data_folder", "read_source"]

TIMEOUT = 30.0  # seconds without a byte until an address is given up
ATTEMPTS = 10  # at one address, as long as each brings something
LARGEST = 1 << 28  # bytes; every file of the table is smaller


def data_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of the data sets.

    Args:
        folder: A folder, or None for $GRADLAB_DATA, else the folder data in the package's cache.

    Returns:
        The folder.

    Example:
        >>> data_folder("my/data").name
        'data'
    """
    if folder is None:
        folder = os.environ.get("GRADLAB_DATA") or cache_folder() / "data"
    return Path(folder).expanduser()


def read_source(
    name: str, part: str, folder: str | Path | None = None, download: bool = True
) -> tuple[Path, bytes]:
    """Return where the file of a part of a data set lies, and what it holds.

    Args:
        name: The name of the data set.
        part: The name of the part.
        folder: The data folder, in which the data set may have a subfolder.
        download: Whether a missing file may be downloaded.

    Returns:
        The path and the content.

    Raises:
        FileNotFoundError: If the file is missing and cannot be downloaded.
        ValueError: If the file does not have its checksum.
    """
    source, root = SOURCES[name][part], data_folder(folder)
    home = root / PUBLIC[name].folder
    for path in (place / form for place in (home, root) for form in source.forms):
        if path.is_file():
            return path, _checked(path, source)
    target = home / next(iter(source.forms))
    failures = _download(source, target) if download else ["downloading was not allowed"]
    if failures:
        files = ", ".join(next(iter(each.forms)) for each in SOURCES[name].values())
        raise FileNotFoundError(
            f"the data set {name} needs the file {target.name}, which lies neither in {home} nor "
            f"in {root} and was not downloaded ({'; '.join(failures)}); fetch it from "
            f"{source.addresses[0]} and put it into {home}, or name the folder that holds it by "
            f"--data or GRADLAB_DATA (all files of this data set: {files})"
        )
    return target, _checked(target, source)


def _checked(path: Path, source: Source) -> bytes:
    content = path.read_bytes()
    expected = source.forms[path.name]
    found = _checksums(content, expected)
    if not set(found) & set(expected):
        raise ValueError(
            f"the file {path} is damaged or belongs to another data set: {len(content)} bytes with "
            f"checksum {' / '.join(found)}, expected {' or '.join(expected)}; move it away, and it "
            f"is downloaded again from {source.addresses[0]}"
        )
    return content


def _checksums(content: bytes, expected: tuple[str, ...]) -> list[str]:
    """Return the checksums of the kinds that are expected: MD5 has 32 digits, SHA-256 has 64."""
    kinds = dict.fromkeys("md5" if len(digits) == 32 else "sha256" for digits in expected)
    return [hashlib.new(kind, content, usedforsecurity=False).hexdigest() for kind in kinds]


def _download(source: Source, target: Path) -> list[str]:
    """Download to `target` from the first address that has it; else return what went wrong."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if target.is_file():  # another process was faster
                return []
            failures = []
            for address in source.addresses:
                failure = _download_from(address, source, target)
                if failure is None:
                    return []
                failures.append(f"{address}: {failure}")
            return failures
    except OSError as error:  # of the folder; those of the network are among the failures
        return [f"{target.parent} cannot be written: {error}"]


def _download_from(address: str, source: Source, target: Path) -> str | None:
    """Download from one address, in several attempts if need be; return what failed, or None."""
    part = target.with_name(f"{target.name}.part")
    expected = source.forms[target.name]
    failure = "gave nothing"
    for _ in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(address, part, before)
        except HTTPError as error:
            failure = str(error)
            # 416: nothing comes after what is there, which may be all or may be too much.
            if error.code != 416 or not before:
                return failure
        except (OSError, HTTPException) as error:
            failure = str(error) or repr(error)
            if not part.exists() or part.stat().st_size <= before:
                return failure
            continue
        found = _checksums(part.read_bytes(), expected)
        if set(found) & set(expected):
            move(part, target)
            return None
        failure = f"checksum {' / '.join(found)}, expected {' or '.join(expected)}"
        part.unlink()
        if not before:  # else what was there from earlier may be to blame
            return failure
    return failure


def _transfer(address: str, part: Path, before: int) -> None:
    """Append what comes after the first `before` bytes; start over if the server cannot resume."""
    headers = {"User-Agent": "gradlab"} | ({"Range": f"bytes={before}-"} if before else {})
    with urlopen(Request(address, headers=headers), timeout=TIMEOUT) as answer:
        resumed = answer.status == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {before}-"):
            raise ConnectionError("the server sent another range than requested")
        done = before if resumed else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        name = part.name.removesuffix(".part")
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=name, initial=done, total=total, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            while block := answer.read(1 << 16):
                done += len(block)
                if done > LARGEST:
                    raise ConnectionError(f"more than {LARGEST} bytes came")
                file.write(block)
                bar.update(len(block))
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
