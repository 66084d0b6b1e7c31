"""`fullconv predict` for folders: what it says, and how it goes on."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rich.progress import Progress

import rasters
from command import Result, Run, one_line
from fullconv.cli.options import bytes_of, tile_of
from fullconv.cli.predict import _labelling
from fullconv.errors import OptionError
from fullconv.inference.labelling import WRITING
from fullconv.inference.model import Model
from fullconv.inference.predict import Outcome
from fullconv.inference.predict import predict as label
from fullconv.nets import build
from makers import save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    Model(net).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(4):
        save(tmp_path / "in" / f"{index}.png", np.full((5, 6, 3), index, np.uint8))
    return tmp_path / "in"


def test_a_call_goes_on(run: Run, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("predict", model, images, "-o", out) == Result(0, f"4 labelled in {out}\n", "")
    (out / "2.png").unlink()
    assert run("predict", model, images, "-o", out, "--resume") == Result(0, f"1 labelled in {out}, 3 kept\n", "")
    machine = json.loads(run("predict", model, images, "-o", out, "--resume", "--json").out)
    assert machine == {"written": [], "kept": [str(out / f"{i}.png") for i in range(4)], "failures": [], "notes": []}
    (images / "1.png").write_bytes(b"no picture")
    failed = run("predict", model, images, "-o", out, "--resume")
    assert (failed.code, failed.out) == (1, f"0 labelled in {out}, 3 kept, 1 failed\n")


def test_notes_are_told_as_they_come(
    run: Run, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", model, images, "-o", tmp_path / "out")
    why = "a call that stopped had labelled 4 of these 4 images; --resume keeps them"
    run(*words)
    (tmp_path / "out" / "shares.csv").unlink()  # as a call that stopped leaves it
    assert run(*words).err == f"Note: {why}\n"
    (tmp_path / "out" / "shares.csv").unlink()
    machine = run(*words, "--json")
    assert (machine.err, json.loads(machine.out)["notes"]) == ("", [why])


def test_resume_needs_the_options_of_the_call(run: Run, model: Path, images: Path, tmp_path: Path) -> None:
    words = ("predict", model, images, "-o", tmp_path / "out")
    run(*words, "--overlay")
    before = sorted(each.read_bytes() for each in (tmp_path / "out").iterdir())
    assert run(*words, "--resume") == Result(
        2, "",
        f"fullconv: {tmp_path / 'out'} was labelled with overlay True, not False; --resume needs the options of that "
        "call: repeat them, or leave --resume out to label anew\n",
    )  # fmt: skip
    assert sorted(each.read_bytes() for each in (tmp_path / "out").iterdir()) == before, "nothing is touched"


def test_ctrl_c_says_how_to_go_on(
    run: Run, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> Outcome:
        signal.raise_signal(signal.SIGINT)
        return Outcome()

    monkeypatch.setattr("fullconv.inference.predict.predict", stop)
    hint = "What was labelled is kept; go on with --resume\n"
    assert run("predict", model, images, "-o", tmp_path / "out") == Result(130, "", hint + "fullconv: interrupted\n")
    single = run("predict", model, images / "0.png", "-o", tmp_path / "one.png")
    assert single == Result(130, "", "fullconv: interrupted\n")


def test_a_file_where_the_folder_should_be_is_one_error(run: Run, model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = one_line(run("predict", model, images, "-o", tmp_path / "file"), 1)
    assert said == f"{tmp_path / 'file'} is a file; masks go into a folder: name another"
    assert one_line(run("predict", model, images / "0.png", "-o", tmp_path / "a.png", "--resume"), 2)


def test_a_folder_is_labelled_by_the_script_as_by_python(run: Run, model: Path, images: Path, tmp_path: Path) -> None:
    run("predict", model, images, "-o", tmp_path / "script")
    label(model, images, tmp_path / "python")
    for path in (tmp_path / "python").iterdir():
        assert (tmp_path / "script" / path.name).read_bytes() == path.read_bytes()
    shutil.rmtree(tmp_path / "python")


def test_the_help_says_how_much_memory_is_used(run: Run) -> None:
    words = run("predict", "--help").out.replace("│", " ").split()
    assert "such as 2GiB; default: half of the machine's." in " ".join(words)


def test_the_bar_tells_the_time_left() -> None:
    now = 0.0
    with Progress(get_time=lambda: now, disable=True) as bar:
        show = _labelling(bar)
        (task,) = bar.tasks
        show(1000, 2000, "a.png")  # kept, which says nothing of the speed
        assert (task.completed, task.total, task.fields["facts"]) == (1000, 2000, "")
        for done in range(1001, 1011):
            now += 0.5
            show(done, 2000, "b.png")
        assert task.fields["facts"] == "8:15 left"  # 990 images, each half a second
        show(1011, 2000, WRITING)
        assert task.fields["facts"] == "writing the GeoTIFF"


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """That lies on earth, with a rectangle without data."""
    values = rasters.noise(90, 70)
    values[20:50, 30:60] = 0
    return rasters.write(tmp_path / "scene.tif", values, nodata=0)


PLAN = r"Note: scene\.tif: 90 x 70 pixels, \d+ rows at a time.*more than in one piece; about \d+\.\d\d GiB\n"
"""What is said before a raster is labelled."""


class TestRasters:
    def test_from_file_to_files(self, run: Run, model: Path, raster: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        said = run("predict", model, raster, "-o", out, "--confidence", "--tile", "64", "--engine", "torch")
        assert (said.code, said.out) == (0, f"1 labelled: {out / 'scene.tif'}\n")
        assert re.fullmatch(PLAN, said.err)
        with rasterio.open(raster) as was, rasterio.open(out / "scene.tif") as written:
            assert (written.crs, written.transform, written.shape) == (was.crs, was.transform, was.shape)
            labels, values = written.read(1), np.moveaxis(was.read(), 0, 2)
        void = (values == 0).all(axis=2)
        expected = np.where(void, 255, Model.load(model).predict(np.ascontiguousarray(values)).labels)
        assert void.sum() == 900
        assert (labels != expected).mean() < 1e-3
        assert ((labels == 255) == void).all()
        with rasterio.open(out / "scene_confidence.tif") as written:
            confidences = written.read()
        at_label = np.take_along_axis(confidences, np.where(void, 0, labels)[None].astype(int), 0)[0]
        assert (at_label == confidences.max(0))[~void].all()
        assert sorted(path.name for path in out.iterdir()) == [
            ".labelled.jsonl", "scene.tif", "scene_confidence.tif", "shares.csv",
        ]  # fmt: skip
        assert run("predict", model, raster, "-o", out, "--confidence", "--tile", "64", "--resume") == Result(
            0, f"0 labelled in {out}, 1 kept\n", ""
        )

    def test_a_single_one(self, run: Run, model: Path, raster: Path, tmp_path: Path) -> None:
        out = tmp_path / "one.tif"
        said = run("predict", model, raster, "-o", out)
        assert (said.code, said.out) == (0, f"1 labelled: {out}\n")
        assert re.fullmatch(PLAN, said.err)
        assert {path.name for path in tmp_path.iterdir()} == {"one.tif", ".one.tif.labelled.jsonl", "scene.tif"}
        kept = run("predict", model, raster, "-o", out, "--resume")
        assert kept == Result(0, f"0 labelled in {out}, 1 kept\n", "")

    def test_of_no_place_are_pictures_without_a_warning(self, run: Run, model: Path, tmp_path: Path) -> None:
        plain, out = save(tmp_path / "plain.tif", rasters.noise(20, 30)), tmp_path / "out"
        assert run("predict", model, plain, "-o", out) == Result(0, f"1 labelled: {out / 'plain.png'}\n", "")

    def test_compared_with_the_plain_net(self, run: Run, model: Path, raster: Path, tmp_path: Path) -> None:
        words = ("predict", model, raster, "-o", tmp_path / "out", "--verify")
        first, second, *_ = run(*words).out.splitlines()
        number = r"\d\.\de-\d\d"
        assert re.fullmatch(
            f"scene.tif against the plain net on the whole image: largest score difference {number} of the largest "
            r"score \(float32\), \d+ of 6,300 labels differ( \(\d+ of them exact ties\))?", first,
        )  # fmt: skip
        assert second == f"1 labelled: {tmp_path / 'out' / 'scene.tif'}"
        machine = json.loads(run(*words, "--json").out)
        (check,) = machine["checks"]
        assert check["image"] == str(raster)
        assert check["difference"] <= 1e-5
        assert (check["whole"], check["pixels"], check["precision"]) == (True, 90 * 70, "float32")

    def test_pictures_are_compared_too(self, run: Run, model: Path, images: Path, tmp_path: Path) -> None:
        said = run("predict", model, images, "-o", tmp_path / "out", "--verify", "--tile", "off")
        lines = said.out.splitlines()
        assert [line.split()[0] for line in lines[:-1]] == [f"{i}.png" for i in range(4)]
        assert all("of 30 labels differ" in line for line in lines[:-1])

    def test_a_bad_one_is_named_and_the_others_are_done(
        self, run: Run, model: Path, raster: Path, tmp_path: Path
    ) -> None:
        content = raster.read_bytes()
        (tmp_path / "bad.tif").write_bytes(content[: len(content) // 2])
        out = tmp_path / "out"
        said = run("predict", model, tmp_path / "bad.tif", raster, "-o", out)
        assert (said.code, said.out) == (1, f"1 labelled: {out / 'scene.tif'}, 1 failed\n")
        assert [line.split(":")[0] for line in said.err.splitlines()] == ["Note", "Note", str(tmp_path / "bad.tif")]

    def test_auto_says_what_it_chose(self, run: Run, model: Path, raster: Path, tmp_path: Path) -> None:
        said = run("predict", model, raster, "-o", tmp_path / "out", "--engine", "auto")
        assert said.code == 0
        assert re.fullmatch(r"Note: engine \w+: .*\n" + PLAN, said.err)


class TestMistakes:
    """One clear line each, and nothing is written."""

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("--tile", "all"), "a tile of 'all'; expected a number of pixels, auto or off"),
            (("--tile", "0"), "a tile of 0; expected a number of pixels, auto or off"),
            (("--tile", "-64"), "a tile of '-64'; expected a number of pixels, auto or off"),
            (("--tile", "1e3"), "a tile of '1e3'; expected a number of pixels, auto or off"),
            (("--tile", "10000000"), "--tile '10000000'; expected at most 999999 pixels, or off for the"),
            (("--memory", "lots"), "--memory 'lots'; expected a number of bytes with its unit, such as 2GiB or 800MiB"),
            (("--memory", "-2GiB"), "--memory '-2GiB'; expected a number of bytes with its unit"),
            (("--memory", "0.1B"), "--memory '0.1B'; expected a number of bytes with its unit"),
            (("--memory", "0"), "--memory '0'; expected a number of bytes with its unit"),
            (("--memory", "2"), r"0.00 GiB of memory for images of 90 x 70; give at least \d+\.\d\dGiB"),
            (("--engine", "tensorrt"), "unknown engine 'tensorrt'.*Choices: auto, compile, openvino, torch"),
            (("--precision", "float64"), "unknown precision 'float64'.*Choices: auto, bfloat16, float32, int8"),
            (("--precision", "int8"), "precision 'int8' with engine 'torch'; int8 is OpenVINO's: --engine openvino"),
            (("--overlay",), "scene.tif is labelled as a raster, of which there is no overlay and no .npy of scores"),
            (("--scores",), "scene.tif is labelled as a raster, of which there is no overlay and no .npy of scores"),
        ],
    )  # fmt: skip
    def test_of_options(
        self, run: Run, model: Path, raster: Path, tmp_path: Path, words: tuple[str, ...], expected: str
    ) -> None:
        said = one_line(run("predict", model, raster, "-o", tmp_path / "out", *words), 2)
        assert re.search(expected, said)
        assert not list((tmp_path / "out").glob("*.*")) or words[0] == "--memory"

    def test_confidences_of_a_picture(self, run: Run, model: Path, images: Path, tmp_path: Path) -> None:
        said = one_line(run("predict", model, images, "-o", tmp_path / "out", "--confidence"), 2)
        assert "0.png is no raster, and confidences are bands of one" in said

    @pytest.mark.parametrize("name", ["one.png", "one.tif"])
    def test_one_file_for_several(
        self, run: Run, model: Path, raster: Path, images: Path, tmp_path: Path, name: str
    ) -> None:
        said = one_line(run("predict", model, raster, images, "-o", tmp_path / name), 2)
        assert said == f"{tmp_path / name} is one file for 5 images; give a folder"

    def test_the_raster_itself(self, run: Run, model: Path, raster: Path) -> None:
        assert "would replace an image" in one_line(run("predict", model, raster, "-o", raster), 2)

    def test_another_call_is_gone_on_with(
        self, run: Run, model: Path, raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a Ctrl-C left of one tile is not mixed with another's."""
        monkeypatch.setattr("fullconv.inference.spool.SECONDS", 0)
        label = "fullconv.inference.raster._finish"
        out = tmp_path / "one.tif"
        with monkeypatch.context() as patch:
            patch.setattr(label, lambda *args: signal.raise_signal(signal.SIGINT))
            said = run("predict", model, raster, "-o", out)
        hint = "What was labelled is kept; go on with --resume\nfullconv: interrupted\n"
        assert (said.code, said.out) == (130, "")
        assert re.fullmatch(PLAN + hint, said.err)
        refused = run("predict", model, raster, "-o", out, "--resume", "--tile", "64")
        assert refused.code == 2
        assert "label it as it was begun, or leave --resume out to begin again" in refused.err.splitlines()[-1]
        assert run("predict", model, raster, "-o", out, "--resume").out == f"1 labelled: {out}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GiB", 2 << 30), ("800MiB", 800 << 20), ("1.5GB", 1_500_000_000), ("3KiB", 3072), ("2K", None), ("1Ti", None),
        ("7TB", 7_000_000_000_000), ("1TiB", 1 << 40), ("123", 123), ("123B", 123), (" 0.5 GiB ", 1 << 29),
        ("", None), ("0", None), ("0GiB", None), ("-1GiB", None), ("1e9", None), ("GiB", None), ("1.GiB", None),
        (".5GiB", None), ("1,5GiB", None), ("2gib", None), ("2GiBs", None), ("nan", None), ("inf", None),
        ("9" * 16, None), ("1 0GiB", None), ("2iB", None), ("0.1B", None), ("0.9", None), ("0.1KB", 100),
    ],
)  # fmt: skip
def test_bytes(text: str, expected: int | None) -> None:
    if expected is not None:
        assert bytes_of(text, "--memory") == expected
        return
    with pytest.raises(OptionError) as caught:
        bytes_of(text, "--memory")
    message = "expected a number of bytes with its unit, such as 2GiB or 800MiB"
    assert str(caught.value) == f"--memory {text!r}; {message}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512", 512), ("0", 0), ("999999", 999_999), ("auto", "auto"), ("-5", "-5"), ("", ""),
     ("6\u00b2", "6\u00b2"), ("5.0", "5.0")],
)  # fmt: skip
def test_tiles(text: str, expected: int | str) -> None:
    found = tile_of(text)
    assert found == expected
    assert type(found) is type(expected)
