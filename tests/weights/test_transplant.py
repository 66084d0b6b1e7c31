"""Transplanting: what a net computes after it, and what is said of every weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_oracle import surgery
from fullconv.errors import ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions, build
from fullconv.weights.donor import Donor
from fullconv.weights.modelfile import ModelFile, write_model
from fullconv.weights.read import read_donor
from fullconv.weights.transplant import adopted, transplant

WIDTH = 1 / 16
COLOURS = LabelSet(("ground", "road", "sky"))


def random_net(name: str, classes: int | dict[str, int] | None = 3, seed: int = 0, **options: object) -> FCN:
    """Random score layers, which a fresh net has at zero, and an activation scale that shows differences."""
    torch.manual_seed(seed)
    net = build(name, classes, **{"width": WIDTH, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.heads.parameters():
            if parameter.ndim < 4 or parameter.shape[2:] == (1, 1):
                parameter.normal_(0, 0.05)
    return net.eval()


def donor(net: FCN, path: Path, labels: LabelSet | dict[str, LabelSet] | None = None) -> Donor:
    """Through a model file, as users have it."""
    sets = labels or {task: LabelSet.numbered(k) for task, k in net.options.classes.items()}
    write_model(path, ModelFile(net, sets if isinstance(sets, dict) else {"semantic": sets}))
    return read_donor(path, net)


def image(channels: int = 3, size: tuple[int, int] = (40, 53), seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (1, channels, *size), generator=torch.Generator().manual_seed(seed)).float()


def hows(net: FCN, *donors: Donor, labels: LabelSet | None = None) -> dict[str, str]:
    done = transplant(net, donors, {"semantic": labels} if labels else None)
    assert [entry.key for entry in done.entries] == list(net.state_dict())
    return {entry.key: entry.how for entry in done.entries}


class TestStages:
    """FCN-32s -> 16s -> 8s (Long et al. 2015, section 4.2), with the literal geometry of the reference."""

    def test_16s_of_a_32s_model(self, tmp_path: Path) -> None:
        coarse = random_net("fcn32s-vgg16", padding="paper")
        finer = random_net("fcn16s-vgg16", padding="paper", seed=1)
        done = hows(finer, donor(coarse, tmp_path / "m.safetensors"))
        zero = {key for key, how in done.items() if how == "zero"}
        assert zero == {f"heads.semantic.score.image.16.{kind}" for kind in ("weight", "bias")}
        assert all(how == "copied" for key, how in done.items() if key not in zero)
        x = image()
        with torch.inference_mode():
            score_fr = coarse.coarse(x)["semantic"].scores
            twice = F.conv_transpose2d(score_fr, surgery(3, 4), stride=2)
            expected = F.conv_transpose2d(twice, surgery(3, 32), stride=16)[:, :, 27 : 27 + 40, 27 : 27 + 53]
            torch.testing.assert_close(finer(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
            # Reference pitfall 15: not what the 32s net gives.
            assert (finer(x) - coarse(x)).abs().max() > 1e-3 * expected.abs().max()

    def test_8s_of_a_16s_model(self, tmp_path: Path) -> None:
        coarse = random_net("fcn16s-vgg16", padding="paper")
        finer = random_net("fcn8s-vgg16", padding="paper", seed=1)
        done = hows(finer, donor(coarse, tmp_path / "m.safetensors"))
        assert [key for key, how in done.items() if how == "zero"] == [
            f"heads.semantic.score.image.8.{kind}" for kind in ("weight", "bias")
        ]
        x = image()
        with torch.inference_mode():
            fuse_pool4 = coarse.coarse(x)["semantic"].scores
            twice = F.conv_transpose2d(fuse_pool4, surgery(3, 4), stride=2)
            expected = F.conv_transpose2d(twice, surgery(3, 16), stride=8)[:, :, 31 : 31 + 40, 31 : 31 + 53]
            torch.testing.assert_close(finer(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

    def test_the_smoother_kernel_of_pitfall_15(self, tmp_path: Path) -> None:
        """A single coarse cell, along an axis: a support of 80 instead of 64, values that differ by up to 0.234."""
        spread = {}
        for name in ("fcn32s-vgg16", "fcn16s-vgg16"):
            head = random_net(name, 1, padding="paper").heads["semantic"]
            impulse = torch.zeros(1, 1, 9, 9)
            impulse[..., 4, :] = 1
            if name == "fcn16s-vgg16":
                impulse = head.upscore["16"](impulse, (0, 20), (0, 20))
            size = 32 * 9 + 80
            spread[name] = head.upscore["output"](impulse, (0, size), (0, size))[0, 0, :, size // 2]
        once, twice = spread["fcn32s-vgg16"], spread["fcn16s-vgg16"]
        assert [int((each > 0).sum()) for each in (once, twice)] == [64, 80]
        # Centred on their cell: 32 * 4 + 31.5, and 16 * (2 * 4 + 1.5) + 15.5.
        moved = twice[8 : 8 + 280]
        difference = (once[:280] - moved).abs().max().item()
        assert difference == pytest.approx(0.234, abs=5e-4)


def test_classes_by_name(tmp_path: Path) -> None:
    source = random_net("fcn16s-vgg16")
    target = random_net("fcn16s-vgg16", 4, seed=1)
    ours = LabelSet(("sky", "boat", "ground", "sea"))
    done = hows(target, donor(source, tmp_path / "m.safetensors", COLOURS), labels=ours)
    assert done["heads.semantic.score.image.16.bias"] == "2 of 4 classes: sky, ground"
    x = image()
    with torch.inference_mode():
        theirs, mine = source(x), target(x)
    torch.testing.assert_close(mine[:, [0, 2]], theirs[:, [2, 0]])
    assert not mine[:, [1, 3]].any()
    done = hows(target, donor(source, tmp_path / "m.safetensors", COLOURS), labels=LabelSet(("a", "b", "c", "d")))
    assert all(how == "zero" for key, how in done.items() if key.startswith("heads."))


def test_unnamed_classes_are_copied_if_they_are_as_many(tmp_path: Path) -> None:
    given = replace(donor(random_net("fcn32s-vgg16"), tmp_path / "m.safetensors"), labels={})
    for classes, expected in ((3, "copied"), (4, "zero")):
        done = hows(random_net("fcn32s-vgg16", classes, seed=1), given, labels=LabelSet.numbered(classes))
        assert done["heads.semantic.score.image.32.weight"] == expected


def test_learned_upsampling_is_kept_for_the_same_classes(tmp_path: Path) -> None:
    source = random_net("fcn16s-vgg16", upsampling="learned-all")
    with torch.no_grad():
        for upscore in source.heads["semantic"].upscore.values():
            upscore.weight.add_(torch.rand_like(upscore.weight), alpha=0.1)
    given = donor(source, tmp_path / "m.safetensors", COLOURS)
    same = random_net("fcn16s-vgg16", upsampling="learned-all", seed=1)
    assert set(hows(same, given, labels=COLOURS).values()) == {"copied"}
    torch.testing.assert_close(same(image()), source(image()))
    other = random_net("fcn16s-vgg16", 2, upsampling="learned-all", seed=1)
    done = hows(other, given, labels=LabelSet(("sky", "sea")))
    assert done["heads.semantic.upscore.output.weight"] == "bilinear"
    torch.testing.assert_close(other.get_parameter("heads.semantic.upscore.output.weight"), surgery(2, 32))


def test_early_fusion_begins_with_the_mean_of_the_colour_filters(tmp_path: Path) -> None:
    """Reference 1.2, nyud-fcn32s-color-d."""
    source = random_net("nyud-fcn32s-color", None)
    target = random_net("nyud-fcn32s-color-d", None, seed=1)
    done = hows(target, donor(source, tmp_path / "m.safetensors"))
    assert done["trunks.fused.conv1_1.weight"] == "color copied, depth the mean of 3 filters"
    weight, colour = (
        net.get_parameter(f"trunks.{t}.conv1_1.weight") for net, t in ((target, "fused"), (source, "color"))
    )
    torch.testing.assert_close(weight[:, :3], colour)
    torch.testing.assert_close(weight[:, 3], (colour[:, 0] + colour[:, 1] + colour[:, 2]) / 3)
    x = image()
    mean_depth = torch.full((1, 1, 40, 53), 7.844).exp()  # its normalised value is zero: colour alone is left
    with torch.inference_mode():
        torch.testing.assert_close(target({"color": x, "depth": mean_depth}), source(x), rtol=1e-3, atol=1e-3)


def test_early_fusion_finds_the_colour_among_the_inputs(tmp_path: Path) -> None:
    source = random_net("fcn32s-vgg16")
    target = random_net("fcn32s-vgg16", channels={"depth": 2, "image": 3})
    done = hows(target, donor(source, tmp_path / "m.safetensors"))
    assert done["trunks.fused.conv1_1.weight"] == "depth the mean of 3 filters, image copied"
    torch.testing.assert_close(
        target.get_parameter("trunks.fused.conv1_1.weight")[:, 2:], source.get_parameter("trunks.image.conv1_1.weight")
    )


def test_two_nets_become_one_with_late_fusion(tmp_path: Path) -> None:
    color, hha = random_net("nyud-fcn32s-color", None), random_net("nyud-fcn32s-hha", None, seed=1)
    donors = [donor(color, tmp_path / "c.safetensors"), donor(hha, tmp_path / "h.safetensors")]
    x, y = image(seed=1), image(seed=2)
    with torch.inference_mode():
        expected = (color(x) + hha(y)) / 2
    for order in (donors, donors[::-1]):  # they are known by their names
        fused = random_net("nyud-fcn32s-color-hha", None, seed=2)
        assert set(hows(fused, *order).values()) == {"copied"}
        with torch.inference_mode():
            torch.testing.assert_close(fused({"color": x, "hha": y}), expected, rtol=1e-4, atol=1e-4)


def test_trunks_without_the_inputs_names_are_taken_in_order(tmp_path: Path) -> None:
    one, two = random_net("fcn32s-vgg16"), random_net("fcn32s-vgg16", seed=1)
    donors = [donor(one, tmp_path / "1.safetensors"), donor(two, tmp_path / "2.safetensors")]
    target = random_net("fcn32s-vgg16", channels={"day": 3, "night": 3}, fusion="late")
    transplant(target, donors)
    for name, net in (("day", one), ("night", two)):
        assert torch.equal(
            target.get_parameter(f"trunks.{name}.fc6.weight"), net.get_parameter("trunks.image.fc6.weight")
        )
    transplant(target, donors[1:])  # one file alone serves both
    for name in ("day", "night"):
        assert torch.equal(
            target.get_parameter(f"trunks.{name}.fc6.weight"), two.get_parameter("trunks.image.fc6.weight")
        )
    with pytest.raises(OptionError, match=r"2.safetensors gives this net nothing beside the others; leave it out"):
        transplant(random_net("fcn32s-vgg16"), donors)


@pytest.mark.parametrize(("source", "target"), [("voc-fcn8s-atonce", "voc-fcn8s"), ("voc-fcn8s", "voc-fcn8s-atonce")])
def test_factors_on_the_skips_are_folded_or_unfolded(source: str, target: str, tmp_path: Path) -> None:
    net, other = random_net(source, None), random_net(target, None, seed=1)
    with torch.no_grad():  # so that the skips count in the at-once net
        for stride, factor in net.options.scales.items():
            net.get_parameter(f"heads.semantic.score.image.{stride}.weight").mul_(1 / factor)
    done = hows(other, donor(net, tmp_path / "m.safetensors"))
    sixteen = "times 0.01" if target == "voc-fcn8s" else "times 100"
    assert done["heads.semantic.score.image.16.weight"] == f"copied, {sixteen}"
    assert done["heads.semantic.score.image.16.bias"] == done["heads.semantic.score.image.32.weight"] == "copied"
    with torch.inference_mode():
        one, two = net(image()), other(image())
    assert (one - two).abs().max() < 1e-5 * one.abs().max()


def test_the_normalisation_comes_with_the_weights(tmp_path: Path) -> None:
    odd = {"image": InputOptions((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))}
    source, target = random_net("fcn32s-vgg16", inputs=odd), random_net("fcn32s-vgg16", seed=1)
    given = donor(source, tmp_path / "m.safetensors")
    assert adopted(target.options, [given]).inputs == odd
    transplant(target, [given])
    assert target.options.inputs == odd
    torch.testing.assert_close(target(image()), source(image()))
    assert adopted(target.options, []) == target.options


def test_a_net_on_meta_takes_the_tensors_as_they_are(tmp_path: Path) -> None:
    given = donor(random_net("fcn32s-vgg16"), tmp_path / "m.safetensors")
    with torch.device("meta"):
        target = build("fcn16s-vgg16", 3, channels={"a": 3, "b": 3}, fusion="late", width=WIDTH, upsampling="learned")
    transplant(target, [given])
    parameters = list(target.parameters())
    assert not any(p.is_meta for p in parameters)
    assert len({p.data_ptr() for p in parameters if p.numel()}) == len(parameters), "two trunks share no memory"
    taken = given.weights["trunks.image.fc6.weight"].tensor.data_ptr()
    assert target.get_parameter("trunks.a.fc6.weight").data_ptr() == taken, "no copy"


def test_batch_norm_and_alike_trunks(tmp_path: Path) -> None:
    source = random_net("fcn1s-slim")
    for buffer in source.trunks.buffers():
        buffer.add_(1)
    target = random_net("fcn8s-slim", seed=1)
    done = hows(target, donor(source, tmp_path / "m.safetensors"))
    assert all(how == ("copied" if key.startswith("trunks.") else "zero") for key, how in done.items())
    assert all(torch.equal(v, source.trunks.state_dict()[k]) for k, v in target.trunks.state_dict().items())


def test_what_is_left_over_and_what_is_missing(tmp_path: Path) -> None:
    source = random_net("fcn8s-vgg16")
    given = donor(source, tmp_path / "m.safetensors")
    kept = {key: value for key, value in given.weights.items() if ".fc7." not in key}
    target = random_net("fcn32s-vgg16", seed=1)
    before = target.get_parameter("trunks.image.fc7.weight").clone()
    done = transplant(target, [replace(given, weights=kept, unused=("loss (Convolution)",))])
    assert torch.equal(target.get_parameter("trunks.image.fc7.weight"), before)
    assert done.fresh() == ["trunks.image.fc7.weight", "trunks.image.fc7.bias"]
    skips = [f"heads.semantic.score.image.{s}.{kind}" for s in (16, 8) for kind in ("weight", "bias")]
    assert list(done.dropped) == [*skips, "loss (Convolution)"]
    assert done.summary() == [
        "30 weights copied",
        "2 weights fresh: trunks.image.fc7.weight, trunks.image.fc7.bias",
        f"not used: {', '.join(skips)}, loss (Convolution)",
    ]


def test_files_may_be_given_as_they_are(tmp_path: Path) -> None:
    source = random_net("fcn32s-vgg16")
    donor(source, tmp_path / "m.safetensors")
    for given in (tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        target = random_net("fcn32s-vgg16", seed=1)
        transplant(target, [given])
        torch.testing.assert_close(target(image()), source(image()))
    with pytest.raises(OptionError, match="nothing to take weights from; give one file or several"):
        transplant(random_net("fcn32s-vgg16"), [])
    with pytest.raises(ModelFileError, match="is a folder; expected a file of weights"):
        transplant(random_net("fcn32s-vgg16"), [tmp_path])


def test_nets_of_another_precision(tmp_path: Path) -> None:
    source = random_net("fcn32s-vgg16")
    target = random_net("fcn32s-vgg16", seed=1).double()
    transplant(target, [donor(source, tmp_path / "m.safetensors")])
    assert target.normalise["image"].mean.dtype == torch.float64
    torch.testing.assert_close(target(image()).float(), source(image()), rtol=1e-4, atol=1e-4)


class TestInputChannels:
    """By what the nets score: channels that say nothing change nothing."""

    def scores_alike(self, one: Tensor, other: Tensor) -> None:
        assert (one - other).abs().max() < 1e-4 * one.abs().max()

    def test_a_grey_image_scores_as_its_colour_copy(self, tmp_path: Path) -> None:
        grey = {"image": InputOptions((100.0,) * 3, (50.0,) * 3, "bgr")}
        source = random_net("fcn32s-vgg16", inputs=grey)
        target = random_net("fcn32s-vgg16", channels=1, seed=1)
        done = hows(target, donor(source, tmp_path / "m.safetensors"))
        assert done["trunks.image.conv1_1.weight"] == "image the sum of 3 filters"
        assert target.options.inputs["image"] == InputOptions((100.0,), (50.0,))
        x = image(1)
        self.scores_alike(source(x.repeat(1, 3, 1, 1)), target(x))

    @pytest.mark.parametrize("order", ["rgb", "bgr"])
    def test_more_channels_than_colours(self, order: str, tmp_path: Path) -> None:
        inputs = {"image": InputOptions((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), order)}
        source = random_net("fcn32s-vgg16", inputs=inputs)
        target = random_net("fcn32s-vgg16", channels=5, seed=1)
        done = hows(target, donor(source, tmp_path / "m.safetensors"))
        how = "copied in reverse" if order == "bgr" else "copied"
        assert done["trunks.image.conv1_1.weight"] == f"image {how} and the mean of 3 filters"
        x, mean = image(), torch.full((1, 2, 40, 53), 127.5)  # the others at their mean: colour alone is left
        self.scores_alike(source(x), target(torch.cat([x, mean], 1)))

    def test_colour_finds_its_own_among_inputs_of_three_channels(self, tmp_path: Path) -> None:
        source = random_net("nyud-fcn32s-color", None)
        target = random_net("fcn32s-vgg16", 40, channels={"hha": 3, "color": 3}, padding="paper", seed=1)
        before = target.options.inputs["hha"]
        hows(target, donor(source, tmp_path / "m.safetensors"))
        assert target.options.inputs == {"hha": before, "color": source.options.inputs["color"]}
        mean = torch.tensor(before.mean).view(1, 3, 1, 1).expand(1, 3, 40, 53)
        x = image()
        self.scores_alike(source(x), target({"hha": mean, "color": x}))

    def test_one_input_of_a_net_of_several(self, tmp_path: Path) -> None:
        source = random_net("nyud-fcn32s-color-d", None)
        target = random_net("nyud-fcn32s-color", None, seed=1)
        hows(target, donor(source, tmp_path / "m.safetensors"))
        x = image()
        mean_depth = torch.full((1, 1, 40, 53), 7.844).exp()
        self.scores_alike(source({"color": x, "depth": mean_depth}), target(x))

    def test_a_data_sets_means_stay(self, tmp_path: Path) -> None:
        """Colour weights of torchvision's in a net whose inputs have means of their own (reference 7.4)."""
        own = {"image": InputOptions((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))}
        target = random_net("nyud-fcn32s-color-hha", None, seed=1)
        transplant(target, [donor(random_net("fcn32s-vgg16", inputs=own), tmp_path / "m.safetensors")])
        assert target.options.inputs == {
            "color": InputOptions((92.318, 97.203, 116.190), (58.395, 57.12, 57.375), "rgb"),
            "hha": InputOptions((132.431, 94.076, 118.477), (58.395, 57.12, 57.375), "rgb"),
        }

    def test_logarithms_are_no_colours(self, tmp_path: Path) -> None:
        depth = {"depth": InputOptions((7.8,), (1.0,), log=True)}
        source = random_net("fcn32s-vgg16", inputs=depth)
        target = random_net("fcn32s-vgg16", channels=1, seed=1)
        done = hows(target, donor(source, tmp_path / "m.safetensors"))
        assert done["trunks.image.conv1_1.weight"] == "image the mean of 1 filters"
        assert not target.options.inputs["image"].log


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    """Numbered classes, as of a converted file without names."""
    numbered = donor(random_net("fcn32s-vgg16"), tmp_path / "m.safetensors")
    assert not numbered.labels["semantic"].named
    done = hows(random_net("fcn32s-vgg16", seed=1), numbered, labels=COLOURS)
    assert done["heads.semantic.score.image.32.weight"] == "copied"
    done = hows(random_net("fcn32s-vgg16", 5, seed=1), numbered, labels=LabelSet.numbered(5))
    assert done["heads.semantic.score.image.32.weight"] == "zero"


