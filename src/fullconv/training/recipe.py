"""Recipe: everything about a run that is not the net, the data or the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError, unknown_name
from fullconv.kinds import require_kinds
from fullconv.training.losses import CLASS_WEIGHTS, REDUCTIONS, LossOptions, parse_terms

OPTIMIZERS = ("adamw", "muon", "sgd")
SCHEDULES = ("cosine", "fixed")
ORDERS = ("epochs", "replacement")

ClassWeights = str | Sequence[float]
"""A rule (see `losses.class_weights`), or a factor a class."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Attributes:
        optimizer: "adamw"; "sgd" with `momentum`; "muon" (see `muon`).
        lr: at its highest.
        weight_decay: of weights; biases and batch norm are never decayed.
        bias_lr: factor on the learning rate of biases (2 in the paper, section 4.3).
        head_lr: factor on that of the heads: score layers and learned upsampling.
        stage_lr: factor on that of every further stage (see `stages`): 0.01 in the paper (section 4.2).
        schedule: "cosine" (to zero, after `warmup`) or "fixed".
        warmup: share of the run in which the rate rises linearly from 0.
        loss: terms with factors, such as "cross-entropy+0.5*lovasz" (see `losses`).
        reduction: of the loss: "mean" over valid pixels, "image": mean of the images' means, "sum" over pixels.
        focal_gamma, ohem_share: of the terms "focal" and "ohem".
        class_weights: "none", "sqrt", "median", "inverse", a factor a class, or one of these by task.
        task_weights: factors on the losses of several tasks; 1 where none is given.
        loss_share: p, 0.001..1: each coarse cell counts in the loss with this probability (see `sampling`).
        loss_stride: every so many rows and columns of pixels, from a start drawn anew each step, count in the loss:
            neighbours say much the same (see `sampling`).
        batch: images a step, over all processes.
        accumulate: parts that a step's images are cut into, one after the other: less memory, the same gradient.
        order: "epochs": every image once an epoch; "replacement": each image drawn from all (reference 5.5).
        augmentation: crop, scale, shift, flip, jitter.
        steps: length of the run where neither steps, epochs nor minutes are given.
        epochs: the same in passes over the images, where it is not 0.
        clip: largest norm of the gradient, 0 for none.
        fixed: only the score layers learn (FCN-32s-fixed, Long et al. 2015, table 2).
        skip_scales: stride -> factor on the features scored at it, for nets without such factors of their own:
            what all-at-once training needs (Shelhamer et al. 2016, section 4.3).
    """

    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.02
    bias_lr: float = 1.0
    head_lr: float = 1.0
    stage_lr: float = 0.1
    schedule: str = "cosine"
    warmup: float = 0.03
    loss: str = "cross-entropy"
    reduction: str = "mean"
    focal_gamma: float = 2.0
    ohem_share: float = 0.25
    class_weights: ClassWeights | Mapping[str, ClassWeights] = "sqrt"
    task_weights: Mapping[str, float] = field(default_factory=dict)
    loss_share: float = 1.0
    loss_stride: int = 1
    batch: int = 8
    accumulate: int = 1
    order: str = "epochs"
    augmentation: Augmentation = Augmentation()  # noqa: RUF009  (frozen)
    steps: int = 4000
    epochs: float = 0.0
    clip: float = 5.0
    fixed: bool = False
    skip_scales: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_kinds(Recipe, vars(self))
        for kind, name, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("loss reduction", self.reduction, REDUCTIONS),
            ("order", self.order, ORDERS),
        ):
            if name not in choices:
                raise unknown_name(kind, name, choices)
        for name, low, high in (
            ("lr", 0, 100), ("momentum", 0, 1), ("weight_decay", 0, 100), ("bias_lr", 0, 100), ("head_lr", 0, 1e4),
            ("stage_lr", 0, 100), ("warmup", 0, 1), ("loss_share", 0.001, 1), ("loss_stride", 1, 64),
            ("batch", 1, 65536), ("accumulate", 1, 65536), ("steps", 1, 10**9), ("epochs", 0, 10**9), ("clip", 0, 1e9),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"{name} {getattr(self, name)}; expected {low}..{high}")
        if self.accumulate > self.batch:
            raise OptionError(f"{self.accumulate} parts of {self.batch} images; expected at least an image a part")
        self.loss_options()
        rules = self.class_weights.values() if isinstance(self.class_weights, Mapping) else [self.class_weights]
        for rule in rules:
            if (isinstance(rule, str) or not isinstance(rule, Sequence)) and rule not in CLASS_WEIGHTS:
                raise unknown_name("class weights", rule, CLASS_WEIGHTS)
        for task, factor in self.task_weights.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < 1e6:
                raise OptionError(f"weight {factor!r} of the task {task!r}; expected a number of 0 to 1e6")

    def loss_options(self) -> LossOptions:
        """The terms of every task's loss."""
        return LossOptions(parse_terms(self.loss), self.reduction, self.focal_gamma, self.ohem_share)

    def weights_of(self, task: str) -> ClassWeights:
        """The rule or the factors for the classes of a task."""
        if isinstance(self.class_weights, Mapping):
            return self.class_weights.get(task, "none")
        return self.class_weights

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for run.yaml."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_json`, for files that anyone may have written; a missing key takes its default.

        Raises:
            OptionError: a key that is unknown, or a value of a wrong type or out of range.
        """
        augmentation = value.get("augmentation", {})
        if not isinstance(augmentation, Mapping):
            raise OptionError(f"augmentation {augmentation!r}; expected its options by name")
        plain = {key: _plain(v) for key, v in {**value, **augmentation}.items() if key != "augmentation"}
        return overridden(cls(), plain)


def _plain(value: Any) -> Any:
    """What JSON holds as lists are tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _by_stride(scales: Any) -> dict[int, float]:
    """Factors by stride; YAML and the command line have words for the strides."""
    try:
        return {int(stride): float(scale) for stride, scale in scales.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"skip_scales {scales!r}; expected a factor by stride, such as 16=0.01,8=0.0001") from error


NAMES = frozenset(f.name for kind in (Recipe, Augmentation) for f in fields(kind)) - {"augmentation"}
"""Of the single values of a recipe."""


def overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with single values replaced.

    Args:
        overrides: fields of `Recipe`, and of `Augmentation`.

    Raises:
        OptionError: an unknown name, or a value of a wrong type or out of range.
    """
    augmentation = {f.name for f in fields(Augmentation)}
    own = NAMES - augmentation
    for key in overrides:
        if key not in NAMES:
            raise unknown_name("training option", key, NAMES)
    values = dict(overrides)
    if "skip_scales" in values:
        values["skip_scales"] = _by_stride(values["skip_scales"])
    try:
        changed = replace(recipe.augmentation, **{k: v for k, v in values.items() if k in augmentation})
        return replace(recipe, augmentation=changed, **{k: v for k, v in values.items() if k in own})
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"a training option is of a wrong type ({error})") from error
