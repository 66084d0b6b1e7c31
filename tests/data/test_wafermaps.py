"""Real wafer maps: inputs without masks (reference 10.2)."""

from __future__ import annotations

import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.image import read_image
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.wafer import WAFER_LABELS, render
from fullconv.data.wafermaps import MIXED_PATTERNS, maps_to_images, open_split, recognise, splits, wafer_maps
from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID
from makers import WAFER_MAPS, make_folder, make_wafer_maps, save


def savez(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_maps_of_many_sizes(tmp_path: Path) -> None:
    maps = wafer_maps(make_wafer_maps(tmp_path))
    assert len(maps) == 3
    for found, written in zip(maps, WAFER_MAPS, strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, written)
    assert maps.labels == [("Center",), ("None",), ("Near-full",)]
    np.testing.assert_array_equal(maps[-1], WAFER_MAPS[2])
    assert [each.shape for each in maps[1:]] == [(10, 12), (8, 9)]
    with pytest.raises(IndexError):
        maps[3]
    assert maps.name(0) == "val_data_000000_Center"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_maps_of_one_size(tmp_path: Path, order: str, kind: type) -> None:
    cells = np.random.default_rng(0).integers(0, 3, (3, 9, 10)).astype(kind, order=order)  # type: ignore[call-overload]
    marks = np.array([[1, 0, 0, 0, 0, 0, 1, 0], [0] * 8, [0, 0, 0, 0, 0, 0, 0, 1]])
    published = wafer_maps(savez(tmp_path / "a.npz", arr_0=cells, arr_1=marks))
    assert published.labels == [("Center", "Scratch"), (), ("Random",)]
    assert published.name(0) == "a_000000_Center+Scratch"
    assert published.name(1) == "a_000001"
    named = wafer_maps(savez(tmp_path / "b.npz", maps=cells, labels=marks[:, 5:], names=["x", "../y", "z"]))
    assert named.labels == [("../y",), (), ("z",)]
    assert named.name(0) == "b_000000_---y"
    np.save(tmp_path / "c.npy", cells)
    alone = wafer_maps(tmp_path / "c.npy")
    assert alone.labels == [()] * 3
    for maps in (published, named, alone):
        np.testing.assert_array_equal(np.stack(list(maps)), cells)
        assert maps[0].dtype == np.uint8


def test_pictures(tmp_path: Path) -> None:
    path = make_wafer_maps(tmp_path)
    written = maps_to_images(path, tmp_path / "out")
    assert [file.name for file in written] == [
        "val_data_000000_Center.png", "val_data_000001_None.png", "val_data_000002_Near-full.png",
    ]  # fmt: skip
    for file, cells in zip(written, WAFER_MAPS, strict=True):
        np.testing.assert_array_equal(read_image(file), render(cells))
    assert [file.name[9:15] for file in maps_to_images(path, tmp_path / "two", limit=2)] == ["000000", "000001"]
    assert len(maps_to_images(path, tmp_path / "all", limit=9)) == 3
    with pytest.raises(OptionError, match="0 wafer maps asked for; give a limit of 1 or more"):
        maps_to_images(path, tmp_path / "none", limit=0)


def test_as_a_data_set(tmp_path: Path) -> None:
    path = make_wafer_maps(tmp_path)
    for place in (path, path.parent):
        assert recognise(place)
        assert splits(place) == ("maps",)
        dataset = open_split("x", place, "maps")
        assert dataset.names == ["val_data_000000_Center", "val_data_000001_None", "val_data_000002_Near-full"]
        assert dataset.labels == {SEMANTIC: WAFER_LABELS}
        sample = dataset[1]
        np.testing.assert_array_equal(sample.inputs[IMAGE], render(WAFER_MAPS[1]))
        assert (sample.masks[SEMANTIC] == VOID).all()
    for split in ("train", "val", "test"):
        with pytest.raises(
            DataError, match=r"^x: holds wafer maps with labels of whole maps and no masks, .* predict$"
        ):
            open_split("x", path, split)
    with pytest.raises(DataError, match=r"^x: has no split 'dev'; its splits: maps$"):
        open_split("x", path, "dev")


def test_what_is_no_wafer_maps(tmp_path: Path) -> None:
    for array in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint8), np.array([None], object)):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        assert not recognise(tmp_path / "a.npy")
    savez(tmp_path / "b.npz", x=np.zeros((3, 9, 9)))
    assert not recognise(tmp_path / "b.npz")
    savez(tmp_path / "b.npz", flat=np.zeros(9))
    assert not recognise(tmp_path)
    (tmp_path / "c.npz").write_bytes(b"PK")
    assert not recognise(tmp_path / "c.npz")
    assert splits(tmp_path) == ()
    assert not recognise(save(tmp_path / "d.png", np.zeros((9, 9), np.uint8)))
    assert not recognise(make_folder(tmp_path / "folder"))


