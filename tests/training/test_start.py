"""What a run starts from: the net for the data, and its first weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fullconv.data.check import Moments
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.errors import DataError, GeometryError, ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import FCN, NETS, InputOptions, NetOptions, build
from fullconv.training.start import (
    choose_net,
    make_net,
    named_inputs,
    read_donors,
    require_trainable,
    with_scales,
)
from fullconv.training.train import train
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS, InMemory, one, some

SMALL = {"width": 0.1}
OPTIONS = build("fcn8s-slim", 3, width=0.1).options

KINDS = {
    "photo": InputKind(), "radar": InputKind(2), "depth": InputKind(1, log=True),
    "bands": InputKind(5, (7, 5, 4, 2, 1), (5, 4, 2)),
}  # fmt: skip


def made(options: NetOptions, seed: int = 0, init: tuple[str, ...] = ()) -> tuple[FCN, list[str]]:
    return make_net(options, seed, init, read_donors(options, init), {SEMANTIC: LABELS})


def several() -> InMemory:
    """An input of each kind."""
    arrays = {name: np.ones((8, 9, kind.channels), np.uint8) for name, kind in KINDS.items()}
    return InMemory([Sample("s", arrays, {SEMANTIC: np.zeros((8, 9), np.uint8)})], inputs=KINDS)


def test_first_weights_follow_the_seed() -> None:
    first, again, other = (made(OPTIONS, seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["trunks.image.conv1_1.weight"], other["trunks.image.conv1_1.weight"])
    assert made(OPTIONS)[1] == []


def test_weights_of_a_model_file_are_taken(tmp_path: Path) -> None:
    """What fits where is the transplant's; see there."""
    torch.manual_seed(5)
    source = build("fcn8s-slim", 3, width=0.1)
    torch.nn.init.normal_(source.get_parameter("heads.semantic.score.image.8.weight"))
    path = tmp_path / "m.safetensors"
    write_model(path, ModelFile(source, {SEMANTIC: LABELS}))
    net, notes = made(OPTIONS, init=(str(path),))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in source.state_dict().items())
    assert notes == [f"init from {path}: {len(source.state_dict())} weights copied"]
    path.unlink()
    _, notes = make_net(OPTIONS, 0, [str(path), "b"], [], {SEMANTIC: LABELS})  # a resumed run
    assert notes == [f"init: weights from {path}, b when the run began"]
    with pytest.raises(ModelFileError, match="does not exist"):
        read_donors(OPTIONS, [path])


def test_the_net_takes_the_datas_classes_and_inputs() -> None:
    image = np.zeros((8, 9, 2), np.uint8)
    sample = Sample("s", {"radar": image}, {"sea": image[..., 0], "ice": image[..., 0]})
    labels = {"sea": LABELS, "ice": LabelSet.numbered(5)}
    net = choose_net("fcn8s-slim", InMemory([sample], "train", labels, {"radar": InputKind(2)}), SMALL)
    assert net.classes == {"sea": 3, "ice": 5}
    assert {name: i.channels for name, i in net.inputs.items()} == {"radar": 2}
    assert net.width == 0.1


def test_the_net_of_a_model_file_gets_the_datas_classes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_model(path, ModelFile(build("fcn8s-slim", 5, width=0.1), {SEMANTIC: LabelSet.numbered(5)}))
    assert choose_net(str(path), some("train", 1), {}) == OPTIONS
    with pytest.raises(OptionError, match=r"m.safetensors has its own width, padding; leave the options out$"):
        choose_net(str(path), some("train", 1), {"width": 0.1, "padding": "same"})


