"""Before the first step: data, options, first weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fullconv.data.check import Moments
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.errors import DataError, GeometryError, ModelFileError, OptionError
from fullconv.labels import VOID, LabelSet
from fullconv.nets import FCN, NETS, InputOptions, build
from fullconv.training.recipes import RECIPES
from fullconv.training.setup import (
    RunOptions,
    Splits,
    choose_net,
    class_notes,
    make_net,
    named_inputs,
    open_splits,
    read_donors,
    require_healthy,
    resolve_options,
    surroundings,
)
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS, InMemory, one, some
from makers import make_folder, make_nyud, save, scene


@pytest.fixture(scope="module")
def splits() -> Splits:
    return open_splits((some("train", 20, (20, 40)), some("val", 2)))


def resolve(splits: Splits, **changes: object) -> RunOptions:
    values: dict[str, object] = {
        "recipe": "scratch", "seed": 0, "minutes": None, "epochs": None, "steps": None, "precision": "float32",
        "init": (), "overrides": {},
    }  # fmt: skip
    options = changes.pop("net_options", {"width": 0.1})
    net = choose_net(changes.pop("net", "fcn8s-slim"), splits.train.dataset, options)  # type: ignore[arg-type]
    return resolve_options("arrays", splits, net, **{**values, **changes})  # type: ignore[arg-type]


def made(options: RunOptions, labels: LabelSet = LABELS) -> tuple[FCN, list[str]]:
    return make_net(options, read_donors(options.net, options.init), {SEMANTIC: labels})


def test_both_splits_are_looked_at_and_kept_in_memory(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    splits = open_splits(make_folder(tmp_path), lambda *args: seen.append(args))
    assert seen == [("train", i, 4) for i in range(1, 5)] + [("val", i, 2) for i in range(1, 3)]
    assert splits.train.sizes == ((12, 16),) * 4
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert len({splits.train.dataset[i].name for i in range(4)}) == 4, "no file is read twice"


def test_copies_of_a_data_set_have_one_fingerprint(tmp_path: Path) -> None:
    prints = {open_splits(make_folder(tmp_path / name)).fingerprint() for name in "ab"}
    assert len(prints) == 1
    (tmp_path / "a" / "train" / "images" / "0000.png").write_bytes(
        (tmp_path / "a" / "train" / "images" / "0001.png").read_bytes() + b"\0"
    )
    assert open_splits(tmp_path / "a").fingerprint() not in prints


def test_the_problems_of_both_splits_are_told_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 13, "val": 3})
    (tmp_path / "classes.txt").write_text("ground\na\nb")
    for number in (*range(12), 14):
        split = "train" if number < 13 else "val"
        (tmp_path / split / "images" / f"{number:04}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        open_splits(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("(train): 12 problems in 13 samples:")
    assert [f"{number:04}.png: is empty" in line for number, line in enumerate(lines[1:11])] == [True] * 10
    assert lines[11] == "  and 2 more"
    assert lines[12].endswith("(val): 1 problem in 3 samples:")
    assert "0014.png" in lines[13]


def test_data_without_samples_or_with_two_kinds_of_labels() -> None:
    with pytest.raises(DataError, match=r"arrays \(val\): holds no sample; expected at least one"):
        open_splits((some("train", 2), some("val", 0)))
    other = InMemory([one(0)], "val", {SEMANTIC: LabelSet(("0", "1", "two"))})
    with pytest.raises(DataError, match=r"train has the classes .*val .*'two'.*expected the same"):
        open_splits((some("train", 2), other))


def test_the_length_is_that_given_or_the_recipes(splits: Splits) -> None:
    assert (resolve(splits, steps=7).steps, resolve(splits, steps=7).minutes) == (7, None)
    assert (resolve(splits, minutes=1.5).steps, resolve(splits, minutes=1.5).minutes) == (None, 1.5)
    assert resolve(splits).steps == RECIPES["scratch"].steps
    assert resolve(splits, recipe="heavy").steps == 100_000
    assert resolve(splits, overrides={"steps": 9}).steps == 9
    # 20 images in batches of 5: four steps an epoch.
    assert resolve(splits).recipe.batch == 5
    assert resolve(splits, epochs=2.5).steps == 10
    assert resolve(splits, epochs=0.001).steps == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "epochs": 1.0}, "minutes, epochs and steps are three ways to give one length; choose one"),
        ({"minutes": 5.0, "epochs": 1.0}, "choose one"),
        ({"epochs": 0.0}, "0.0 epochs; expected a number above 0"),
        ({"epochs": float("nan")}, "nan epochs; expected a number above 0"),
        ({"epochs": float("inf")}, "inf epochs; expected a number above 0"),
        (
            {"overrides": {"batch": 1, "crop": (32, 32)}},
            "1 image of 32 x 32 a step leaves batch norm one value.*--batch",
        ),
        ({"seed": -1}, "seed -1; expected 0 or a positive number"),
        ({"seed": 1 << 63}, "seed 9223372036854775808; expected 0"),
        ({"net": "fcn8s-slm"}, "unknown net 'fcn8s-slm'; did you mean 'fcn8s-slim'"),
        ({"net_options": {"pading": "same"}}, "unknown net option 'pading'; did you mean 'padding'"),
        ({"overrides": {"lrr": 1}}, "unknown training option 'lrr'; did you mean 'lr'"),
        ({"recipe": "heavier"}, "unknown recipe 'heavier'; did you mean 'heavy'"),
        ({"net": build("fcn8s-slim", 4, width=0.1).options}, r"the net has \{'semantic': 4\} .*the data .*: 3\}"),
        (
            {"net": build("fcn8s-slim", 3, channels=1, width=0.1).options},
            r"the net takes \{'image': 1\} \(input: channels\), the data has \{'image': 3\}",
        ),
    ],
)
def test_what_cannot_be_is_named(splits: Splits, changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve(splits, **changes)


def test_the_smallest_image_decides_what_batch_norm_has_to_average() -> None:
    data = InMemory([one(0, (20, 40)), one(1, (9, 8)), one(2, (3, 33))])
    splits = open_splits((data, InMemory(data.samples, "val")))
    with pytest.raises(OptionError, match="1 image of 9 x 8 a step"):
        resolve(splits, overrides={"batch": 1})
    resolve(splits, overrides={"batch": 2})
    resolve(splits, overrides={"batch": 1, "crop": (32, 33)})
    resolve(splits, overrides={"batch": 1}, net="fcn8s-vgg16", net_options={"width": 0.02})  # it has no batch norm
    resolve(splits, net_options={"width": 0.1, "upsampling": "learned-all"})


@pytest.mark.parametrize("error", [GeometryError("pad more"), ValueError("pad more")], ids=repr)
def test_layers_that_do_not_fit_the_images_say_so_themselves(
    error: Exception, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(net: FCN, x: object) -> None:
        raise error

    monkeypatch.setattr(FCN, "coarse", coarse)
    with pytest.raises(type(error), match="^pad more$"):
        resolve(splits)


def test_the_net_takes_the_datas_classes_and_inputs() -> None:
    image = np.zeros((8, 9, 2), np.uint8)
    sample = Sample("s", {"radar": image}, {"sea": image[..., 0], "ice": image[..., 0]})
    labels = {"sea": LABELS, "ice": LabelSet.numbered(5)}
    splits = open_splits(tuple(InMemory([sample], s, labels, {"radar": InputKind(2)}) for s in ("train", "val")))  # type: ignore[arg-type]
    net = resolve(splits).net
    assert net.classes == {"sea": 3, "ice": 5}
    assert {name: i.channels for name, i in net.inputs.items()} == {"radar": 2}


@pytest.mark.parametrize("recipe", RECIPES)
def test_options_survive_run_yaml(splits: Splits, recipe: str) -> None:
    options = resolve(splits, recipe=recipe, minutes=2.5, init=["ü.safetensors", "b.pth"], overrides={"crop": (32, 64)})
    text = yaml.safe_dump(options.to_yaml())
    assert RunOptions.from_yaml({**yaml.safe_load(text), "torch": "2"}) == options
    one = RunOptions.from_yaml({**yaml.safe_load(text), "init": "ü.safetensors"})  # as before there could be several
    assert one.init == ("ü.safetensors",)
    assert RunOptions.from_yaml({**yaml.safe_load(text), "init": None}).init == ()


@pytest.mark.parametrize(
    "change", [{"recipe": None}, {"recipe": {"lr": 1}}, {"recipe": 3}, {"net": {}}, {"net": None}, {"name": ...}]
)
def test_run_yaml_of_another_kind_is_refused(splits: Splits, change: dict[str, object]) -> None:
    value = {**resolve(splits).to_yaml(), **change}
    value = {key: v for key, v in value.items() if v is not ...}
    with pytest.raises(OptionError, match="incomplete or of"):
        RunOptions.from_yaml(value)


def test_first_weights_follow_the_seed(splits: Splits) -> None:
    first, again, other = (made(resolve(splits, seed=seed))[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["trunks.image.conv1_1.weight"], other["trunks.image.conv1_1.weight"])


def test_weights_of_a_model_file_are_taken(splits: Splits, tmp_path: Path) -> None:
    """What fits where is the transplant's; see there."""
    torch.manual_seed(5)
    source = build("fcn8s-slim", 3, width=0.1)
    torch.nn.init.normal_(source.get_parameter("heads.semantic.score.image.8.weight"))
    path = tmp_path / "m.safetensors"
    write_model(path, ModelFile(source, {SEMANTIC: LABELS}))
    net, notes = made(resolve(splits, init=[path]))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in source.state_dict().items())
    assert notes == [f"init from {path}: {len(source.state_dict())} weights copied"]
    path.unlink()
    _, notes = make_net(resolve(splits, init=[path]), [], {SEMANTIC: LABELS})  # a resumed run
    assert notes == [f"init: weights from {path} when the run began"]
    with pytest.raises(ModelFileError, match="does not exist"):
        read_donors(net.options, [path])