FLAT = np.zeros(72, np.uint8)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": FLAT}, "holds x; expected maps of 0, 1 and 2 as flat and shapes, maps, or arr_0; export"),
        ({"flat": FLAT}, r"holds flat of shape \(72,\); expected maps"),
        ({"maps": np.zeros((9, 8), np.uint8)}, r"holds maps of shape \(9, 8\); expected maps"),
        ({"flat": FLAT, "shapes": np.array([9, 8])}, r"holds shapes of int64 \(2,\); expected \(N, 2\) integers"),
        ({"flat": FLAT, "shapes": np.array([[9.0, 8.0]])}, r"holds shapes of float64 \(1, 2\); expected"),
        ({"flat": FLAT, "shapes": np.array([[9, 9]])}, r"has 72 dies in 81 places; expected as many; export"),
        ({"flat": FLAT, "shapes": np.array([[-9, -8]])}, r"is -9 x -8 pixels \(H x W\), expected 1 x 1 or more"),
        ({"flat": FLAT, "shapes": np.array([[9, 8]]), "labels": np.zeros((1, 3))}, r"has labels of float64 \(1, 3\)"),
        ({"flat": FLAT, "shapes": np.array([[9, 8]]), "labels": np.zeros((2, 8), int)}, "expected 1 names, or"),
        ({"flat": np.array([None]), "shapes": np.array([[1, 1]])}, "pickled objects, which are not loaded"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, arrays: dict[str, object], expected: str) -> None:
    path = savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: .*{expected}") as caught:
        wafer_maps(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (np.full((1, 9, 9), 3, np.uint8), "holds the number 3; expected maps of 0, 1 and 2"),
        (np.full((1, 9, 9), -1, np.int8), "holds the number -1; expected"),
        (np.zeros((1, 9, 9), np.float32), "holds float32 numbers; expected"),
    ],
)
def test_numbers_are_looked_at_when_they_are_read(tmp_path: Path, cells: np.ndarray, expected: str) -> None:
    maps = wafer_maps(savez(tmp_path / "a.npz", maps=cells))
    with pytest.raises(DataError, match=expected):
        maps[0]


def header(shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_headers_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(header((10, 100, 100)) + bytes(99_999))
    with pytest.raises(
        DataError, match=r"cannot be read \(ValueError: cut short\); it is damaged or no \.npz or \.npy"
    ):
        wafer_maps(path)
    path.write_bytes(header((2**20, 2**10, 2**10)))
    with pytest.raises(DataError, match=f"has {2**40} dies; expected up to {2**30}; export"):
        wafer_maps(path)
    path.write_bytes(header((1, -9, -9)))
    with pytest.raises(DataError, match=r"an array of shape \(1, -9, -9\)"):
        wafer_maps(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("flat.npy", header((72,)) + bytes(72))
        archive.writestr("shapes.npy", header((2**30, 2)))
    with pytest.raises(
        DataError, match=r"holds an array of uint8 \(1073741824, 2\); expected labels of up to 64 MiB, and"
    ):
        wafer_maps(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"none\.npz: no such file; check the path"):
        wafer_maps(tmp_path / "none.npz")


def test_short_files_take_little_memory(tmp_path: Path) -> None:
    """Headers that ask for a Python object each of billions of maps, or of millions of shapes, labels and names."""
    path, zipped = tmp_path / "a.npy", tmp_path / "b.npz"
    shapes = b"".join([header((2**22, 2)), bytes(2**23)])
    cases = {
        f"has {2**28} maps; expected up to {2**21}": {"maps": header((2**28, 1, 1))},
        f"has {2**30 - 1} maps": {"maps": header((2**30 - 1, 0, 0))},
        rf"holds an array of uint8 \({2**22}, 2\); expected .* up to {2**22} of them": {"flat": FLAT, "shapes": shapes},
        rf"holds an array of uint8 \({2**24},\)": {"maps": header((1, 9, 8)), "labels": header((2**24,))},
        r"holds an array of uint8 \(257,\); expected .* up to 256 of them": {
            "maps": header((1, 9, 8)),
            "labels": header((1, 257)) + bytes(257),
            "names": header((257,)) + bytes(257),
        },
    }
    tracemalloc.start()
    try:
        for expected, arrays in cases.items():
            with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in arrays.items():
                    archive.writestr(f"{name}.npy", header((72,)) if content is FLAT else content)
            with pytest.raises(DataError, match=expected):
                wafer_maps(zipped)
        path.write_bytes(header((2**21, 8, 8)))
        tracemalloc.reset_peak()
        with pytest.raises(DataError, match="cut short"):
            wafer_maps(path)
        path.write_bytes(header((2**28, 1, 1)))
        with pytest.raises(DataError, match=f"has {2**28} maps"):
            wafer_maps(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_the_digest(tmp_path: Path) -> None:
    path = make_wafer_maps(tmp_path / "a")
    first = open_split("x", path, "maps").fingerprint()
    assert first == open_split("y", make_wafer_maps(tmp_path / "b"), "maps").fingerprint()
    savez(path, maps=np.zeros((3, 9, 9), np.uint8))
    assert first != open_split("x", path, "maps").fingerprint()


def test_real_maps(shared_data: Path) -> None:
    for folder, count, first in (("wm811k", 12_450, ("Loc",)), ("mixedwm38", 5_703, None)):
        path = shared_data / "wafers" / folder / "val_data.npz"
        maps = wafer_maps(path)
        assert len(maps) == count
        assert first is None or maps.labels[0] == first
        for index in range(0, count, count // 20):
            assert set(np.unique(maps[index])) <= {0, 1, 2}
            assert maps[index].shape == maps.shapes[index]
        assert maps[count - 1].size == maps.shapes[-1][0] * maps.shapes[-1][1]
        assert recognise(path.parent)
    with np.load(shared_data / "wafers" / "mixedwm38" / "val_data.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(maps[1234], file["maps"][1234])
        patterns = file["names"].tolist()
        marked = file["labels"].any(axis=1)
        assert [bool(label) for label in maps.labels] == marked.tolist()
    assert patterns == list(MIXED_PATTERNS)
