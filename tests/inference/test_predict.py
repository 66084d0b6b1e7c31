"""Files in, masks out: every format, every kind of name, and nothing lost or half written."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fullconv
from fullconv.data.image import read_image
from fullconv.data.sample import Array
from fullconv.data.wafer import WAFER_LABELS, generate, render
from fullconv.errors import DataError, ModelFileError, OptionError
from fullconv.inference import batches, labelling
from fullconv.inference.batches import ahead
from fullconv.inference.journal import NAME as JOURNAL
from fullconv.inference.model import Model, Prediction
from fullconv.inference.predict import plan, predict, predict_files
from fullconv.inference.shares import NAME as SHARES
from fullconv.labels import LabelSet
from fullconv.nets import build
from makers import save, scene

LABELS = LabelSet(("ground", "road", "car"), ((10, 20, 30), (255, 0, 0), (0, 0, 255)))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    return Model(net, LABELS)


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden and temporary files too, but for the journal and the table of shares."""
    found = [path for path in folder.rglob("*") if path.is_file() and path not in (folder / JOURNAL, folder / SHARES)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def mask(path: Path) -> Array:
    with Image.open(path) as opened:
        assert opened.mode == "P"
        assert opened.format == "PNG"
        palette = np.array(opened.getpalette("RGB"), np.uint8).reshape(-1, 3)[:3]
        assert np.array_equal(palette, np.array(LABELS.colours))
        return np.asarray(opened)


def test_every_format_is_labelled_at_its_size(model: Model, tmp_path: Path) -> None:
    sizes = {"a.png": (1, 1), "b.tif": (1, 37), "c.bmp": (53, 56), "d.webp": (37, 1), "e.jpg": (40, 9), "f.npy": (7, 8)}
    sizes |= {"g.JPEG": (12, 13), "h.tiff": (12, 13)}
    images = tmp_path / "in"
    images.mkdir()
    for seed, (name, size) in enumerate(sizes.items()):
        if name.endswith(".npy"):
            np.save(images / name, picture(seed, size))
        elif name.endswith(".webp"):
            Image.fromarray(picture(seed, size)).save(images / name, lossless=True)
        else:
            save(images / name, picture(seed, size))
    seen: list[tuple[int, int, str]] = []
    outcome = predict(model, images, tmp_path / "out", progress=lambda *args: seen.append(args))
    assert outcome.failures == []
    assert outcome.written == [(tmp_path / "out" / name).with_suffix(".png") for name in sizes]
    assert seen == [(index, len(sizes), name) for index, name in enumerate(sizes, 1)]
    assert files(tmp_path / "out") == sorted(path.name for path in outcome.written)
    for (name, size), path in zip(sizes.items(), outcome.written, strict=True):
        assert mask(path).shape == size
        assert np.array_equal(mask(path), model.predict(images / name).labels)


def test_a_rotated_photograph_is_labelled_upright(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0, (20, 30))).save(tmp_path / "a.jpg", exif=exif)
    (written,) = predict(model, tmp_path / "a.jpg", tmp_path / "out").written
    assert mask(written).shape == (30, 20)