def test_run_yaml_says_where_a_run_was_made() -> None:
    around = surroundings()
    assert list(around) == ["fullconv", "torch", "accelerate", "python", "machine"]
    assert yaml.safe_load(yaml.safe_dump(around)) == around


def test_inputs_need_not_be_called_image() -> None:
    assert IMAGE == "image"
    sample = one(0)
    renamed = Sample("s", {"photo": sample.inputs[IMAGE]}, sample.masks)
    splits = open_splits(tuple(InMemory([renamed], s, None, {"photo": InputKind()}) for s in ("train", "val")))
    assert list(resolve(splits).net.inputs) == ["photo"]


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


KINDS = {
    "photo": InputKind(), "radar": InputKind(2), "depth": InputKind(1, log=True),
    "bands": InputKind(5, (7, 5, 4, 2, 1), (5, 4, 2)),
}  # fmt: skip


def several() -> InMemory:
    """An input of each kind."""
    arrays = {name: np.ones((8, 9, kind.channels), np.uint8) for name, kind in KINDS.items()}
    return InMemory([Sample("s", arrays, {SEMANTIC: np.zeros((8, 9), np.uint8)})], inputs=KINDS)


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


def test_splits_of_other_inputs_are_refused() -> None:
    image = {IMAGE: np.ones((8, 9, 2), np.uint8)}
    samples = [Sample("s", image, {SEMANTIC: np.zeros((8, 9), np.uint8)})]
    train = InMemory(samples, inputs={IMAGE: InputKind(2, (1, 2))})
    for other in (InputKind(2, (2, 1)), InputKind(2), InputKind(2, (1, 2), log=True)):
        with pytest.raises(
            DataError, match=r"train has the classes and inputs .*InputKind.*, val .*; expected the same"
        ):
            open_splits((train, InMemory(samples, "val", inputs={IMAGE: other})))


