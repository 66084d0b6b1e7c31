"""MATLAB 5 files against SciPy's reader and writer, and files that no one should trust."""

from __future__ import annotations

import os
import re
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.matfile import MAX_BYTES, MatReader, read_mat
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import SBD_IDS, make_sbd, save_mat, sbd_mask

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def piece(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(kind: int, shape: tuple[int, ...], name: bytes, body: bytes) -> bytes:
    head = piece(6, struct.pack("<II", kind, 0)) + piece(5, struct.pack(f"<{len(shape)}i", *shape)) + piece(1, name)
    return piece(14, head + body)


def written(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join((HEADER, *parts)))
    return path


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kind=st.sampled_from(["u1", "i1", "u2", "i2", "i4", "u4", "i8", "f4", "f8"]),
    compressed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_scipy_writes(shape: tuple[int, int], kind: str, compressed: bool, seed: int) -> None:
    lowest = 0 if kind[0] == "u" else -100
    values = np.random.default_rng(seed).integers(lowest, 120, shape).astype(kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        scipy.io.savemat(path, {"before": "text", "S": values, "after": 1.0}, do_compression=compressed)
        found = read_mat(path, "S")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values)


def test_big_endian_narrowed_numbers_as_matlab_writes(tmp_path: Path) -> None:
    """A double matrix whose numbers fit a byte is stored as bytes; of up to four in the tag itself."""
    body = struct.pack(">HH", 3, 2) + b"\x01\x02\x03\0"
    head = struct.pack(">II", 6, 8) + struct.pack(">II", 6, 0) + struct.pack(">II", 5, 8) + struct.pack(">ii", 3, 1)
    content = head + struct.pack(">HH", 1, 1) + b"S\0\0\0" + body
    path = tmp_path / "a.mat"
    path.write_bytes(HEADER[:124] + struct.pack(">H", 0x0100) + b"MI" + struct.pack(">II", 14, len(content)) + content)
    np.testing.assert_array_equal(scipy.io.loadmat(path)["S"], [[1], [2], [3]])
    np.testing.assert_array_equal(read_mat(path, "S"), [[1], [2], [3]])


def test_the_struct_of_sbd(tmp_path: Path) -> None:
    name = SBD_IDS["train"][0]
    path = make_sbd(tmp_path, {"train": [name]}) / "benchmark_RELEASE" / "dataset" / "cls" / f"{name}.mat"
    theirs = scipy.io.loadmat(path)["GTcls"][0]["Segmentation"][0]
    np.testing.assert_array_equal(read_mat(path, "GTcls.Segmentation"), theirs)
    np.testing.assert_array_equal(theirs, sbd_mask(name))
    np.testing.assert_array_equal(read_mat(path, "GTcls.CategoriesPresent"), [[20]])
    with pytest.raises(DataError, match=r"holds no 'GTcls\.Inside'"):
        read_mat(path, "GTcls.Inside")
    with pytest.raises(DataError, match="the field is no matrix of real numbers"):
        read_mat(path, "GTcls.Boundaries")
    with pytest.raises(DataError, match="GTcls is no matrix of real numbers"):
        read_mat(path, "GTcls")


def test_numbers_become_classes(tmp_path: Path) -> None:
    path = save_mat(tmp_path / "a.mat", S=np.array([[-1, 1], [2, 3]], np.int16))
    np.testing.assert_array_equal(MatReader.from_one("S", 3, lowest=-1).read(path), [[VOID, 0], [1, 2]])
    assert MatReader.from_one("S", 3, lowest=-1).read(path).dtype == np.uint8
    np.testing.assert_array_equal(MatReader("S", (7, 8, 9, 10, 11), lowest=-1).read(path), [[7, 9], [10, 11]])
    with pytest.raises(DataError, match=r"a\.mat: S holds the number -1, expected 0\.\.3; take the file from the data"):
        MatReader.from_one("S", 3).read(path)
    with pytest.raises(DataError, match=r"S holds the number 3, expected -1\.\.2"):
        MatReader.from_one("S", 2, lowest=-1).read(path)


@pytest.mark.parametrize("shape", [(1, 700_001), (700_001, 1), (900, 1000)])
def test_large_label_maps_against_their_formula(tmp_path: Path, shape: tuple[int, int]) -> None:
    numbers = np.random.default_rng(0).integers(0, 5, shape, np.uint8)
    found = MatReader.from_one("S", 4).read(save_mat(tmp_path / "a.mat", S=numbers))
    np.testing.assert_array_equal(found, np.where(numbers == 0, VOID, numbers - 1))
    assert found.flags.c_contiguous


def test_the_largest_label_map_takes_little_memory(tmp_path: Path) -> None:
    side = 4000
    path = written(
        tmp_path / "a.mat", piece(15, zlib.compress(matrix(9, (side, side), b"S", piece(2, bytes(side**2)))))
    )
    tracemalloc.start()
    labels = MatReader.from_one("S", 4).read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.shape == (side, side)
    assert peak < 8 * side**2, "the inflated file, int32, a comparison or the labels; int64 alone would be 8"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), "holds no 'S'; name the data set's folder that holds its label maps"),
        ((matrix(9, (2, 2), b"T", piece(2, b"1234")),), "holds no 'S'"),
        ((matrix(9, (2, 2), b"S", piece(2, b"12345")),), r"is damaged \(ValueError: 5 numbers for 2 x 2\); copy"),
        ((matrix(9, (2, 2), b"S", piece(3, b"12345")),), "is damaged"),
        ((matrix(9, (2, 2), b"S", piece(99, b"1234")),), "numbers of type 99"),
        ((matrix(9, (2, 2), b"S", b""),), "a piece is missing"),
        ((matrix(9, (10**9, 10**9), b"S", piece(2, b"1")),), "1 numbers for 1000000000 x 1000000000"),
        ((matrix(9, (-1, -4), b"S", piece(2, b"1234")),), "S is no matrix of real numbers"),
        ((matrix(9, (2, 2, 1), b"S", piece(2, b"1234")),), "S is no matrix of real numbers"),
        ((matrix(9 | 0x0800, (2, 2), b"S", piece(2, b"1234")),), "S is no matrix of real numbers"),
        ((matrix(1, (9, 9), b"S", b""),), "S is no matrix of real numbers"),
        ((matrix(17, (1, 1), b"S", b""),), "S is no matrix of real numbers"),
        ((struct.pack("<II", 14, 2**31),), r"is damaged \(ValueError: a piece ends 2147483648 bytes after the end\)"),
        ((struct.pack("<II", 9 << 16 | 14, 0),), "a packed piece of 9 bytes"),
        ((piece(14, b""),), "a piece is missing"),
        ((piece(14, piece(6, b"")),), "is damaged"),
        ((piece(15, b"no deflate"),), "is damaged"),
        ((piece(15, zlib.compress(b"")),), "a piece is missing"),
        ((matrix(7, (1, 1), b"S", piece(7, struct.pack("<f", 0.5))),), "S holds 0.5, expected whole numbers"),
        ((matrix(7, (1, 1), b"S", piece(7, struct.pack("<f", float("nan")))),), "S holds nan, expected whole"),
        ((matrix(14, (1, 1), b"S", piece(12, struct.pack("<q", 2**40))),), "expected whole numbers"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, parts: tuple[bytes, ...], expected: str) -> None:
    path = written(tmp_path / "a.mat", *parts)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{expected}") as caught:
        read_mat(path, "S")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"is no MATLAB 5 file; copy or unpack it again"),
        (b"\x89HDF\r\n\x1a\n".ljust(512), "is no MATLAB 5 file"),
        (
            HEADER[:124] + struct.pack("<H", 0x0200) + b"IM",
            r"is a MATLAB 7\.3 \(HDF5\) file, .* save it in MATLAB with",
        ),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_mat(path, "S")