def test_names_are_shown_on_one_line(tmp_path: Path) -> None:
    given = donor(random_net("fcn32s-vgg16"), tmp_path / "m.safetensors", LabelSet(("a\nb", "[red]", "c")))
    done = hows(random_net("fcn32s-vgg16", 2, seed=1), given, labels=LabelSet(("a\nb", "[red]")))
    assert done["heads.semantic.score.image.32.weight"] == "2 of 2 classes: a\\nb, [red]"


def test_learned_upsampling_is_not_lost_without_a_word(tmp_path: Path) -> None:
    source = random_net("fcn16s-vgg16", upsampling="learned")
    given = donor(source, tmp_path / "m.safetensors")
    transplant(random_net("fcn16s-vgg16", seed=1), [given])  # it is bilinear still
    with torch.no_grad():
        source.get_parameter("heads.semantic.upscore.16.weight")[0, 1, 2, 2] += 0.5
    given = donor(source, tmp_path / "m.safetensors")
    message = r"upscore.16.weight differs from bilinear upsampling by 0.5, and this net's is fixed; add --upsampling"
    with pytest.raises(ModelFileError, match=message):
        transplant(random_net("fcn16s-vgg16", seed=1), [given])
    transplant(random_net("fcn8s-vgg16", upsampling="learned", seed=1), [given])


