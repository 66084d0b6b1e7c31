"""The facts of single files, against counts pixel by pixel."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullconv.data.bands import input_of
from fullconv.data.doctor.facts import KEPT_VALUES, as_read, counted, image_facts, mask_facts, summed
from fullconv.data.doctor.similar import look_of
from fullconv.data.mask import MaskReader, RawMask, read_raw
from fullconv.data.scenes import Input, Task
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet
from makers import save

TASK = Task(LabelSet.numbered(3), MaskReader(3))


def plain(values: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    """Pixels of each value, and those whose right, lower and diagonal neighbours are equal; one by one."""
    wide = values.astype(int)
    numbers = wide if values.ndim == 2 else wide[..., 0] * 65536 + wide[..., 1] * 256 + wide[..., 2]
    counts, flat = Counter[int](), Counter[int]()
    for y, x in np.ndindex(*numbers.shape):
        counts[int(numbers[y, x])] += 1
        block = numbers[y : y + 2, x : x + 2]
        flat[int(numbers[y, x])] += block.shape == (2, 2) and bool((block == block[0, 0]).all())
    return counts, flat


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from([("uint8", 2), ("uint16", 2), ("uint8", 3)]),
    st.integers(1, 150),
)
def test_counts_are_those_of_a_loop(
    seed: int, height: int, width: int, most: int, kind: tuple[str, int], block: int
) -> None:
    rng = np.random.default_rng(seed)
    dtype, axes = kind
    values = rng.integers(0, most, (height, width, 3)[:axes]).astype(dtype)
    whole = counted(RawMask(values, None, lossy=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fullconv.data.doctor.facts._BLOCK", block)
        facts = counted(RawMask(values, None, lossy=False))
    assert facts.digest == whole.digest
    counts, flat = plain(values)
    assert dict(zip(facts.values.tolist(), facts.counts.tolist(), strict=True)) == counts
    assert facts.values.tolist() == sorted(counts)
    assert dict(zip(facts.values.tolist(), facts.flat.tolist(), strict=True)) == {v: flat[v] for v in counts}
    assert (facts.size, facts.pixels) == ((height, width), height * width)
    assert facts.coloured == (axes == 3)
    assert facts.grey == (axes == 3 and bool((values == values[..., :1]).all()))


def test_of_many_colours_the_most_frequent_are_kept() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    values[:30, :30] = (9, 8, 7)
    values[30:32, :8] = (0, 0, 1)
    facts = counted(RawMask(values, None, lossy=False))
    assert len(facts.values) == KEPT_VALUES
    kept = dict(zip(facts.values.tolist(), facts.counts.tolist(), strict=True))
    assert (kept[0x090807], kept[0x000001], facts.pixels) == (900, 16, 3600)
    assert facts.flat[facts.values.tolist().index(0x090807)] == 29 * 29


def test_noise_is_counted_exactly_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    values[:, :, 0] &= 3  # 2 ** 18 colours: some occur more than once, in different blocks
    monkeypatch.setattr("fullconv.data.doctor.facts._BLOCK", 3000)
    facts = counted(RawMask(values, None, lossy=False))
    wide = values.astype(np.int64)
    colours, counts = np.unique(wide[..., 0] * 65536 + wide[..., 1] * 256 + wide[..., 2], return_counts=True)
    of = dict(zip(colours.tolist(), counts.tolist(), strict=True))
    assert facts.counts.tolist() == [of[colour] for colour in facts.values.tolist()]
    assert sorted(facts.counts.tolist()) == sorted(of.values())[-KEPT_VALUES:]


def test_the_sums_of_several_masks() -> None:
    masks = [np.array([[0, 0, 1], [0, 0, 1]], np.uint8), np.array([[1, 1, 2], [1, 1, 2]], np.uint8)]
    counts, flat = summed([counted(RawMask(mask, None, lossy=False)) for mask in masks])
    assert (counts, flat) == ({0: 4, 1: 6, 2: 2}, {0: 1, 1: 1, 2: 0})


def test_a_palette_mask_has_the_colours_of_its_values(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 4, 5)))
    facts = mask_facts(save(tmp_path / "a.png", np.array([[0, 2], [2, 255]], np.uint8), labels), TASK)
    assert facts.palette is not None
    assert facts.palette.tolist() == [[1, 1, 1], [3, 4, 5], [224, 224, 192]]
    assert not facts.coloured


def test_lossy_masks_say_so_and_turned_ones_are_upright(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), np.uint8)
    assert not mask_facts(save(tmp_path / "a.png", mask), TASK).lossy
    assert mask_facts(save(tmp_path / "a.jpg", mask), TASK).lossy
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(mask).save(tmp_path / "b.png", exif=exif)
    facts = mask_facts(tmp_path / "b.png", TASK)
    assert facts.size == (6, 4)


def test_masks_differ_by_their_digest_and_not_by_their_counts(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    one, same, mirrored = (save(tmp_path / f"{n}.png", m) for n, m in enumerate((mask, mask, mask[:, ::-1])))
    digests = [mask_facts(path, TASK).digest for path in (one, same, mirrored)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "8-bit RGB"), ("L", "8-bit grey"), ("P", "8-bit palette"), ("RGBA", "8-bit RGBA"), ("CMYK", "8-bit CMYK"),
     ("1", "1-bit"), ("I;16", "16-bit grey")],
)  # fmt: skip
def test_every_kind_of_image(tmp_path: Path, mode: str, kind: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(rgb).convert(mode) if mode != "I;16" else Image.fromarray(rgb[..., 0].astype(np.uint16))
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    facts = image_facts(path, Input())
    assert (facts.problem, facts.kind, facts.size, facts.orientation, facts.constant) == (None, kind, (5, 7), 1, False)


def test_an_array_and_a_raster(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 9, (4, 5, 3), dtype=np.uint8))
    assert image_facts(tmp_path / "a.npy", Input()).kind == "8-bit RGB"
    bands = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    np.save(tmp_path / "b.npy", bands)
    facts = image_facts(tmp_path / "b.npy", input_of(tmp_path / "b.npy"))
    assert (facts.problem, facts.kind) == (None, "6 bands of float32")
    assert not facts.constant, "values between 0 and 1"
    mean = bands.mean(2)
    grey = ((mean - mean.min()) * (255 / (mean.max() - mean.min()))).astype(np.uint8)
    assert facts.look.hash == look_of(grey).hash


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_size_and_is_told(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    facts = image_facts(tmp_path / "a.jpg", Input())
    assert facts.orientation == orientation
    assert facts.size == ((4, 6) if orientation < 5 else (6, 4))


def test_digests_are_of_pixels_and_not_of_files(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    paths = [save(tmp_path / name, rgb) for name in ("a.png", "b.bmp")]
    paths.append(save(tmp_path / "c.png", rgb.reshape(7, 5, 3)))
    first, same, other = (image_facts(path, Input()).digest for path in paths)
    assert first == same != other


@pytest.mark.parametrize(("colour", "constant"), [((7, 7, 7), True), ((7, 80, 9), True), (None, False)])
def test_one_colour_everywhere(tmp_path: Path, colour: tuple[int, int, int] | None, constant: bool) -> None:
    rgb = np.full((5, 7, 3), colour or 0, np.uint8)
    if colour is None:
        rgb[4, 6, 2] = 1
    assert image_facts(save(tmp_path / "a.png", rgb), Input()).constant == constant


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken", b"GIF89a", b"text"])
def test_what_cannot_be_read_is_a_problem_of_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a\nb.png"
    path.write_bytes(content)
    for facts in (image_facts(path, Input()), mask_facts(path, TASK)):
        assert facts.problem is not None
        assert facts.problem.startswith(str(tmp_path))
        assert "\n" not in facts.problem
    assert "no such file" in str(mask_facts(tmp_path / "none.png", TASK).problem)


def test_a_palette_mask_is_read_as_its_reader_would(tmp_path: Path) -> None:
    colours = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
    reader = MaskReader(3, colors=colours)
    # Indices 4, 5, 6 are no classes, their colours are: an optimiser made an RGB mask a palette one.
    values = np.array([[4, 5], [6, 4]], np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[4:7] = list(colours)
    picture = Image.fromarray(values)
    picture.putpalette(palette.tobytes())
    picture.save(tmp_path / "a.png")
    raw = as_read("a", read_raw(tmp_path / "a.png"), reader)
    np.testing.assert_array_equal(raw.values, palette[values])
    assert mask_facts(tmp_path / "a.png", Task(LabelSet.numbered(3), reader)).coloured
    assert not mask_facts(tmp_path / "a.png", TASK).coloured

    palette[:3] = [(0, 255, 0), (255, 0, 0), (0, 0, 0)]
    picture = Image.fromarray(values - 4)
    picture.putpalette(palette.tobytes())
    picture.save(tmp_path / "b.png")
    with pytest.raises(
        DataError, match=r"^b: is a palette mask, where index 0 is class 0 by its number and class 2 by"
    ):
        as_read("b", read_raw(tmp_path / "b.png"), reader)
    problem = mask_facts(tmp_path / "b.png", Task(LabelSet.numbered(3), reader)).problem
    assert "is a palette mask" in str(problem)

    other = save(tmp_path / "c.png", np.array([[0, VOID]], np.uint8), LabelSet.numbered(3))
    assert not mask_facts(other, Task(LabelSet.numbered(3), reader)).coloured, "void has no colour of its own here"