def test_inputs_that_are_wanted() -> None:
    data = several()
    with pytest.raises(OptionError, match=r"unknown input of arrays 'fotos'; did you mean 'photo'\? Choices: bands, "):
        open_splits((data, data), inputs=["fotos"])
    with pytest.raises(OptionError, match="arrays: has the inputs photo, radar, depth, bands, the net takes photo;"):
        open_splits((data, data), inputs=["photo"])
    splits = open_splits((data, data), inputs=["bands", "depth", "radar", "photo"])
    assert set(splits.train.moments) == {"radar", "depth", "bands"}


def recoded(root: Path, change: Callable[[np.ndarray], np.ndarray], splits: str = "*") -> Path:
    """A plain folder of three classes whose masks are changed."""
    make_folder(root)
    (root / "classes.txt").write_text("ground\na\nb\n")
    for path in root.glob(f"{splits}/masks/*.png"):
        save(path, change(scene(int(path.stem))[1]))
    return root


def test_healthy_data_passes_whatever_its_layout(tmp_path: Path) -> None:
    for source in (recoded(tmp_path / "a", lambda m: m), make_nyud(tmp_path / "b"), "wafer"):
        require_healthy(source)


def test_masks_that_would_be_learned_wrong_are_refused(tmp_path: Path) -> None:
    root = recoded(tmp_path / "my data", lambda m: np.where(m == VOID, VOID, m + 1).astype(np.uint8))
    with pytest.raises(DataError) as caught:
        require_healthy(root)
    assert str(caught.value) == (
        f"{root}: training would not start, or learn wrong labels:\n"
        "  masks that count classes from 1: 7 of those looked at (train/0000, train/0001, train/0002, train/0003, "
        f'val/0004, val/0005, test/0006); in a YAML file of this one line: {{path: "{root}", train: train/images, val: '
        "val/images, test: test/images, masks_dir: masks, names: [ground, a, b], label_mapping: {0: 255, 1: 0, 2: 1, "
        f"3: 2}}}}; or counted from 0: fullconv doctor '{root}' --fix FIXED"
    )
    (root / "classes.txt").write_text("ground\na\n")
    for path in root.glob("*/masks/*.png"):
        save(path, np.where(scene(int(path.stem))[1] == 1, 255, 0).astype(np.uint8))
    with pytest.raises(
        DataError, match=r"two-class masks of 0 and 255: \d of those.*label_mapping: {0: 0, 255: 1}}; or"
    ):
        open_splits(root)