@pytest.mark.parametrize("upsampling", ["stacked", "unpooling"])
def test_other_upsamplings(upsampling: str, tmp_path: Path) -> None:
    """Kept by nets of the same kind; else they start as they do in a fresh net, and what is left is named."""
    plain = donor(random_net("fcn16s-vgg16"), tmp_path / "plain.safetensors")
    fresh = build("fcn16s-vgg16", 3, width=WIDTH, upsampling=upsampling)
    with torch.device("meta"):
        target = build("fcn16s-vgg16", 3, width=WIDTH, upsampling=upsampling)
    done = hows(target, plain)
    started = {key: how for key, how in done.items() if ".upscore." in key}
    assert all(how == "copied" for key, how in done.items() if key not in started)
    assert set(started.values()) == {"stacked": {"bilinear", "initial"}, "unpooling": {"initial"}}[upsampling]
    for key in started:
        assert torch.equal(target.state_dict()[key], fresh.state_dict()[key]), key

    source = random_net("fcn16s-vgg16", upsampling=upsampling)
    with torch.no_grad():
        for parameter in source.heads["semantic"].upscore.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
    given = donor(source, tmp_path / "source.safetensors")
    same = random_net("fcn16s-vgg16", upsampling=upsampling, seed=1)
    assert set(hows(same, given).values()) == {"copied"}
    torch.testing.assert_close(same(image()), source(image()))
    other = transplant(random_net("fcn16s-vgg16", seed=1), [given])
    assert set(other.dropped) == set(started)
    assert "not used: heads.semantic.upscore.16." in other.summary()[-1]


