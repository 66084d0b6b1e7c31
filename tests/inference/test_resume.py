"""A call that stops, however, and goes on leaves byte for byte the folder of one that never stopped."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fullconv.data.wafer import WAFER_LABELS, generate
from fullconv.errors import DataError, OptionError
from fullconv.inference import batches, labelling
from fullconv.inference.engines import Engine, engine
from fullconv.inference.journal import HOPELESS, NAME, Journal, held
from fullconv.inference.model import Model
from fullconv.inference.predict import Outcome, _compiler_versions, plan, predict, predict_files
from fullconv.inference.shares import NAME as SHARES
from fullconv.inference.tiles import Plan
from fullconv.labels import LabelSet
from fullconv.nets import build
from makers import save

LABELS = LabelSet(("ground", "=1+1", "car"))
COUNT = 13

DRIVER = r"""
import os, random, signal, sys, time, traceback
import torch
from fullconv.inference import batches, labelling
from fullconv.inference.predict import predict

torch.set_num_threads(1)
batches.BATCH_PIXELS = 3000
labelling.depth_of = lambda pixels: 1
model, inputs, out, seed = sys.argv[1:]
rng = random.Random(int(seed))

def go(kill):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        def show(*_):
            os.write(writer, b".")
            time.sleep(0.005)
        try:
            predict(model, inputs, out, overlay=True, scores=True, resume=True, progress=show)
            if kill:
                signal.pause()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    if kill:
        for _ in range(rng.randrange(1, 5)):
            os.read(reader, 1)
        time.sleep(rng.random() * 0.02)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(reader)
    return code

print(*(go(True) for _ in range(3)), go(False))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    Model(net, LABELS).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Of two sizes, so that batches end within the first and at its end; one of them is no picture."""
    for index in range(COUNT):
        size = (20, 30) if index < 9 else (21, 30)
        save(
            tmp_path / "in" / f"{index:02}.bmp",
            np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8),
        )
    (tmp_path / "in" / "06.bmp").write_bytes(b"no picture")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def few_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images in a batch, and what is told of them is not more than two behind."""
    monkeypatch.setattr(batches, "BATCH_PIXELS", 3000)
    monkeypatch.setattr(labelling, "depth_of", lambda pixels: 1)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def whole(model: Path, images: Path, folder: Path) -> dict[str, bytes]:
    """The folder of a call that never stopped."""
    predict(model, images, folder, overlay=True, scores=True)
    return contents(folder)


def interrupted(model: Path | Model, images: Path, folder: Path, after: int) -> None:
    """A call that ends with Ctrl-C after so many images."""

    def stop(done: int, *_: object) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, images, folder, overlay=True, scores=True, progress=stop)


def resumed(model: Path, images: Path, folder: Path) -> Outcome:
    return predict(model, images, folder, overlay=True, scores=True, resume=True)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
def test_a_call_that_is_killed_and_goes_on(model: Path, images: Path, tmp_path: Path) -> None:
    words = [model, images, tmp_path / "killed", str(len(str(tmp_path)))]
    done = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["-9", "-9", "-9", "0"]
    assert contents(tmp_path / "killed") == whole(model, images, tmp_path / "whole")


@pytest.mark.parametrize("after", [1, 3, 5, 8, COUNT - 1])
def test_a_call_that_is_interrupted_and_goes_on(model: Path, images: Path, tmp_path: Path, after: int) -> None:
    interrupted(model, images, tmp_path / "out", after)
    assert not (tmp_path / "out" / SHARES).exists(), "the table is that of a finished call"
    seen: list[int] = []
    outcome = predict(
        model, images, tmp_path / "out", overlay=True, scores=True, resume=True, progress=lambda n, *_: seen.append(n)
    )
    good = [f"{index:02}" for index in range(COUNT) if index != 6]
    assert sorted(names(outcome.kept) + names(outcome.written)) == good
    assert names(outcome.kept) == good[: len(outcome.kept)]
    assert after - 1 <= len(outcome.kept) <= after + 2, "the failure comes before its batch, two are on their way"
    assert names([path for path, _ in outcome.failures]) == ["06"], "which is tried again"
    assert seen == list(range(max(1, len(outcome.kept)), COUNT + 1))
    assert contents(tmp_path / "out") == whole(model, images, tmp_path / "whole")