def test_overlays_and_scores_lie_beside_the_masks(model: Model, tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", picture(3, (53, 56)))
    predict(model, image, tmp_path / "out", overlay=True, scores=True)
    assert files(tmp_path / "out") == ["a.png", "a_overlay.png", "a_scores.npy"]
    prediction = model.predict(image)
    scores = np.load(tmp_path / "out" / "a_scores.npy")
    assert scores.dtype == np.float32
    assert np.array_equal(scores, prediction.scores())
    assert np.array_equal(scores.argmax(0), mask(tmp_path / "out" / "a.png"))
    with Image.open(tmp_path / "out" / "a_overlay.png") as shown:
        assert np.array_equal(np.asarray(shown), prediction.overlay())


def test_files_by_the_thousand_do_not_wait_for_the_disk(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waited for the disk"))
    outcome = predict(model, save(tmp_path / "a.png", picture(0)), tmp_path / "out", overlay=True, scores=True)
    assert len(outcome.written) == 1


def test_scores_of_a_learned_last_upsampling(tmp_path: Path) -> None:
    model = Model(build("fcn8s-slim", 3, width=0.1, upsampling="learned-all"), LABELS)
    outcome = predict(model, save(tmp_path / "a.png", picture(0)), tmp_path / "out", scores=True)
    assert outcome.failures == []
    assert np.load(tmp_path / "out" / "a_scores.npy").shape == (3, 20, 30)


def test_a_single_file_may_name_its_mask(model: Model, tmp_path: Path) -> None:
    image = save(tmp_path / "a.jpg", picture(0))
    outcome = predict(model, str(image), tmp_path / "x" / "mask.PNG", overlay=True)
    assert outcome.written == [tmp_path / "x" / "mask.PNG"]
    assert files(tmp_path / "x") == ["mask.PNG", "mask_overlay.png"]


def test_a_model_file_serves_too(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    image = save(tmp_path / "a.png", picture(0))
    outcome = fullconv.predict(tmp_path / "m.safetensors", image, tmp_path / "out")
    assert np.array_equal(mask(outcome.written[0]), model.predict(image).labels)
    with pytest.raises(ModelFileError, match="no.safetensors does not exist"):
        predict(tmp_path / "no.safetensors", image, tmp_path / "out")


def test_bad_files_are_named_and_the_good_ones_done(model: Model, tmp_path: Path) -> None:
    images = tmp_path / "in"
    for name in ("0.png", "3.png", "6.png"):
        save(images / name, picture(int(name[0])))
    buffer = io.BytesIO()
    Image.fromarray(picture(9, (200, 200))).save(buffer, "PNG")
    (images / "1.png").write_bytes(buffer.getvalue()[:3000])
    (images / "2.jpg").write_bytes(b"")
    (images / "4.webp").write_text("no picture")
    np.save(images / "5.npy", np.zeros((4, 4), np.float64))
    seen: list[int] = []
    outcome = predict(model, images, tmp_path / "out", overlay=True, progress=lambda done, *_: seen.append(done))
    assert [path.name for path in outcome.written] == ["0.png", "3.png", "6.png"]
    assert [path.name for path, _ in outcome.failures] == ["1.png", "2.jpg", "4.webp", "5.npy"]
    for path, why in outcome.failures:
        assert str(path) in why
        assert "\n" not in why
    assert files(tmp_path / "out") == sorted(f"{n}{end}.png" for n in "036" for end in ("", "_overlay"))
    assert seen == list(range(1, 8)), "the failed files count too"


def test_a_mask_that_cannot_be_written_is_a_failure_of_its_file(model: Model, tmp_path: Path) -> None:
    images = [save(tmp_path / "in" / name, picture(0)) for name in ("a.png", "b.png")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").mkdir()  # a folder where the mask should be
    outcome = predict(model, images, tmp_path / "out")
    assert [path.name for path in outcome.written] == ["b.png"]
    ((path, why),) = outcome.failures
    assert path == images[0]
    assert "a.png: cannot be written" in why
    assert files(tmp_path / "out") == ["b.png"], "no temporary file"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is a file; masks go into a folder: name another"):
        predict(model, images, tmp_path / "file")


def test_a_picture_counts_in_the_bound(model: Model, tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.zeros((1500, 2000, 3), np.uint8))

    def least(**options: bool) -> float:
        with pytest.raises(OptionError, match="for images of 1500 x 2000; give at least") as caught:
            predict(model, image, tmp_path / "out" / "a.png", memory=1, **options)
        return float(str(caught.value).removesuffix("GiB").rsplit(" ")[-1]) * 2**30

    pixels, step = 1500 * 2000, 2**30 / 50
    assert least() > 350 * 2**20 + 7 * pixels
    assert least(scores=True) - least() > 4 * 3 * pixels - step


def test_so_is_an_overlay(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out" / "a_overlay.png").mkdir(parents=True)
    ((_, why),) = predict(model, save(tmp_path / "a.png", picture(0)), tmp_path / "out", overlay=True).failures
    assert "a.png: its overlay or scores cannot be written" in why
    assert files(tmp_path / "out") == ["a.png"]


def test_an_older_mask_stays_whole_until_the_new_one_is(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save(tmp_path / "a.png", picture(0))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"older")

    replace = Path.replace

    def locked(self: Path, target: Path) -> Path:
        if target.suffix == ".png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", locked)
    ((_, why),) = predict(model, image, tmp_path / "out").failures
    assert "Permission denied" in why
    assert (tmp_path / "out" / "a.png").read_bytes() == b"older"
    assert files(tmp_path / "out") == ["a.png"]


def test_large_images_are_read_and_written_one_a_thread(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decoded and not written yet stays few, however far the disk could run ahead of the net."""
    for index in range(12):
        save(tmp_path / "in" / f"{index:02}.bmp", picture(index))
    alive: list[int] = []
    read, written = 0, 0

    def count(path: Path) -> Array:
        nonlocal read
        read += 1
        alive.append(read - written)
        return read_image(path)

    def save_mask(self: Prediction, path: Path) -> None:
        nonlocal written
        time.sleep(0.01)
        path.write_bytes(b"mask")
        written += 1

    monkeypatch.setattr("fullconv.inference.model.as_image", count)
    monkeypatch.setattr(Prediction, "save", save_mask)
    monkeypatch.setattr(batches, "AHEAD_PIXELS", 600)  # one of these images
    monkeypatch.setattr(batches, "BATCH_PIXELS", 600)
    monkeypatch.setattr(labelling, "ahead", partial(ahead, budget=600))
    assert len(predict(model, tmp_path / "in", tmp_path / "out").written) == 12
    assert max(alive) <= 8, "two being read, one or two read, two in the net's hands, two being written"


def test_inputs_that_match_nothing(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    for given in ("missing.png", "missing", "*.jpg", "empty/*.png"):
        with pytest.raises(DataError, match="does not exist and matches no file; check the path"):
            predict(model, str(tmp_path / given), tmp_path / "out")
    with pytest.raises(DataError, match=r"empty holds no image; expected files ending in \.bmp, \.jpeg"):
        predict(model, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_net_that_images_alone_do_not_feed(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", picture(0))
    two = Model(build("fcn8s-slim", 3, channels={"image": 3, "depth": 1}, width=0.1))
    with pytest.raises(OptionError, match="this net has several inputs; label its images in Python"):
        predict_files(two, plan([image], tmp_path / "out"))
    grey = Model(build("fcn8s-slim", 3, channels=1, width=0.1))
    with pytest.raises(OptionError, match=r"the net takes an \(H, W, 1\) uint8 array"):
        predict_files(grey, plan([image], tmp_path / "out"))


def test_many_small_images_come_out_in_order(model: Model, tmp_path: Path) -> None:
    for index in range(25):
        save(tmp_path / "in" / f"{index:02}.bmp", picture(index, (5 + index % 2, 6)))
    outcome = predict(model, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in outcome.written] == [f"{index:02}.png" for index in range(25)]
    for index, path in enumerate(outcome.written):
        assert np.array_equal(mask(path), model.predict(picture(index, (5 + index % 2, 6))).labels)


def test_notes_say_what_the_labels_are_worth(tmp_path: Path) -> None:
    save(tmp_path / "a.png", scene(0)[0])
    net = build("fcn8s-slim", {"kind": 3, "ground": 2}, width=0.1)
    model = Model(net)
    outcome = predict(model, tmp_path / "a.png", tmp_path / "out")
    assert outcome.notes == [
        "the score layers are all zero: every pixel is of class 0 until the model is trained",
        "these are the labels of 'kind'; for ground use Model.predict_tasks in Python",
    ]
    torch.nn.init.ones_(net.heads["kind"].score["image"]["8"].bias)
    assert predict(model, tmp_path / "a.png", tmp_path / "out").notes == outcome.notes[1:]


def test_every_map_of_a_file_of_wafer_maps_is_labelled(tmp_path: Path) -> None:
    maps = np.stack([generate(0, index)[0] for index in range(3)])
    (tmp_path / "lots").mkdir()
    np.savez(tmp_path / "lots" / "a.npz", maps=maps, labels=np.array(["Center", "Loc", "None"]))
    np.save(tmp_path / "stack.npy", maps)
    model = Model(build("fcn1s-slim", 5, width=0.1), WAFER_LABELS)
    for head in model.net.heads.parameters():
        torch.nn.init.normal_(head)
    outcome = predict(model, [tmp_path / "lots", tmp_path / "stack.npy"], tmp_path / "out")
    assert not outcome.failures
    assert len(outcome.written) == 6
    for path, index in zip(outcome.written, [0, 1, 2, 0, 1, 2], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), model.predict(render(maps[index])).labels)
    assert [path.stem for path in outcome.written[:3]] == ["a_000000_Center", "a_000001_Loc", "a_000002_None"]
    with pytest.raises(OptionError, match="is one file for 3 images; give a folder"):
        predict(model, tmp_path / "stack.npy", tmp_path / "one.png")


def test_labelling_a_picture_loads_no_compiler_and_no_optional_package(model: Model, tmp_path: Path) -> None:
    """Of the time to the first mask, torch's compiler alone would be half."""
    model.save(tmp_path / "m.safetensors")
    save(tmp_path / "a.png", picture(0, (20, 30)))
    heavy = ("torch._dynamo", "sympy", "accelerate", "matplotlib", "rasterio", "scipy", "openvino", "tensorboard")
    code = f"""
import sys
from fullconv.inference.predict import predict
predict("m.safetensors", "a.png", "out")
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