def test_learned_upsampling_is_named_where_another_learned_one_replaces_it(tmp_path: Path) -> None:
    source = random_net("fcn16s-vgg16", upsampling="learned")
    with torch.no_grad():
        source.get_parameter("heads.semantic.upscore.16.weight")[0, 1, 2, 2] += 0.5
    given = donor(source, tmp_path / "m.safetensors")
    for upsampling in ("stacked", "unpooling"):
        done = transplant(random_net("fcn16s-vgg16", upsampling=upsampling, seed=1), [given])
        assert done.dropped == ("heads.semantic.upscore.16.weight",)
    with pytest.raises(ModelFileError, match="differs from bilinear upsampling by 0.5, and this net's is fixed"):
        transplant(random_net("fcn16s-vgg16", upsampling="interpolation", seed=1), [given])


def test_unpoolings_follow_their_trunks(tmp_path: Path) -> None:
    """Two nets of one input each, under other names, become the two trunks of a late fusion."""
    files = []
    for number, channels in enumerate((3, 1)):
        net = random_net("fcn32s-slim", channels=channels, upsampling="unpooling", seed=number)
        with torch.no_grad():
            for parameter in net.heads["semantic"].upscore.parameters():
                parameter.normal_()
        files.append((net, donor(net, tmp_path / f"{number}.safetensors")))
    target = random_net(
        "fcn32s-slim", channels={"colour": 3, "depth": 1}, fusion="late", upsampling="unpooling", seed=2
    )
    done = hows(target, *(given for _, given in files))
    assert {how for key, how in done.items() if ".expand." in key or ".reduce." in key} == {"copied"}
    for name, (net, _) in zip(("colour", "depth"), files, strict=True):
        mine = target.get_parameter(f"heads.semantic.upscore.2.reduce.{name}.weight")
        assert torch.equal(mine, net.get_parameter("heads.semantic.upscore.2.reduce.image.weight"))


