"""How fast images become batches, and whether training waits for them.

    python benchmarks/data.py ../shared/data/camvid

Part one takes turns on one core: images and masks decoded, paired, augmented and stacked into batches of 8 crops of 288
(scale 0.7 to 1.5, flip, jitter of brightness, contrast and saturation) by fullconv, and by a plain loop of Pillow and
numpy that changes them in the same way. Part two trains for a minute and adds up the time that steps waited for theirs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from fullconv.data import open_dataset
from fullconv.data.augment import Augmentation
from fullconv.data.check import check
from fullconv.inference import batches
from fullconv.training import loop
from fullconv.training.loading import Loader
from fullconv.training.train import train
from measure import commit, take_turns

BATCH, CROP, SCALE, JITTER = 8, 288, (0.7, 1.5), 0.3
AUGMENTATION = Augmentation((CROP, CROP), SCALE, flip=True, jitter=JITTER)

Array = NDArray[np.uint8]


def plain_pair(root: Path, name: str) -> tuple[Image.Image, Image.Image]:
    """An image and its mask, decoded."""
    image = Image.open(root / "train" / f"{name}.png").convert("RGB")
    mask = Image.open(root / "trainannot" / f"{name}.png")
    mask.load()
    return image, mask


def plain_augmented(image: Image.Image, mask: Image.Image, rng: np.random.Generator) -> tuple[Array, Array]:
    """Scaled, cropped, mirrored and jittered, as most training scripts do it."""
    factor = float(np.exp(rng.uniform(*np.log(SCALE))))
    size = (round(image.width * factor), round(image.height * factor))
    image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
    width, height = max(size[0], CROP), max(size[1], CROP)
    if (width, height) != size:
        ground, void = Image.new("RGB", (width, height), (124, 124, 124)), Image.new("L", (width, height), 11)
        ground.paste(image)
        void.paste(mask)
        image, mask = ground, void
    left, top = int(rng.integers(0, width - CROP + 1)), int(rng.integers(0, height - CROP + 1))
    box = (left, top, left + CROP, top + CROP)
    image, mask = image.crop(box), mask.crop(box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(1 + rng.uniform(-JITTER, JITTER))
    labels = np.asarray(mask).copy()
    labels[labels == 11] = 255
    return np.asarray(image), labels


def speeds(root: Path, runs: int, count: int) -> dict[str, list[float]]:
    """Images a second of every way, on one core."""
    torch.set_num_threads(1)
    dataset = open_dataset(root, "train")
    held = check(dataset, cache_bytes=2**31).dataset
    names, rng = list(dataset.names[:count]), np.random.default_rng(0)

    def plain() -> None:
        for start in range(0, count, BATCH):
            pairs = [plain_augmented(*plain_pair(root, name), rng) for name in names[start : start + BATCH]]
            torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2).contiguous()
            torch.from_numpy(np.stack([mask for _, mask in pairs]))

    def ours(data: Any) -> Callable[[], None]:
        def go() -> None:
            for start in range(0, count, BATCH):
                draws = [(0, index) for index in range(start, start + BATCH)]
                (batch,) = Loader(data, (), AUGMENTATION, seed=0)(draws)  # crops are of one size
                batches.to_tensor(batch.inputs["image"], torch.device("cpu"))
                torch.from_numpy(np.stack(batch.masks["semantic"]))

        return go

    def decode_plain() -> None:
        for name in names:
            image, mask = plain_pair(root, name)
            np.asarray(image), np.asarray(mask)

    def decode_ours() -> None:
        for index in range(count):
            dataset[index]

    actions = {
        "decode and pair: plain Pillow and numpy": decode_plain,
        "decode and pair: fullconv, every file checked": decode_ours,
        "to batches: plain Pillow and numpy": plain,
        "to batches: fullconv, from files": ours(dataset),
        "to batches: fullconv, from memory (as training does it)": ours(held),
    }
    return {name: [count / each for each in seconds] for name, seconds in take_turns(actions, runs).items()}


def waiting(root: Path, minutes: float) -> tuple[float, float, float]:
    """Seconds of steps, seconds that they waited for their batch, and images a second, of a real run."""
    seconds = {"all": 0.0, "waited": 0.0}
    ahead = batches.ahead

    def timed(work: Callable[[Any], Any], items: Iterable[Any], **options: Any) -> Iterator[Any]:
        stream = ahead(work, items, **options)
        first, begin = True, 0.0
        try:
            while True:
                asked = time.perf_counter()
                item = next(stream)
                if not first:
                    seconds["waited"] += time.perf_counter() - asked
                    seconds["all"] += time.perf_counter() - begin
                first, begin = False, time.perf_counter()
                yield item
        finally:
            stream.close()

    with patch.object(loop, "ahead", timed), TemporaryDirectory() as folder:
        trained = train(root, "fcn8s-slim", out=Path(folder) / "run", minutes=minutes)
        batch = yaml.safe_load((trained.path / "run.yaml").read_text())["recipe"]["batch"]
    return seconds["all"], seconds["waited"], trained.steps * batch / max(seconds["all"], 1e-9)


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=1.0)
    args = parser.parse_args()
    threads = torch.get_num_threads()
    versions = f"torch {torch.__version__}, numpy {np.__version__}, Pillow {PIL.__version__}"
    print(f"commit {commit()}, {versions}; {args.runs} runs in turns, images a second on one core")
    found = speeds(args.camvid, args.runs, args.images // BATCH * BATCH)
    for name, rates in found.items():
        print(f"  {name}: {statistics.median(rates):.0f} ({min(rates):.0f} ... {max(rates):.0f})")
    torch.set_num_threads(threads)
    every, waited, rate = waiting(args.camvid, args.minutes)
    print(f"training, {threads} threads: {rate:.0f} images/s; steps waited {waited:.2f} s of {every:.1f} s for batches")


if __name__ == "__main__":
    main()