def way(model: Path, journal: Journal) -> labelling.Labelling:
    loaded = Model.load(model)
    return labelling.Labelling(loaded, loaded.engine(), journal)


def test_what_is_finished_is_recorded_before_it_is_told(model: Path, images: Path, tmp_path: Path) -> None:
    jobs = plan([images], tmp_path / "out")
    with held(tmp_path / "out") as journal:
        journal.write({}, ())
        for item, failure, entry in labelling.labelled(way(model, journal), jobs, {}):
            recorded = journal.read()[1]
            assert (failure is None) == (entry is not None)
            assert entry is None or recorded[journal.name(item.job.mask)] == entry
    assert len(recorded) == COUNT - 1


def test_nothing_is_labelled_twice(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(model, images, tmp_path / "out")
    monkeypatch.setattr(labelling, "coarse_scores", lambda *_: pytest.fail("labelled again"))
    outcome = resumed(model, images, tmp_path / "out")
    assert (len(outcome.kept), outcome.written, outcome.notes) == (COUNT - 1, [], [])
    assert contents(tmp_path / "out") == expected


def test_what_changed_is_labelled_again_and_nothing_else(model: Path, images: Path, tmp_path: Path) -> None:
    whole(model, images, tmp_path / "out")
    os.utime(images / "02.bmp")
    (tmp_path / "out" / "10_overlay.png").unlink()
    (tmp_path / "out" / "11.png").write_bytes(b"edited")
    save(images / "06.bmp", np.zeros((20, 30, 3), np.uint8))
    save(images / "99.bmp", np.zeros((20, 30, 3), np.uint8))
    (images / "04.bmp").unlink()
    outcome = resumed(model, images, tmp_path / "out")
    assert names(outcome.written) == ["02", "06", "10", "11", "99"]
    assert names(outcome.kept) == ["00", "01", "03", "05", "07", "08", "09", "12"]
    lines = (tmp_path / "out" / SHARES).read_text("utf-8").splitlines()
    assert [line.split('"')[3] for line in lines[1:]] == [f"{i:02}.png" for i in range(13) if i != 4] + ["99.png"]
    assert (tmp_path / "out" / "04.png").exists(), "nothing is deleted"


def test_what_a_kill_left_half_written_goes(model: Path, images: Path, tmp_path: Path) -> None:
    interrupted(model, images, tmp_path / "out", 3)
    for name in (".07.0123abcd.png", ".07_scores.0123abcd.npy", ".shares.0123abcd.csv", "..labelled.0123abcd.jsonl"):
        (tmp_path / "out" / name).write_bytes(b"half")
    with (tmp_path / "out" / NAME).open("ab") as file:
        file.write(b'{"mask":"03.png","sta')
    resumed(model, images, tmp_path / "out")
    assert contents(tmp_path / "out") == whole(model, images, tmp_path / "whole")


def test_what_a_kill_left_of_the_journal_goes_too(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "..labelled.0123abcd.jsonl").write_bytes(b"half")
    predict(model, images, tmp_path / "out")
    assert "..labelled.0123abcd.jsonl" not in contents(tmp_path / "out")


def test_without_resume_all_is_labelled_anew(model: Path, images: Path, tmp_path: Path) -> None:
    interrupted(model, images, tmp_path / "out", 3)
    told: list[str] = []
    outcome = predict(model, images, tmp_path / "out", overlay=True, scores=True, tell=told.append)
    assert outcome.notes == told
    assert re.fullmatch(r"a call that stopped had labelled [345] of these 13 images; --resume keeps them", *told)
    assert (len(outcome.written), outcome.kept) == (COUNT - 1, [])
    assert contents(tmp_path / "out") == whole(model, images, tmp_path / "whole")
    again = predict(model, images, tmp_path / "out", overlay=True, scores=True)
    assert again.notes == [], "of a call that did not stop"
    interrupted(model, images, tmp_path / "out", 3)
    assert predict(model, images, tmp_path / "out", overlay=True).notes == [], "of other options"


def test_who_stops_to_add_resume_loses_nothing(model: Path, images: Path, tmp_path: Path) -> None:
    interrupted(model, images, tmp_path / "out", 8)
    interrupted(model, images, tmp_path / "out", 1)
    assert len(resumed(model, images, tmp_path / "out").kept) in (7, 8, 9)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"overlay": False}, "overlay True, not False"),
        ({"scores": False}, "scores True, not False"),
        ({"precision": "bfloat16"}, "precision float32, not bfloat16"),
    ],
)
def test_other_options_are_refused(
    model: Path, images: Path, tmp_path: Path, options: dict[str, bool], why: str
) -> None:
    out = tmp_path / "out"
    whole(model, images, out)
    before = contents(out)
    with pytest.raises(OptionError, match=re.escape(f"{out} was labelled with {why}; --resume needs")):
        predict(model, images, out, **{"overlay": True, "scores": True, **options}, resume=True)
    assert contents(out) == before


