"""Loaders of the upstream files, on small files of the same format."""

import gzip
import hashlib
import io
import struct
import tarfile
import urllib.error

import numpy as np
import pytest
import torch

from reprise.streams import Stream
from reprise.tasks import Images, files

RANDOM = np.random.default_rng(0)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder, no connection, no remembered files."""

    def offline(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("REPRISE_DATA", str(tmp_path))
    monkeypatch.setattr(files.urllib.request, "urlopen", offline)
    files.mnist.cache_clear()
    files.cifar10.cache_clear()
    yield tmp_path
    files.mnist.cache_clear()
    files.cifar10.cache_clear()


def write_mnist(folder, monkeypatch, packed):
    folder.mkdir()
    arrays = {}
    for part, n in (("train", 12), ("t10k", 5)):
        arrays[f"{part}-images-idx3-ubyte"] = RANDOM.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = RANDOM.integers(0, 10, n, np.uint8)
    for name, array in arrays.items():
        raw = idx(array)
        monkeypatch.setitem(files.MD5, name, hashlib.md5(raw).hexdigest())
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_idx_files(home, monkeypatch, packed):
    arrays = write_mnist(home / "mnist", monkeypatch, packed)
    store = Images(name="mnist", n_train=7).data(Stream.of(0))
    assert store["train"]["inputs"].shape == (7, 784) and store["test"]["inputs"].shape == (5, 784)
    order = Stream.of(0).permutation("split", 12)[:7]
    expected = torch.from_numpy(arrays["train-images-idx3-ubyte"])[order].flatten(1).double() / 255
    torch.testing.assert_close(store["train"]["inputs"], expected)
    labels = torch.from_numpy(arrays["train-labels-idx1-ubyte"])[order].long()
    assert torch.equal(store["train"]["labels"], labels)


def test_a_wrong_checksum_is_refused(home, monkeypatch):
    write_mnist(home / "mnist", monkeypatch, packed=False)
    monkeypatch.setitem(files.MD5, "train-labels-idx1-ubyte", "0" * 32)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte: md5 .*, expected 0000.*delete the file"):
        Images(name="mnist").data(Stream.of(0))


def test_a_broken_idx_file_is_refused():
    with pytest.raises(ValueError, match="x: not an IDX file of unsigned bytes"):
        files.read_idx(b"\x89PNG....", "x")
    with pytest.raises(ValueError, match=r"x: 13 bytes do not hold an array of shape \(2, 1\)"):
        files.read_idx(idx(np.zeros((2, 1), np.uint8))[:-1], "x")


def cifar_records(n):
    labels, planes = RANDOM.integers(0, 10, (n, 1), np.uint8), RANDOM.integers(0, 256, (n, 3072), np.uint8)
    return np.concatenate([labels, planes], 1)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar_is_read_from_its_binary_records(home, monkeypatch, packed):
    folder = home / "cifar-10"
    folder.mkdir()
    parts = {name: cifar_records(3) for name in files.CIFAR_FILES}
    if packed:
        path = folder / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, records in parts.items():
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = records.nbytes
                tar.addfile(info, io.BytesIO(records.tobytes()))
        monkeypatch.setitem(files.MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    else:
        for name, records in parts.items():
            (folder / name).write_bytes(records.tobytes())
    store = Images(name="cifar-10", flat=False).data(Stream.of(0))
    assert store["train"]["inputs"].shape == (15, 3, 32, 32) and store["test"]["inputs"].shape == (
        3,
        3,
        32,
        32,
    )
    order = Stream.of(0).permutation("test split", 3)
    record = parts["test_batch.bin"][order[0]]
    assert store["test"]["labels"][0] == record[0]
    green = torch.from_numpy(record[1025:2049].reshape(32, 32).copy()).double() / 255
    torch.testing.assert_close(store["test"]["inputs"][0, 1], green)


def test_a_file_of_other_records_is_refused(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(b"\0" * 3072)
    with pytest.raises(ValueError, match="data_batch_1.bin: not a file of CIFAR-10 records of 3,073 bytes"):
        files.read_cifar(path)


@pytest.mark.parametrize(
    ("name", "wanted"), [("mnist", "train-images-idx3-ubyte"), ("cifar-10", "data_batch_1.bin")]
)
def test_offline_the_error_says_what_is_missing_and_where_to_put_it(home, name, wanted):
    with pytest.raises(
        files.MissingData, match=f"{home}/{name}.*{wanted}.*is missing.*no route.*REPRISE_DATA"
    ):
        Images(name=name).data(Stream.of(0))
    assert not list(home.rglob("*.gz"))


def test_a_download_moves_into_place_whole(home, monkeypatch, tmp_path):
    class Broken(io.BytesIO):
        def read(self, *size):
            raise ConnectionResetError("cut")

    monkeypatch.setattr(files.urllib.request, "urlopen", lambda url, timeout: Broken())
    with pytest.raises(files.MissingData, match="cut"):
        files.fetch("https://example.org/a", home / "new" / "a", "a")
    assert list((home / "new").iterdir()) == []
    monkeypatch.setattr(files.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"whole"))
    files.fetch("https://example.org/a", home / "new" / "a", "a")
    assert (home / "new" / "a").read_bytes() == b"whole"
