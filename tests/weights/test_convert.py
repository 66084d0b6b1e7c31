"""`convert`: what it reports, which classes the model has, and that a failure leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fullconv.weights.modelfile
from caffe_nets import caffe_net
from caffe_writer import write_caffemodel
from fullconv.errors import FullconvError, ModelFileError, OptionError
from fullconv.inference.model import Model
from fullconv.labels import LabelSet
from fullconv.nets import InputOptions, build
from fullconv.weights.convert import Conformance, convert
from fullconv.weights.modelfile import read_header
from fullconv.weights.published import PUBLISHED
from torchvision_nets import random_net

WIDTH = 1 / 16


def write(path: Path, name: str, seed: int = 0, without: Sequence[str] = ()) -> Path:
    """A thin Caffe net of random weights; without some of its layers."""
    layers = caffe_net(name, (32, 32), width=WIDTH, seed=seed).layers
    write_caffemodel(path, [layer for layer in layers if layer[0] not in without])
    return path


def thin(files: Path | Sequence[Path], net: str, out: Path, **options: Any) -> tuple[Conformance, Model]:
    report = convert(files, net, out, **{"width": WIDTH, **options})
    return report, Model.load(out)


def image(seed: int = 0, size: tuple[int, int] = (37, 53)) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(seed)).float()


def test_the_report_of_a_whole_net(tmp_path: Path) -> None:
    path = write(tmp_path / "fcn8s.caffemodel", "voc-fcn8s")
    report, model = thin(path, "voc-fcn8s", tmp_path / "m.safetensors")
    (source,) = report.sources
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.file, source.kind, source.sha256, source.published) == (
        "fcn8s.caffemodel", "Caffe model", sha256, None,
    )  # fmt: skip
    assert (report.net, report.zero, report.dropped) == ("voc-fcn8s", (), ())
    assert [entry.key for entry in report.entries] == list(model.net.state_dict())
    assert {(entry.how, entry.file) for entry in report.entries} == {("copied", "fcn8s.caffemodel")}
    first, last = report.entries[0], report.entries[-1]
    assert (first.key, first.shape, first.source) == ("trunks.image.conv1_1.weight", (4, 3, 3, 3), "conv1_1")
    assert (last.key, last.source_shape) == ("heads.semantic.score.image.8.bias", (21,))
    layers = caffe_net("voc-fcn8s", (32, 32), width=WIDTH).layers
    assert report.parameters == sum(blob.size for _, kind, blobs in layers if kind == "Convolution" for blob in blobs)
    assert [(each.name, each.how) for each in report.checked] == [
        ("upscore2", "bilinear, as computed"),
        ("upscore_pool4", "bilinear, as computed"),
        ("upscore8", "bilinear, as computed"),
    ]
    again = json.loads(json.dumps(report.to_json()))
    assert again["sources"][0]["sha256"] == sha256
    assert again["entries"][0]["shape"] == [4, 3, 3, 3]
    assert again["checked"][0]["shape"] == [21, 21, 4, 4]
    assert (again["parameters"], again["known_scores"]) == (report.parameters, report.known_scores)


def test_the_model_file_records_where_it_is_from(tmp_path: Path) -> None:
    path = write(tmp_path / "f.caffemodel", "voc-fcn8s")
    _, model = thin(path, "voc-fcn8s", tmp_path / "deep" / "m.safetensors")
    assert model.training == {
        "converted_from": [
            {
                "file": "f.caffemodel",
                "kind": "Caffe model",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "published": None,
            }
        ],
        "net": "voc-fcn8s",
        "verdict": "not the published voc-fcn8s: a start from other weights, or with other options",  # it is thin
    }
    assert not model.net.training
    assert model.predict(np.zeros((20, 30, 3), np.uint8)).labels.shape == (20, 30)


def test_a_classifier_gives_score_layers_of_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "f.caffemodel", "vgg16")
    report, model = thin(path, "fcn16s-vgg16", tmp_path / "m.safetensors")
    assert report.zero == tuple(
        f"heads.semantic.score.image.{stride}.{kind}" for stride in (32, 16) for kind in ("weight", "bias")
    )
    assert report.dropped == ("fc8 (InnerProduct)",)
    assert (report.known_scores, report.scored_on) == ({}, "")
    hows = {entry.key: entry.how for entry in report.entries}
    assert hows["trunks.image.fc6.weight"] == hows["trunks.image.fc7.weight"] == "reshaped"
    assert hows["trunks.image.conv1_1.weight"] == "copied"
    assert model.net.options.classes == {"semantic": 21}
    with torch.inference_mode():
        assert not model.net(image()).any()


class TestClasses:
    def test_are_those_of_the_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.caffemodel", "pascalcontext-fcn8s")
        report, model = thin(path, "fcn8s-vgg16", tmp_path / "m.safetensors", padding="paper")
        assert report.zero == ()
        assert model.net.options.classes == {"semantic": 60}
        assert model.labels == LabelSet.numbered(60)
        _, published = thin(path, "pascalcontext-fcn8s", tmp_path / "p.safetensors")
        assert all(torch.equal(value, published.net.state_dict()[key]) for key, value in model.net.state_dict().items())

    def test_of_published_nets_have_their_names(self, tmp_path: Path) -> None:
        _, model = thin(write(tmp_path / "v.caffemodel", "voc-fcn32s"), "voc-fcn32s", tmp_path / "v.safetensors")
        names = model.label_sets["semantic"].names
        assert (len(names), *names[:3], names[20]) == (21, "background", "aeroplane", "bicycle", "tvmonitor")
        path = write(tmp_path / "s.caffemodel", "siftflow-fcn16s")
        _, model = thin(path, "siftflow-fcn16s", tmp_path / "s.safetensors")
        assert {task: len(labels) for task, labels in model.label_sets.items()} == {"semantic": 33, "geometric": 3}
        assert model.label_sets["semantic"].names[:2] == ("awning", "balcony")
        assert model.label_sets["geometric"].names == ("sky", "horizontal", "vertical")

    def test_of_models_keep_names_and_colours(self, tmp_path: Path) -> None:
        labels = LabelSet(("ground", "road", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
        source = Model(build("fcn32s-vgg16", 3, width=WIDTH), labels)
        source.save(tmp_path / "s.safetensors")
        report, model = thin(tmp_path / "s.safetensors", "fcn8s-vgg16", tmp_path / "m.safetensors")
        assert model.labels == labels
        assert report.sources[0].kind == "fullconv model"
        assert report.zero == tuple(
            f"heads.semantic.score.image.{stride}.{kind}" for stride in (16, 8) for kind in ("weight", "bias")
        )

    def test_of_several_tasks(self, tmp_path: Path) -> None:
        source = Model(build("fcn32s-vgg16", {"road": 2, "sky": 3}, width=WIDTH))
        source.save(tmp_path / "s.safetensors")
        report, model = thin(tmp_path / "s.safetensors", "fcn32s-vgg16", tmp_path / "m.safetensors")
        assert model.net.options.classes == {"road": 2, "sky": 3}
        assert {entry.how for entry in report.entries} == {"copied"}

    @pytest.mark.parametrize("net", ["voc-fcn32s", "fcn32s-vgg16"])
    def test_that_are_asked_for(self, net: str, tmp_path: Path) -> None:
        path = write(tmp_path / "f.caffemodel", "voc-fcn32s")
        report, model = thin(path, net, tmp_path / "m.safetensors", classes=5)
        assert model.labels == LabelSet.numbered(5)
        assert len(report.zero) == 2
        assert report.known_scores == {}

    def test_of_tasks_that_are_asked_for(self, tmp_path: Path) -> None:
        path = write(tmp_path / "f.caffemodel", "voc-fcn32s")
        _, model = thin(path, "fcn32s-vgg16", tmp_path / "m.safetensors", classes={"a": 2, "b": 3})
        assert model.net.options.classes == {"a": 2, "b": 3}


class TestKnownScores:
    """What the authors' file scores is said of a file that has all the score layers, and of no other."""

    def test_of_a_whole_net(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "f.caffemodel"
        write_caffemodel(path, caffe_net("voc-fcn-alexnet", (32, 32)).layers)
        scores = PUBLISHED["voc-fcn-alexnet"].scores
        assert scores == {"mean IU": 0.48}  # reference 1.4
        report = convert(path, "voc-fcn-alexnet", tmp_path / "m.safetensors")
        assert (report.known_scores, report.scored_on) == (scores, "seg11valid (736 images)")
        assert report.verdict == (
            "every layer is that of the published voc-fcn-alexnet; whether the file is, no published digest tells"
        )
        model = Model.load(tmp_path / "m.safetensors")
        assert model.training["published"] == {"scored_on": "seg11valid (736 images)", **scores}
        assert model.metrics == {}, "these are not this model's scores"
        # With a digest that is not the file's, it is another.
        other = replace(PUBLISHED["voc-fcn-alexnet"], digest="sha1:" + 40 * "0")
        monkeypatch.setitem(PUBLISHED, "voc-fcn-alexnet", other)
        report = convert(path, "voc-fcn-alexnet", tmp_path / "m.safetensors")
        assert (report.known_scores, report.verdict) == (
            {}, f"not the published voc-fcn-alexnet, whose sha1 is {40 * '0'}",
        )  # fmt: skip
        # Neither a model of ours nor another padding is the published one.
        report = convert(tmp_path / "m.safetensors", "voc-fcn-alexnet", tmp_path / "n.safetensors")
        assert report.known_scores == {}
        monkeypatch.undo()
        report = convert(path, "voc-fcn-alexnet", tmp_path / "m.safetensors", padding="same")
        assert report.known_scores == {}

    @pytest.mark.parametrize(
        ("file", "net"),
        [
            ("voc-fcn32s", "voc-fcn16s"),  # a skip of zeros
            ("voc-fcn8s-atonce", "voc-fcn8s"),  # all scores, of another net
            ("vgg16", "voc-fcn32s"),
            ("voc-fcn8s", "fcn8s-vgg16"),  # no published net
            ("pascalcontext-fcn32s", "pascalcontext-fcn32s"),  # no measured scores
        ],
    )
    def test_of_others(self, file: str, net: str, tmp_path: Path) -> None:
        report, model = thin(write(tmp_path / "f.caffemodel", file), net, tmp_path / "m.safetensors")
        assert (report.known_scores, report.scored_on) == ({}, "")
        assert model.metrics == {}


class TestDigests:
    @pytest.mark.parametrize(("kind", "digits"), [("sha1", 40), ("sha256", 64), ("sha256", 8)])
    def test_a_published_file_is_known(
        self, kind: str, digits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(tmp_path / "renamed.caffemodel", "voc-fcn16s")
        digest = f"{kind}:{hashlib.new(kind, path.read_bytes()).hexdigest()[:digits]}"
        monkeypatch.setitem(PUBLISHED, "voc-fcn16s", replace(PUBLISHED["voc-fcn16s"], digest=digest))
        report, model = thin(path, "voc-fcn16s", tmp_path / "m.safetensors")
        assert report.sources[0].published == "voc-fcn16s"
        assert model.training["converted_from"][0]["published"] == "voc-fcn16s"

    def test_of_the_other_kind_says_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "f.caffemodel", "voc-fcn16s")
        digest = f"sha1:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        monkeypatch.setitem(PUBLISHED, "voc-fcn16s", replace(PUBLISHED["voc-fcn16s"], digest=digest))
        assert thin(path, "voc-fcn16s", tmp_path / "m.safetensors")[0].sources[0].published is None


class TestLateFusion:
    """One file for each trunk, or one that serves them all."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        return [
            write(tmp_path / f"{i}.caffemodel", f"nyud-fcn32s-{i}", seed) for seed, i in enumerate(("color", "hha"))
        ]

    def test_of_two_files(self, files: list[Path], tmp_path: Path) -> None:
        report, fused = thin(files, "nyud-fcn32s-color-hha", tmp_path / "m.safetensors")
        assert [source.file for source in report.sources] == ["color.caffemodel", "hha.caffemodel"]
        assert len(fused.training["converted_from"]) == 2
        assert {entry.how for entry in report.entries} == {"copied"}
        for entry in report.entries:
            expected = "hha.caffemodel" if ".hha." in entry.key else "color.caffemodel"
            assert entry.file == expected
        color, hha = (
            thin(path, f"nyud-fcn32s-{path.stem}", tmp_path / f"{path.stem}.safetensors")[1].net for path in files
        )
        x, y = image(1), image(2)
        with torch.inference_mode():
            expected_scores = (color(x) + hha(y)) / 2
            scores = fused.net({"color": x, "hha": y})
        assert expected_scores.std() > 0.05
        torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)

    def test_of_a_file_too_many(self, files: list[Path], tmp_path: Path) -> None:
        message = "hha.caffemodel gives this net nothing beside the others; leave it out"
        with pytest.raises(OptionError, match=message):
            convert(files, "nyud-fcn32s-color", tmp_path / "m.safetensors", width=WIDTH)

    def test_all_files_are_named_where_some_weights_are_missing(self, files: list[Path], tmp_path: Path) -> None:
        write(files[1], "nyud-fcn32s-hha", without=["conv1_1"])
        with pytest.raises(ModelFileError) as caught:
            convert(files, "nyud-fcn32s-color-hha", tmp_path / "m.safetensors", width=WIDTH)
        assert str(caught.value) == (
            f"{files[0]}, {files[1]} lack 2 weights of the trunk (trunks.hha.conv1_1.weight, trunks.hha.conv1_1.bias, "
            "...); to train with what is there: fullconv train --init"
        )


def test_options_of_the_net(tmp_path: Path) -> None:
    path = write(tmp_path / "f.caffemodel", "voc-fcn16s")
    report, model = thin(path, "voc-fcn16s", tmp_path / "m.safetensors", padding="same", upsampling="learned-all")
    options = model.net.options
    assert (options.padding, options.upsampling, options.width) == ("same", "learned-all", WIDTH)
    assert {entry.key: entry.how for entry in report.entries if "upscore" in entry.key} == {
        "heads.semantic.upscore.16.weight": "bilinear",
        "heads.semantic.upscore.output.weight": "bilinear",
    }
    layers = caffe_net("voc-fcn16s", (32, 32), width=WIDTH).layers
    convolutions = sum(blob.size for _, kind, blobs in layers if kind == "Convolution" for blob in blobs)
    kernels = [model.net.heads["semantic"].upscore[name].weight.shape[-1] for name in ("16", "output")]
    assert report.parameters == convolutions + 21 * 21 * sum(kernel**2 for kernel in kernels)


def test_a_torchvision_file(tmp_path: Path) -> None:
    torch.save(random_net("vgg16", WIDTH, 10).state_dict(), tmp_path / "f.pth")
    report, model = thin(tmp_path / "f.pth", "fcn8s-vgg16", tmp_path / "m.safetensors")
    assert report.sources[0].kind == "torchvision classifier"
    assert report.dropped == ("classifier.6.weight", "classifier.6.bias")
    assert len(report.zero) == 6
    # Not Caffe's means and order, which the trunk has of its own.
    assert model.net.options.inputs == {"image": InputOptions((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))}


def test_the_digest_in_a_files_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(random_net("vgg16", width=WIDTH).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    thin(path.rename(tmp_path / f"vgg16-{digest}.pth"), "fcn32s-vgg16", tmp_path / "m.safetensors")
    other = (tmp_path / f"vgg16-{digest}.pth").rename(tmp_path / "vgg16-397923af.pth")
    message = (
        f"vgg16-397923af.pth is damaged or another file: its sha256 begins with {digest}, its name says 397923af; "
        "download it again, or rename it if it is your own"
    )
    with pytest.raises(ModelFileError, match=message):
        thin(other, "fcn32s-vgg16", tmp_path / "n.safetensors")


def test_paths_as_text_and_targets_that_are_none(tmp_path: Path) -> None:
    source = str(tmp_path / "m.safetensors")
    Model(build("fcn32s-vgg16", 3, width=WIDTH)).save(source)
    report = convert(source, "fcn16s-vgg16", str(tmp_path / "n.safetensors"), width=WIDTH)
    assert report.net == "fcn16s-vgg16"
    assert Model.load(tmp_path / "n.safetensors").net.options.stride == 16
    with pytest.raises(OptionError, match=r"m.safetensors would replace the file it is made of; name another with -o"):
        convert(source, "fcn16s-vgg16", tmp_path / "x" / ".." / "m.safetensors", width=WIDTH)
    with pytest.raises(OptionError, match=r"n.caffemodel is to be a model file; end its name in .safetensors"):
        convert(source, "fcn16s-vgg16", tmp_path / "n.caffemodel", width=WIDTH)


LACKING = (
    "f.caffemodel lacks 4 weights of the trunk (trunks.image.conv5_3.weight, trunks.image.conv5_3.bias, "
    "trunks.image.fc7.weight, ...); to train with what is there: fullconv train --init"
)


def incomplete(path: Path) -> None:
    write(path, "voc-fcn32s", without=["conv5_3", "fc7"])


def damaged(path: Path) -> None:
    write(path, "voc-fcn32s")
    path.write_bytes(path.read_bytes()[:-1000])


class TestFailures:
    """Each says in one line what is wrong, writes nothing, and leaves an older target alone."""

    @pytest.mark.parametrize(
        ("make", "options", "kind", "message"),
        [
            (incomplete, {}, ModelFileError, LACKING),
            (damaged, {}, ModelFileError, "f.caffemodel is damaged at byte"),
            (lambda path: None, {}, ModelFileError, "f.caffemodel does not exist"),
            (lambda path: write(path, "googlenet"), {}, ModelFileError, "none of its layers is one of vgg16"),
            (lambda path: write(path, "voc-fcn32s"), {"width": 1 / 8}, ModelFileError, "conv1_1 weight is 4x3x3x3"),
            (lambda path: write(path, "pascalcontext-fcn32s"), {}, ModelFileError,
             "the score layers have {'semantic': 60} classes by task, the net {'semantic': 21}: choose"),
            (lambda path: write(path, "siftflow-fcn16s"), {}, ModelFileError,
             "the score layers have other names (score_fr_sem (Convolution), "),
            (lambda path: write(path, "voc-fcn32s"), {"classes": 0}, OptionError, "0 classes; expected 1 to 255"),
            (lambda path: write(path, "voc-fcn32s"), {"padding": "papier"}, OptionError, "did you mean 'paper'"),
            (lambda path: write(path, "voc-fcn32s"), {"net": "voc-fcn32"}, OptionError, "did you mean 'voc-fcn32s'"),
        ],
        ids=["incomplete", "damaged", "missing", "other", "width", "context", "siftflow", "classes", "padding", "net"],
    )  # fmt: skip
    def test_leave_nothing_behind(
        self,
        make: Callable[[Path], Any],
        options: dict[str, Any],
        kind: type[FullconvError],
        message: str,
        tmp_path: Path,
    ) -> None:
        make(tmp_path / "f.caffemodel")
        before = sorted(tmp_path.iterdir())
        target = tmp_path / "new" / "m.safetensors"
        arguments = {"net": "voc-fcn32s", "width": WIDTH, **options}
        with pytest.raises(kind) as caught:
            convert(tmp_path / "f.caffemodel", out=target, **arguments)
        assert message in str(caught.value)
        assert str(caught.value).isprintable()
        assert sorted(tmp_path.iterdir()) == before
        target.parent.mkdir()
        target.write_bytes(b"an older model")
        with pytest.raises(kind):
            convert(tmp_path / "f.caffemodel", out=target, **arguments)
        assert [path.read_bytes() for path in target.parent.iterdir()] == [b"an older model"]

    def test_while_the_model_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, target = write(tmp_path / "f.caffemodel", "voc-fcn32s"), tmp_path / "m.safetensors"
        convert(path, "voc-fcn32s", target, width=WIDTH)
        before, header = target.read_bytes(), read_header(target)

        def fail(_: object, temporary: Path, __: object) -> None:
            shutil.copy(path, temporary)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(fullconv.weights.modelfile, "save_file", fail)
        with pytest.raises(OSError, match="No space left"):
            convert(path, "voc-fcn32s", target, width=WIDTH)
        assert target.read_bytes() == before
        assert read_header(target) == header
        assert sorted(tmp_path.iterdir()) == [path, target]

    def test_of_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"^no file to convert; give a .caffemodel, .pth or .safetensors file$"):
            convert([], "voc-fcn32s", tmp_path / "m.safetensors")