def test_another_model_is_refused(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(model, images, out)
    other = Model.load(model)
    nn.init.normal_(next(other.net.heads.parameters()))
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(OptionError, match=r"was labelled with model \w{8}, not \w{8}; --resume needs"):
        predict(tmp_path / "other.safetensors", images, out, resume=True)
    predict(tmp_path / "other.safetensors", images, out)
    predict(tmp_path / "other.safetensors", images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    shutil.copy(tmp_path / "other.safetensors", tmp_path / "copy.safetensors")
    assert len(predict(tmp_path / "copy.safetensors", images, out, resume=True).kept) == COUNT - 1, "the same bytes"
    # Masks of a model without a file are nobody's to keep, nor do others stay that lay there before.
    assert predict(other, images, out).kept == []
    assert predict(tmp_path / "other.safetensors", images, out, resume=True).kept == []
    interrupted(other, images, tmp_path / "nameless", 3)
    assert predict(other, images, tmp_path / "nameless", overlay=True, scores=True).notes == []


def test_threads_and_calibration_are_part_of_the_identity(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = tmp_path / "out", torch.get_num_threads()
    predict(model, images, out)
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(OptionError, match=f"labelled with threads {before}, not {before + 1}; --resume needs"):
            predict(model, images, out, resume=True)
    finally:
        torch.set_num_threads(before)

    def calibrated(number: int, resume: bool = True) -> Outcome:
        sample = [{"image": torch.full((1, 3, 8, 8), number, dtype=torch.uint8)}]
        monkeypatch.setattr("fullconv.inference.predict.calibration", lambda *_: sample)
        return predict(model, images, out, precision="int8", resume=resume)

    monkeypatch.setattr("fullconv.inference.predict.choose", lambda net, *_, **__: engine(net))
    calibrated(1, resume=False)
    assert len(calibrated(1).kept) == COUNT - 1
    with pytest.raises(OptionError, match=r"labelled with calibration \w{8}, not \w{8};"):
        calibrated(2)


def test_versions_of_compilers_are_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullconv.inference.predict.version", lambda name: f"{name} 1")

    def versions(name: str, precision: str) -> list[str]:
        return list(_compiler_versions(Engine(None, name, precision, "", None)).values())  # type: ignore[arg-type]

    assert versions("torch", "bfloat16") == []
    assert versions("openvino", "float32") == ["openvino 1"]
    assert versions("openvino", "int8") == ["openvino 1", "nncf 1"]


def test_an_image_that_the_options_do_not_fit_is_its_own_failure(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_of = Engine.plan

    def picky(self: Engine, size: tuple[int, int]) -> Plan:
        if size == (21, 30):
            raise OptionError("0.01 GiB of memory for images of 21 x 30")
        return plan_of(self, size)

    monkeypatch.setattr(Engine, "plan", picky)
    outcome = predict(model, images, tmp_path / "out")
    assert names([path for path, _ in outcome.failures]) == ["06", "09", "10", "11", "12"]
    assert outcome.failures[1][1] == f"{images / '09.bmp'}: 0.01 GiB of memory for images of 21 x 30"
    assert len(outcome.written) == COUNT - 5
    with pytest.raises(OptionError, match="0.01 GiB of memory"):
        predict(model, images / "09.bmp", tmp_path / "one.png")
    monkeypatch.undo()
    assert names(predict(model, images, tmp_path / "out", resume=True).written) == ["09", "10", "11", "12"]


def test_calls_that_cannot_be_resumed(model: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"one.png is a single mask; --resume goes on in a folder: name one"):
        predict(model, images / "00.bmp", tmp_path / "one.png", resume=True)
    with pytest.raises(OptionError, match="resume tells models apart by their files; give the file's path"):
        predict(Model.load(model), images, tmp_path / "out", resume=True)
    mixed = "in holds images and masks, which --resume cannot tell apart; choose a folder for the masks"
    predict(model, images, images)
    with pytest.raises(OptionError, match=mixed):
        predict(model, images, images, resume=True)
    with pytest.raises(OptionError, match=mixed):
        predict(model, str(images / "*.*"), images, resume=True)
    assert len(predict(model, str(images / "*.bmp"), images, resume=True).kept) == COUNT - 1
    with held(tmp_path / "out"), pytest.raises(OptionError, match="another call labels images into"):
        predict(model, images, tmp_path / "out")


def test_the_table_says_what_predictions_say(model: Path, images: Path, tmp_path: Path) -> None:
    predict(model, images, images / "labels")  # within the images' folder: its files are not taken for images
    predict(model, images, images / "labels")
    with (images / "labels" / SHARES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(images / f"{i:02}.bmp") for i in range(COUNT) if i != 6]
    loaded = Model.load(model)
    for row in rows:
        prediction = loaded.predict(row["image"])
        assert (int(row["height"]), int(row["width"])) == prediction.labels.shape
        assert {name: float(row[name]) for name in LABELS.names} == prediction.areas()
    assert sorted(path.name for path in (images / "labels").iterdir()) == sorted(
        [NAME, SHARES, *(row["mask"] for row in rows)]
    )


def test_a_single_mask_has_no_table(model: Path, images: Path, tmp_path: Path) -> None:
    predict(model, images / "00.bmp", tmp_path / "x" / "one.png")
    assert list(contents(tmp_path / "x")) == ["one.png"]


def test_another_file_of_the_tables_name_is_not_replaced(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SHARES).write_text("name,price\n")
    with pytest.raises(OptionError, match="is no table of shares, and would be replaced; choose another folder"):
        predict(model, images, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == [SHARES]


def failing(monkeypatch: pytest.MonkeyPatch, number: int, wanted: Callable[[Path], bool]) -> None:
    """Renaming to some paths fails."""
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if wanted(target):
            raise OSError(number, os.strerror(number))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("03.png", number) for number in HOPELESS),
        ("03_overlay.png", errno.ENOSPC), ("03_scores.npy", errno.ENOSPC), (SHARES, errno.EDQUOT),
    ],
)  # fmt: skip
def test_a_full_disk_ends_the_call(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, number, lambda target: target.name == name)
        with pytest.raises(DataError) as stop:
            whole(model, images, tmp_path / "out")
    message = str(stop.value)
    assert "\n" not in message
    assert f"cannot be written ({os.strerror(number)}); what was done is kept: " in message
    assert message.endswith("then go on with --resume")
    kept = len(resumed(model, images, tmp_path / "out").kept)
    assert kept in (3, 4) if name.startswith("03") else kept == COUNT - 1
    assert contents(tmp_path / "out") == whole(model, images, tmp_path / "whole")


def test_a_disk_that_is_full_from_the_start_keeps_nothing(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, errno.ENOSPC, lambda target: target.suffix == ".png")
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free some space$"):
        whole(model, images, tmp_path / "out")


def test_scores_are_written_as_numpy_does_and_say_what_the_disk_said(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(50, 60, 3)).astype(np.float32).transpose(2, 0, 1)
    labelling._write_array(tmp_path / "ours.npy", scores)
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(scores))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    resource = pytest.importorskip("resource", reason="limits of files are POSIX's")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as stop:
            labelling._write_array(tmp_path / "cut.npy", scores)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stop.value.errno == errno.EFBIG


def test_an_image_that_fails_now_is_in_no_table(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(model, images, tmp_path / "out", 3)
    failing(monkeypatch, errno.EACCES, lambda target: target.name == "01.png")
    outcome = predict(model, images, tmp_path / "out", overlay=True, scores=True)
    assert names([path for path, _ in outcome.failures]) == ["01", "06"]
    assert '"01.png"' not in (tmp_path / "out" / SHARES).read_text("utf-8")


def test_a_folder_that_vanishes_ends_the_call(model: Path, images: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"

    def move(done: int, *_: object) -> None:
        if done == 3:
            out.rename(moved)

    with pytest.raises(DataError, match=r"out has vanished, or its journal .*, then go on with --resume"):
        predict(model, images, out, overlay=True, scores=True, progress=move)
    shutil.rmtree(out, ignore_errors=True)  # by a mask that was on its way
    moved.rename(out)
    assert len(resumed(model, images, out).kept) in (3, 4, 5)
    assert contents(out) == whole(model, images, tmp_path / "whole")


def test_a_folder_that_vanished_is_not_made_anew(model: Path, images: Path, tmp_path: Path) -> None:
    jobs = plan([images], tmp_path / "gone")
    with pytest.raises(DataError, match="gone has vanished"):
        list(labelling.labelled(way(model, Journal(tmp_path / "gone")), jobs, {}))
    assert not (tmp_path / "gone").exists()


def test_images_that_vanish_are_failures_each(model: Path, images: Path, tmp_path: Path) -> None:
    maps = np.stack([generate(0, index)[0] for index in range(2)])
    np.savez(images / "lot.npz", maps=maps)
    jobs = plan([images], tmp_path / "out")
    for name in ("03.bmp", "lot.npz"):
        (images / name).unlink()
    outcome = predict_files(Model.load(model), jobs, folder=tmp_path / "out")
    assert [path.name for path, _ in outcome.failures] == ["03.bmp", "06.bmp", "lot.npz", "lot.npz"]
    assert "03.bmp: no such file; check the path" in outcome.failures[0][1]
    assert "lot.npz: no such file; check the path" in outcome.failures[2][1]
    assert len(outcome.written) == COUNT - 2


def test_maps_of_a_file_are_kept_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "lot.npz", maps=np.stack([generate(0, index)[0] for index in range(4)]))
    net = build("fcn1s-slim", 5, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    Model(net, WAFER_LABELS).save(tmp_path / "m.safetensors")
    expected = whole(tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "whole")
    interrupted(tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "out", 2)
    assert len(resumed(tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "out").kept) in (2, 3, 4)
    assert contents(tmp_path / "out") == expected


def test_the_journal_tells_no_paths_outside(model: Path, images: Path, tmp_path: Path) -> None:
    predict(model, images, tmp_path / "out")
    identity, *lines = map(json.loads, (tmp_path / "out" / NAME).read_text("ascii").splitlines())
    assert set(identity) == {
        "model", "overlay", "scores", "confidence", "engine", "precision", "tile", "memory", "device", "fullconv",
        "torch", "threads",
    }  # fmt: skip
    assert [line["mask"] for line in lines] == [f"{i:02}.png" for i in range(COUNT) if i != 6]
    assert str(tmp_path) not in (tmp_path / "out" / NAME).read_text("ascii")
