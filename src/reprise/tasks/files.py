"""Files of public data sets: where they lie, how they are fetched and checked."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

import numpy as np

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
CIFAR_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6)) + ("test_batch.bin",)


class MissingData(OSError):
    """A data set is neither on disk nor to be had from its home."""


def data_folder() -> Path:
    """$REPRISE_DATA, or ~/.cache/reprise."""
    return Path(os.environ.get("REPRISE_DATA") or Path.home() / ".cache" / "reprise")


@cache
def mnist(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST from the four IDX files (plain or .gz) in folder / "mnist", fetched first if they are absent.

    Returns:
        training pictures (60000, 28, 28) uint8, labels (60000,) uint8, then those of the test set (10000).
    """
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(read_idx(_idx_bytes(folder / "mnist", name), name) for name in names)


def _idx_bytes(folder: Path, name: str) -> bytes:
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        fetch(f"{MNIST_URL}{name}.gz", packed, f"{plain} (or {packed.name})")
    path = plain if plain.exists() else packed
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path is packed else raw
    check(raw, name, path)
    return raw


def read_idx(raw: bytes, name: str) -> np.ndarray:
    """The uint8 array in the bytes of an IDX file."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{name}: not an IDX file of unsigned bytes")
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4).astype(int)
    if len(raw) != 4 + 4 * axes + int(shape.prod()):
        raise ValueError(f"{name}: {len(raw)} bytes do not hold an array of shape {tuple(shape.tolist())}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


@cache
def cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CIFAR-10 from the binary version in folder / "cifar-10", fetched and unpacked first if it is absent.

    Returns:
        training pictures (50000, 3, 32, 32) uint8, labels (50000,) uint8, then those of the test set (10000).
    """
    home = folder / "cifar-10"
    missing = [name for name in CIFAR_FILES if not (home / name).exists()]
    if missing:
        archive = home / "cifar-10-binary.tar.gz"
        if not archive.exists():
            fetch(CIFAR_URL, archive, f"{home}/{{{', '.join(missing)}}} (or {archive.name})")
        check(archive.read_bytes(), archive.name, archive)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if Path(member.name).name in missing:
                    _write(home / Path(member.name).name, tar.extractfile(member))
    parts = [read_cifar(home / name) for name in CIFAR_FILES]
    pictures, labels = (np.concatenate([part[k] for part in parts[:-1]]) for k in (0, 1))
    return pictures, labels, *parts[-1]


def read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 3, 32, 32) and labels (n,) of one file of records: label byte, then R, G and B planes."""
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % 3073 or raw.reshape(-1, 3073)[:, 0].max() > 9:
        raise ValueError(f"{path}: not a file of CIFAR-10 records of 3,073 bytes")
    raw = raw.reshape(-1, 3073)
    return raw[:, 1:].reshape(-1, 3, 32, 32), raw[:, 0]


def fetch(url: str, path: Path, wanted: str) -> None:
    """Download a file and move it into place in one step.

    Raises:
        MissingData: there is no connection; the message says what is missing and where to put it.
    """
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            _write(path, answer)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MissingData(
            f"{wanted} is missing and {url} cannot be reached ({error}). Fetch it elsewhere and put it "
            "there, or set REPRISE_DATA to the folder that holds it"
        ) from error


def _write(path: Path, source) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            shutil.copyfileobj(source, out)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check(raw: bytes, name: str, path: Path) -> None:
    """Compare the md5 of a file's bytes with the published one."""
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise ValueError(f"{path}: md5 {found}, expected {MD5[name]}; delete the file to fetch it again")
