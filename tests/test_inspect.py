"""What `inspect` says, against nets worked out by hand and against the weights themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fullconv.errors import ModelFileError, OptionError
from fullconv.inference.model import Model
from fullconv.inspect import Inspection, inspect_net, named_net
from fullconv.nets import NETS, build


def look(
    name: str, size: tuple[int, int] = (500, 500), classes: int | None = 21, padding: str | None = "same"
) -> Inspection:
    return inspect_net(named_net(name, classes, padding), size)


def test_the_papers_vgg_by_hand() -> None:
    report = look("fcn8s-vgg16", padding="paper")
    layers = {layer.name: layer for layer in report.layers}
    # Fields of VGG-16 from k, s alone: f += (k - 1) j; j *= s, with fc6 a 7x7 convolution at stride 32.
    field, jump, expected = 1, 1, {}
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(1, count + 1):
            field += 2 * jump
            expected[f"conv{block}_{index}"] = (field, jump)
        field += jump
        jump *= 2
        expected[f"pool{block}"] = (field, jump)
    expected["fc6"] = (field + 6 * jump, jump)
    expected["fc7"] = expected["fc6"]
    assert expected["fc6"] == (404, 32)
    assert {n: (f.field, f.stride) for n, f in layers.items() if n in expected} == expected
    # Sizes with the pad of 100: 500 + 2 * 99, halved up five times, then 7x7 without padding.
    size, at = 698, {}
    for block in range(1, 6):
        at[block], size = size, -(-size // 2)
        assert layers[f"conv{block}_1"].size[1:] == (at[block],) * 2
        assert layers[f"pool{block}"].size[1:] == (size, size)
    assert layers["fc6"].size == (4096, size - 6, size - 6)
    assert layers["fc6"].parameters == 512 * 7 * 7 * 4096 + 4096
    # The released crops of FCN-8s: 5, 9 (of the skips), 31 (reference 3.4); kernels 4, 4 and 16.
    assert [(s.kernel, s.stride, s.offset, s.cropped) for s in report.crops] == [
        (4, 2, (5, 5), "skip"), (4, 2, (9, 9), "skip"), (16, 8, (31, 31), "upsampled"),
    ]  # fmt: skip
    assert [n for n, f in layers.items() if f.tap] == ["pool3", "pool4", "drop7"]
    assert report.scores == {"semantic": (21, 70, 70)}
    # 134 million parameters (design): VGG-16 without fc8, and three score layers of 21 classes.
    vgg = sum(f.parameters for f in report.layers if not f.name.startswith("score"))
    assert vgg == 134_260_544
    assert report.parameters == vgg + 21 * (4096 + 512 + 256 + 3) == sum(f.parameters for f in report.layers)
    assert [(f.name, f.size, f.field) for f in report.layers[-3:]] == [
        ("score 32s", (21, 16, 16), 404), ("score 16s", (21, 44, 44), 100), ("score 8s", (21, 88, 88), 44),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "reach"), [("fcn32s-vgg16", 436), ("fcn16s-vgg16", 468), ("fcn8s-vgg16", 468)])
def test_the_reach_of_final_pixels(name: str, reach: int) -> None:
    assert look(name, padding="paper").reach == reach  # the design's numbers, from reference 3.5


@pytest.mark.parametrize("name", NETS)
def test_sizes_and_parameters_are_those_of_the_net(name: str) -> None:
    size = (57, 40)
    report = look(name, size, None, None)
    width = 1.0 if "slim" in name else 0.02
    net = build(name, width=width).eval()
    if width == 1.0:
        assert report.parameters == sum(p.numel() for p in net.parameters())
    assert report.parameters == sum(f.parameters for f in report.layers)
    seen: dict[str, tuple[int, ...]] = {}
    for trunk, layers in net.trunks.items():
        prefix = f"{trunk}." if len(net.trunks) > 1 else ""
        for child, module in layers.named_modules():
            module.register_forward_hook(
                lambda m, a, out, key=prefix + child: seen.__setitem__(key, tuple(out.shape[1:]))
            )
    images = {key: torch.zeros(1, each.channels, *size) for key, each in net.options.inputs.items()}
    with torch.no_grad():
        coarse = net.coarse(images)
    assert report.scores == {task: tuple(each.scores.shape[1:]) for task, each in coarse.items()}
    trunk = [layer for layer in report.layers if not layer.name.startswith("score")]
    for layer in trunk:
        assert layer.size[1:] == seen[layer.name][1:], layer.name
        assert width != 1 or layer.size == seen[layer.name]
    scores = [layer for layer in report.layers if layer.name.startswith("score")]
    assert len(scores) == sum(layer.tap for layer in trunk) * len(net.heads)
    assert len(report.crops) == sum(layer.tap for layer in trunk) // len(net.trunks) * len(net.heads)


def test_a_model_file_is_inspected_without_its_weights(tmp_path: Path) -> None:
    for upsampling in ("bilinear", "learned", "learned-all"):
        net = build("fcn8s-slim", 4, width=0.1, upsampling=upsampling)
        path = tmp_path / f"{upsampling}.safetensors"
        Model(net).save(path)
        named = named_net(str(path), None, None)
        assert all(p.is_meta for p in named.parameters())
        report = inspect_net(named, (40, 40))
        assert report.parameters == sum(p.numel() for p in net.parameters())
        assert report.scores["semantic"][0] == 4
        assert report.net["upsampling"] == upsampling


def test_the_learned_upsampling_counts() -> None:
    plain, learned = build("fcn16s-slim", 3, width=0.1), build("fcn16s-slim", 3, width=0.1, upsampling="learned")
    report = inspect_net(learned, (50, 50))
    more = report.parameters - inspect_net(plain, (50, 50)).parameters
    assert more == 3 * 3 * 4 * 4  # one transposed convolution of kernel 4
    assert [step.parameters for step in report.crops] == [more, 0]
    assert report.parameters == sum(f.parameters for f in (*report.layers, *report.crops))


def test_the_net_is_left_as_it_was() -> None:
    net = build("fcn8s-slim", 3, width=0.1).train()
    inspect_net(net, (50, 50))
    assert net.training
    assert not any(parameter.is_meta for parameter in net.parameters())


def test_json_and_tables_hold_it_all() -> None:
    report = look("fcn8s-slim", (56, 53), 3)
    again = json.loads(json.dumps(report.to_json()))
    assert again["size"] == [56, 53]
    assert again["layers"][0]["name"] == "conv1_1"
    console = Console(width=120, file=io.StringIO())
    console.print(*report.tables(), sep="\n")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("8s on slim, same padding, input 56 x 53", "conv1_1", f"{report.parameters:,}", "crop offset"):
        assert expected in text, expected


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown net 'fcn8s-slm'; did you mean 'fcn8s-slim'"):
        named_net("fcn8s-slm", 3, "same")
    with pytest.raises(ModelFileError, match="none.safetensors does not exist"):
        named_net(str(tmp_path / "none.safetensors"), None, None)
    (tmp_path / "file").write_text("no model")
    with pytest.raises(ModelFileError, match="no safetensors file"):
        named_net(str(tmp_path / "file"), None, None)
    with pytest.raises(OptionError, match="file is a model with its own classes and padding; leave the options out"):
        named_net(str(tmp_path / "file"), None, "paper")
    with pytest.raises(OptionError, match="0 classes|classes"):
        named_net("fcn8s-slim", 0, "same")
    with pytest.raises(OptionError, match="unknown padding 'papier'; did you mean 'paper'"):
        named_net("fcn8s-slim", 3, "papier")