def test_inputs_need_not_be_called_image() -> None:
    assert IMAGE == "image"
    sample = one(0)
    renamed = Sample("s", {"photo": sample.inputs[IMAGE]}, sample.masks)
    data = InMemory([renamed], "train", None, {"photo": InputKind()})
    assert list(choose_net("fcn8s-slim", data, SMALL).inputs) == ["photo"]


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("fcn8s-slm", {}, "unknown net 'fcn8s-slm'; did you mean 'fcn8s-slim'"),
        ("fcn8s-slim", {"pading": "same"}, "unknown net option 'pading'; did you mean 'padding'"),
        (build("fcn8s-slim", 4, width=0.1).options, {}, r"the net has \{'semantic': 4\} .*the data .*: 3\}"),
        (
            build("fcn8s-slim", 3, channels=1, width=0.1).options,
            {},
            r"the net takes \{'image': 1\} \(input: channels\), the data has \{'image': 3\}",
        ),
        (OPTIONS, SMALL, "^the net has its own width; leave the options out, or name a net$"),
    ],
)
def test_nets_for_other_data_are_refused(net: str | NetOptions, options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_net(net, some("train", 1), options)


def test_the_inputs_that_a_net_takes(tmp_path: Path) -> None:
    assert named_inputs("fcn8s-slim") is None, "those of any data"
    assert named_inputs("voc-fcn8s") == ["image"]
    assert named_inputs("nyud-fcn32s-hha") == ["hha"]
    assert named_inputs("nyud-fcn32s-color-d") == ["color", "depth"]
    assert named_inputs("no-such-net") is None, "who builds it refuses it"
    net = build("fcn1s-slim", 3, channels={"a": 3, "b": 1}, width=0.1)
    assert named_inputs(net.options) == ["a", "b"]
    write_model(tmp_path / "m.safetensors", ModelFile(net, {SEMANTIC: LABELS}))
    assert named_inputs(str(tmp_path / "m.safetensors")) == ["a", "b"]
    with pytest.raises(ModelFileError, match="does not exist"):
        named_inputs("none.safetensors")


def test_what_was_measured_is_normalised_by_the_data_and_pictures_by_the_trunk() -> None:
    moments = {
        "radar": Moments((1.0, 2.0), (3.0, 4.0)), "depth": Moments((7.5,), (0.5,)),
        "bands": Moments((1.0, 2.0, 3.0, 4.0, 5.0), (6.0, 7.0, 8.0, 9.0, 10.0)),
    }  # fmt: skip
    inputs = choose_net("fcn8s-slim", several(), {"width": 0.1}, moments).inputs
    assert list(inputs) == ["photo", "radar", "depth", "bands"]
    assert inputs["photo"] == build("fcn8s-slim", width=0.1).options.inputs["image"]
    assert inputs["radar"] == InputOptions((1, 2), (3, 4))
    assert inputs["depth"] == InputOptions((7.5,), (0.5,), log=True)
    assert inputs["bands"] == InputOptions((1, 2, 3, 4, 5), (6, 7, 8, 9, 10), bands=(7, 5, 4, 2, 1), preview=(5, 4, 2))
    assert choose_net("fcn8s-slim", several(), {"width": 0.1}).inputs["radar"] == InputOptions(
        (127.5,) * 2, (64.0,) * 2
    )


def test_a_normalisation_that_was_given_is_kept() -> None:
    own = {"image": InputOptions((5, 6), (7, 8))}
    data = InMemory([Sample("s", {IMAGE: np.ones((8, 9, 2), np.uint8)}, one(0).masks)], inputs={IMAGE: InputKind(2)})
    moments = {IMAGE: Moments((1.0, 2.0), (3.0, 4.0))}
    assert choose_net("fcn8s-slim", data, {"width": 0.1, "inputs": own}, moments).inputs == own
    net = build("fcn8s-slim", 3, width=0.1, inputs=own).options
    assert choose_net(net, data, {}, moments).inputs == own


def test_a_published_net_keeps_its_normalisation() -> None:
    kinds = {"color": InputKind(), "depth": InputKind(1, (1,), (1,), log=True)}
    arrays = {name: np.ones((8, 9, kind.channels), np.uint8) for name, kind in kinds.items()}
    labels = {SEMANTIC: LabelSet.numbered(40)}
    data = InMemory([Sample("s", arrays, {SEMANTIC: np.zeros((8, 9), np.uint8)})], "train", labels, kinds)
    net = choose_net("nyud-fcn32s-color-d", data, {"width": 0.1}, {"depth": Moments((1.0,), (2.0,))})
    assert net.inputs == NETS["nyud-fcn32s-color-d"].inputs
    with pytest.raises(OptionError, match=r"inputs with channels .*; nyud-fcn32s-hha takes \{'hha': 3\}: choose fcn"):
        choose_net("nyud-fcn32s-hha", data, {"width": 0.1})


def test_batch_norm_needs_two_values_to_average() -> None:
    """At stride 32, 32 x 32 pixels are one."""
    for batch, size in ((1, (9, 8)), (1, (32, 32))):
        with pytest.raises(
            OptionError, match=f"^1 image of {size[0]} x {size[1]} a step leaves batch norm one value.*with --batch$"
        ):
            require_trainable(OPTIONS, batch, size)
    require_trainable(OPTIONS, 2, (9, 8))
    require_trainable(OPTIONS, 1, (32, 33))
    require_trainable(build("fcn8s-vgg16", 3, width=0.02).options, 1, (9, 8))  # it has no batch norm
    require_trainable(build("fcn8s-slim", 3, width=0.1, upsampling="learned-all").options, 2, (9, 8))


def test_the_smallest_image_decides(tmp_path: Path) -> None:
    """Whole images come as they are: what is large enough for the largest is not for all."""
    data = InMemory([one(0, (20, 40)), one(1, (9, 8)), one(2, (3, 33))])
    with pytest.raises(OptionError, match="^1 image of 9 x 8 a step leaves batch norm one value"):
        train((data, some("val", 1)), "fcn8s-slim", out=tmp_path / "run", batch=1, steps=1, net_options=SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [GeometryError("pad more"), ValueError("pad more")], ids=repr)
def test_layers_that_do_not_fit_the_images_say_so_themselves(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def coarse(net: FCN, x: object) -> None:
        raise error

    monkeypatch.setattr(FCN, "coarse", coarse)
    with pytest.raises(type(error), match="^pad more$"):
        require_trainable(OPTIONS, 2, (20, 40))


def test_factors_on_the_skips_are_of_the_nets_strides_and_its_own_come_first() -> None:
    scales = {16: 1e-2, 8: 1e-4}
    nets = {stride: build(f"fcn{stride}s-slim", 3, width=0.1).options for stride in (32, 16, 8)}
    found = {stride: dict(with_scales(net, scales).scales) for stride, net in nets.items()}
    assert found == {32: {}, 16: {16: 1e-2}, 8: {16: 1e-2, 8: 1e-4}}
    own = replace(nets[8], scales={8: 0.5})
    assert with_scales(own, scales) is own
    assert with_scales(nets[8], {}) == nets[8]
    FCN(with_scales(nets[8], scales))  # they fit it


@pytest.mark.parametrize(
    ("mean", "std", "found"),
    [
        (-1.2e7, 6e37, "mean -1.2e+07 and deviation 6e+37"),
        (2e6, 5.0, "mean 2e+06 and deviation 5"),
        (0.0, 2e6, "mean 0 and deviation 2e+06"),
        (0.0, 1e-9, "mean 0 and deviation 1e-09"),
        (float("nan"), 1.0, "mean nan and deviation 1"),
    ],
)
def test_what_no_net_can_be_normalised_by_is_told_with_its_band(mean: float, std: float, found: str) -> None:
    moments = {
        "radar": Moments((1.0, mean), (3.0, std)),
        "bands": Moments((1.0, 2.0, mean, 4.0, 5.0), (6.0, 7.0, std, 9.0, 10.0)),
    }
    for name, place in (("radar", "channel 2"), ("bands", "band 4")):
        with pytest.raises(DataError) as caught:
            choose_net("fcn8s-slim", several(), {"width": 0.1}, {name: moments[name]})
        assert str(caught.value) == (
            f"{place} of the input '{name}' has {found}, expected up to 1e6 and a deviation of at least 1e-6; mark "
            "what was not measured as the TIFF's nodata value, or scale the band"
        )


def test_what_a_net_can_just_be_normalised_by_is_taken() -> None:
    for mean, std in ((1e6, 1e6), (-1e6, 1e-6)):
        moments = {"radar": Moments((mean, 0.0), (std, 1.0))}
        inputs = choose_net("fcn8s-slim", several(), {"width": 0.1}, moments).inputs
        assert inputs["radar"] == InputOptions((mean, 0), (std, 1))