def test_faults_that_every_reader_meets_are_left_to_the_check(tmp_path: Path) -> None:
    root = recoded(tmp_path, lambda m: np.where(m == 2, 9, m).astype(np.uint8))
    require_healthy(root)
    with pytest.raises(DataError) as caught:
        open_splits(root)
    lines = str(caught.value).splitlines()
    assert "holds value 9" in lines[1]
    assert lines[-1] == f"see all, and repair what can be, with: fullconv doctor {root} --fix FIXED"


def test_what_is_missing_in_a_split_is_noted() -> None:
    def of(split: str, *classes: int) -> InMemory:
        mask = np.resize(np.array(classes, np.uint8), (20, 30))
        return InMemory([Sample("s", {IMAGE: np.zeros((20, 30, 3), np.uint8)}, {SEMANTIC: mask})], split, LABELS_3)

    assert class_notes(open_splits((of("train", 0, 1, 2), of("val", 0, 1, 2)))) == []
    assert class_notes(open_splits((of("train", 0, 1), of("val", 2, 1, VOID)))) == [
        "train has no pixel of b: what is not in train is not learned",
        "val has no pixel of ground: what is not in val is not scored",
    ]
    both = InMemory(
        [Sample("s", {IMAGE: np.zeros((2, 3, 3), np.uint8)}, {t: np.zeros((2, 3), np.uint8) for t in ("x", "y")})],
        "train", {"x": LabelSet.numbered(1), "y": LABELS_3[SEMANTIC]},
    )  # fmt: skip
    assert class_notes(open_splits((both, both)))[0] == (
        "train has no pixel of a, b (y): what is not in train is not learned"
    )


LABELS_3 = {SEMANTIC: LabelSet(("ground", "a", "b"))}


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
