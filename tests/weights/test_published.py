"""The table of published weights against the authors' figures, typed a second time."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from fullconv.nets import NETS
from fullconv.weights.published import PUBLISHED, PublishedWeights

VOC = {
    # The released files measured by another implementation, in per cent: pixel, mean accuracy, mean IU, f.w. IU.
    "voc-fcn32s": (90.4810, 76.4824, 63.6261, 83.4580),
    "voc-fcn16s": (90.9971, 78.0710, 65.0050, 84.2614),
    "voc-fcn8s": (91.2212, 77.6146, 65.5126, 84.5445),
    "voc-fcn8s-atonce": (91.1288, 78.4979, 65.3998, 84.4326),
}

CLASSIFIERS = {
    # top-1 and top-5 in per cent, centre crop.
    "caffenet": (57.4, 80.4),
    "alexnet-bvlc": (57.1, 80.2),
    "googlenet-bvlc": (68.7, 88.9),
    "torchvision-alexnet": (56.522, 79.066),
    "torchvision-vgg16": (71.592, 90.382),
    "torchvision-vgg16bn": (73.360, 91.516),
    "torchvision-googlenet": (69.778, 89.530),
    "torchvision-resnet18": (69.758, 89.078),
    "torchvision-resnet34": (73.314, 91.420),
    "torchvision-resnet50": (76.130, 92.862),
}

SHA1 = {
    "voc-fcn32s": "05eb922d7829c39448f57e5ab9d8cd75d6c0be6d",
    "caffenet": "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
    "alexnet-bvlc": "9116a64c0fbe4459d18f4bb6b56d647b63920377",
    "vgg16-caffe": "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
    "googlenet-bvlc": "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
}

BERKELEY = {
    "voc-fcn32s": "fcn32s-heavy-pascal", "voc-fcn16s": "fcn16s-heavy-pascal", "voc-fcn8s": "fcn8s-heavy-pascal",
    "voc-fcn8s-atonce": "fcn8s-atonce-pascal", "voc-fcn-alexnet": "fcn-alexnet-pascal",
    **{f"pascalcontext-fcn{s}s": f"pascalcontext-fcn{s}s-heavy" for s in (32, 16, 8)},
    **{f"siftflow-fcn{s}s": f"siftflow-fcn{s}s-heavy" for s in (32, 16, 8)},
    **{f"nyud-fcn32s-{kind}": f"nyud-fcn32s-{kind}-heavy" for kind in ("color", "hha", "color-hha")},
    "caffenet": "bvlc_reference_caffenet", "alexnet-bvlc": "bvlc_alexnet", "googlenet-bvlc": "bvlc_googlenet",
}  # fmt: skip

every = pytest.mark.parametrize(("name", "each"), PUBLISHED.items(), ids=list(PUBLISHED))


@every
def test_an_address_names_a_file_of_weights(name: str, each: PublishedWeights) -> None:
    parts = urlsplit(each.url)
    assert parts.scheme in ("http", "https")
    assert parts.netloc
    assert (parts.query, parts.fragment) == ("", "")
    assert parts.path.endswith(".pth" if name.startswith("torchvision-") else ".caffemodel")


@every
def test_a_digest_is_whole_or_the_prefix_in_the_files_name(name: str, each: PublishedWeights) -> None:
    if name.startswith("torchvision-"):
        prefix = re.search(r"-([0-9a-f]{8})\.pth$", each.url)
        assert prefix is not None
        assert each.digest == f"sha256:{prefix[1]}"
    else:
        assert each.digest == (f"sha1:{SHA1[name]}" if name in SHA1 else None)
        assert each.digest is None or re.fullmatch(r"sha1:[0-9a-f]{40}", each.digest)


@every
def test_scores_are_those_of_the_file(name: str, each: PublishedWeights) -> None:
    expected = {}
    if name in VOC:
        expected = dict(zip(("pixel accuracy", "mean accuracy", "mean IU", "f.w. IU"), VOC[name], strict=True))
    elif name in CLASSIFIERS:
        expected = dict(zip(("top-1", "top-5"), CLASSIFIERS[name], strict=True))
    elif name == "voc-fcn-alexnet":
        expected = {"mean IU": 48.0}
    assert {key: 100 * value for key, value in each.scores.items()} == pytest.approx(expected)
    assert bool(each.scored_on) == bool(each.scores)
    if "mean IU" in each.scores:
        assert each.scored_on == "seg11valid (736 images)"


@every
def test_a_net_of_ours_takes_it(name: str, each: PublishedWeights) -> None:
    assert each.net in NETS
    own = name.startswith(("voc-", "pascalcontext-", "nyud-", "siftflow-"))
    assert (each.net == name) == own
    assert own or each.net.startswith("fcn32s-")


@every
def test_it_says_what_it_is_and_under_which_licence(name: str, each: PublishedWeights) -> None:
    for text in (each.about, each.licence):
        assert text == text.strip()
        assert text.isprintable()
        assert text


def test_the_authors_files() -> None:
    urls = {name: each.url for name, each in PUBLISHED.items() if "berkeleyvision" in each.url}
    assert urls == {name: f"http://dl.caffe.berkeleyvision.org/{file}.caffemodel" for name, file in BERKELEY.items()}
    assert PUBLISHED["vgg16-caffe"].url == (
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel"
    )


def test_torchvisions_files() -> None:
    prefix = "https://download.pytorch.org/models/"
    tails = {each.url.removeprefix(prefix) for name, each in PUBLISHED.items() if name.startswith("torchvision-")}
    assert tails == {
        "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "vgg16_features-amdegroot-88682ab5.pth",
        "vgg16_bn-6c64b313.pth", "googlenet-1378be20.pth", "resnet18-f37072fd.pth", "resnet34-b627a593.pth",
        "resnet50-0676ba61.pth", "resnet101-63fe2227.pth",
    }  # fmt: skip


def test_no_file_is_there_twice() -> None:
    for values in (
        [each.url for each in PUBLISHED.values()],
        [urlsplit(each.url).path.rpartition("/")[2].lower() for each in PUBLISHED.values()],  # one cache folder
        [each.digest for each in PUBLISHED.values() if each.digest],
    ):
        assert len(set(values)) == len(values)
    assert len(PUBLISHED) == len(BERKELEY) + 1 + 9