def test_refusals(tmp_path: Path) -> None:
    given = donor(random_net("fcn32s-vgg16"), tmp_path / "m.safetensors")
    with pytest.raises(
        OptionError,
        match="m.safetensors has the trunk 'vgg16', the net has 'vgg16bn'; choose a net such as fcn32s-vgg16",
    ):
        transplant(random_net("fcn32s-vgg16bn"), [given])
    message = r"m.safetensors: trunks.image.conv1_1.weight is 4x3x3x3; the net's trunks.image.conv1_1.weight is 8x3x3x3"
    with pytest.raises(ModelFileError, match=message):
        transplant(random_net("fcn32s-vgg16", width=1 / 8), [given])
    narrow = given.weights["heads.semantic.score.image.32.weight"]
    odd = {**given.weights, "heads.semantic.score.image.32.weight": replace(narrow, tensor=narrow.tensor[:, :5])}
    with pytest.raises(ModelFileError, match=r"score.image.32.weight reads 5 channels; the net's .* reads 256"):
        transplant(random_net("fcn32s-vgg16"), [replace(given, weights=odd)])
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(
        OptionError, match=r"weights.onnx: weights are read from .safetensors, .caffemodel, .pth, .pt files"
    ):
        read_donor(tmp_path / "weights.onnx", random_net("fcn32s-vgg16"))