def test_files_that_are_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.mat: no such file; check the path"):
        read_mat(tmp_path / "none.mat", "S")
    with pytest.raises(DataError, match="no such file"):
        read_mat(tmp_path, "S")
    path = written(tmp_path / "large.mat")
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(DataError, match="is larger than 16 MiB; expected one label map a file"):
        read_mat(path, "S")
    if os.geteuid():
        path.chmod(0)
        with pytest.raises(DataError, match="cannot be read"):
            read_mat(path, "S")
    bomb = written(tmp_path / "bomb.mat", piece(15, zlib.compress(bytes(MAX_BYTES + 1))))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(DataError, match="holds more than 16 MiB; expected one label map a file"):
        read_mat(bomb, "S")


def test_depth_and_claims_cost_nothing(tmp_path: Path) -> None:
    """What ends SciPy's reader: cells in cells, and a struct's field that claims 900 million cells."""
    head = piece(6, struct.pack("<II", 1, 0)) + piece(5, struct.pack("<ii", 1, 1)) + piece(1, b"")
    levels = [struct.pack("<II", 14, (100_000 - i) * (8 + len(head)) - 8) + head for i in range(100_000)]
    field = piece(5, struct.pack("<i", 32)) + piece(1, b"a".ljust(32, b"\0"))
    for path in (
        written(tmp_path / "deep.mat", *levels),
        written(tmp_path / "wide.mat", matrix(2, (1, 1), b"S", field + matrix(1, (30000, 30000), b"", b""))),
    ):
        for variable in ("S", "S.a"):
            with pytest.raises(DataError, match="holds no|no matrix of real numbers"):
                read_mat(path, variable)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_damage_is_one_line(noise: bytes, at: int) -> None:
    good = matrix(9, (4, 4), b"S", piece(2, bytes(16))) + matrix(
        2, (1, 1), b"G", piece(5, b"\1\0\0\0") + piece(1, b"x")
    )
    content = HEADER + good
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        path.write_bytes(content[: at + 1] + noise + content[at + 1 + len(noise) :])
        for variable in ("S", "G.x"):
            refusal: DataError | None = None
            try:
                read_mat(path, variable)
            except DataError as error:  # any other error fails the test
                refusal = error
            assert "\n" not in str(refusal)
