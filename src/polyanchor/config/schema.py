"""The configuration of a run. Every key has a default that works on the embedded digits.

Defaults of the baselines are the papers', or pytorch-metric-learning's where a paper gives none. This module imports no
torch: ``polyanchor config`` prints it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from polyanchor._errors import InputError, nearest
from polyanchor.datasets.spec import MAX_PIXELS
from polyanchor.types import Anchor, Pooling

Above0 = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, raw: Any) -> Any:
        """``run.k = 10`` is ``run.k = [10]``."""
        if not isinstance(raw, dict):
            return raw
        plain = {key: _plain(value) for key, value in raw.items()}
        return {key: [value] if cls._lists(key) and _single(value) else value for key, value in plain.items()}

    @classmethod
    def _lists(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and get_origin(field.annotation) is tuple and Ellipsis in get_args(field.annotation)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch, also in lists, as Python numbers: TOML holds no others."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 else value


def _single(value: Any) -> bool:
    return isinstance(value, (str, int, float))


class MultiProxyAnchor(Section):
    """The Multi Proxy Anchor family; ``anchor = "class"`` with one proxy per class is Proxy Anchor."""

    name: Literal["multi-proxy-anchor"] = "multi-proxy-anchor"
    """The family of this package; all other names are pytorch-metric-learning's."""
    anchor: Anchor = "class"
    """Member of the Multi Proxy Anchor family."""
    proxies_per_class: Count = 10
    """Local centres of a class, K."""
    alpha: Above0 | Literal["auto"] = "auto"
    """Sharpness; `auto`: 16 without a head, where the loss sees many columns, else the published 32."""
    delta: Finite = 0.1
    """Margin, in cosine units."""
    gamma: Above0 = 0.1
    """Width of the soft assignment to local centres, in cosine units."""
    pooling: Pooling = "softmax"
    """How a class's local centres become one similarity."""
    init: Literal["fixed", "kaiming"] = "fixed"
    """Length 1 for every proxy, or the published initialisation."""
    center_reg: AtLeast0 = 0.0
    """Weight of the penalty that merges local centres of a class, as SoftTriple's tau; 0: none."""
    proxy_sharding: Literal["none", "class"] = "none"
    """`class`: each device holds some of the classes' proxies, with their optimizer state; the loss is the same."""
    negative_sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, an approximation: share of the classes without an item that take part in a step; needs sharding."""

    @model_validator(mode="after")
    def _can_be_sampled(self) -> MultiProxyAnchor:
        if self.negative_sample_rate < 1 and self.proxy_sharding == "none":
            raise InputError(
                f"loss.negative_sample_rate = {self.negative_sample_rate} needs loss.proxy_sharding = 'class', "
                "on one device too"
            )
        if self.negative_sample_rate < 1 and self.center_reg > 0:
            raise InputError("loss.center_reg is a mean over all proxies; set loss.negative_sample_rate to 1 with it")
        return self


class ProxyNca(Section):
    """Proxy-NCA: Movshovitz-Attias et al., ICCV 2017."""

    name: Literal["proxy-nca"]
    scale: Above0 = 3.0
    """Factor of the squared distances; 1 in the paper, 3 in its successor ProxyNCA++."""


class NormSoftmax(Section):
    """NormSoftmax: Zhai and Wu, BMVC 2019."""

    name: Literal["normsoftmax"]
    temperature: Above0 = 0.05
    """Divisor of the cosines."""


class SoftTriple(Section):
    """SoftTriple with its regulariser: Qian et al., ICCV 2019; constants of the released code."""

    name: Literal["softtriple"]
    proxies_per_class: Count = 10
    """Centres of a class, K."""
    scale: Above0 = 20.0
    """Factor of the similarities, lambda of the paper."""
    gamma: Above0 = 0.1
    """Width of the soft assignment to centres, in cosine units."""
    margin: Finite = 0.01
    """Margin, delta of the paper, in cosine units."""
    center_reg: AtLeast0 = 0.2
    """Weight of the regulariser that merges centres of a class, tau of the paper."""


class ArcFace(Section):
    """ArcFace: Deng et al., CVPR 2019."""

    name: Literal["arcface"]
    margin: AtLeast0 = 28.6
    """Angular margin in degrees."""
    scale: Above0 = 64.0
    """Factor of the cosines."""


class SubCenterArcFace(Section):
    """Sub-center ArcFace: Deng et al., ECCV 2020."""

    name: Literal["subcenter-arcface"]
    proxies_per_class: Count = 3
    """Sub-centres of a class, K."""
    margin: AtLeast0 = 28.6
    """Angular margin in degrees."""
    scale: Above0 = 64.0
    """Factor of the cosines."""


class ProxyAnchor(Section):
    """Proxy Anchor as pytorch-metric-learning has it: Kim et al., CVPR 2020."""

    name: Literal["proxy-anchor"]
    alpha: Above0 = 32.0
    """Sharpness."""
    delta: Finite = 0.1
    """Margin, in cosine units."""


class MultiSimilarity(Section):
    """Multi-Similarity with its miner: Wang et al., CVPR 2019."""

    name: Literal["multi-similarity"]
    alpha: Above0 = 2.0
    """Sharpness of the positive pairs."""
    beta: Above0 = 50.0
    """Sharpness of the negative pairs."""
    base: Finite = 0.5
    """Similarity around which both are measured, in cosine units."""
    epsilon: AtLeast0 = 0.1
    """Margin of the miner, in cosine units."""


class SupCon(Section):
    """Supervised contrastive loss: Khosla et al., NeurIPS 2020."""

    name: Literal["supcon"]
    temperature: Above0 = 0.1
    """Divisor of the cosines."""


class Triplet(Section):
    """Triplet loss on semi-hard triplets: Schroff et al., CVPR 2015."""

    name: Literal["triplet"]
    margin: Above0 = 0.2
    """Margin of loss and miner, a distance of unit vectors."""


class Contrastive(Section):
    """Contrastive loss: Hadsell et al., CVPR 2006."""

    name: Literal["contrastive"]
    positive: AtLeast0 = 0.0
    """Distance of unit vectors below which a positive pair costs nothing."""
    negative: Above0 = 0.5
    """Distance of unit vectors above which a negative pair costs nothing."""


Baselines = (
    ProxyNca
    | NormSoftmax
    | SoftTriple
    | ArcFace
    | SubCenterArcFace
    | ProxyAnchor
    | MultiSimilarity
    | SupCon
    | Triplet
    | Contrastive
)
LOSSES: Mapping[str, type[Section]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in (MultiProxyAnchor, *get_args(Baselines))
}
"""Name -> its table of keys."""
Loss = Annotated[MultiProxyAnchor | Baselines, Field(discriminator="name")]


Part = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Data(Section):
    """Where the items come from and which classes do what."""

    source: str = "digits"
    """digits | cub200 | cars196 | sop | inshop | cifar100 | folder:DIR | csv:FILE | parquet:FILE | features:FILE."""
    root: str = "data"
    """Folder in which the named data sets lie."""
    test: str = ""
    """Another source to retrieve in; then all classes of `source` train."""
    drop_shared: bool = False
    """Leave out the classes of `test` whose names are also in `source`."""
    train_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the classes, in order, that train, where the source has no split of its own."""
    val_share: Share = 0.2
    """Share of the training classes held out to choose the best epoch; 0: none, the last epoch is taken."""
    labels: Literal["fine", "coarse"] = "fine"
    """Which labels of cifar100."""
    allow_partial: bool = False
    """Use an incomplete copy of a benchmark; the report says so."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """A file that does not decode stops the run, or is skipped and counted."""
    max_pixels: Annotated[int, Field(ge=1, le=10**12)] = MAX_PIXELS
    """Most pixels of an image, width times height; a larger one is as one that does not decode."""
    on_changed: Literal["stop", "accept"] = "stop"
    """Files that changed since a run was begun stop it from being resumed, or are accepted and noted."""
    workers: Annotated[int, Field(ge=0, le=1_024)] = 0
    """Processes that decode images beside the one that trains; 0 is best on a CPU, several on an accelerator."""


class Images(Section):
    """From a decoded image to the network's input."""

    size: Annotated[int, Field(ge=8, le=16_384)] = 224
    """Side of the square that the network sees, in pixels."""
    resize: Annotated[int, Field(ge=8, le=16_384)] = 256
    """Shorter side before the centre crop (test) or the random crop (training), in pixels."""
    aspect: Literal["keep", "squeeze"] = "keep"
    """Keep the proportions and cut off the longer side's ends, or squeeze the whole image into the square."""
    train: Literal["random-resized-crop", "random-crop"] = "random-resized-crop"
    """Cut of the training images; the first is the Proxy-Anchor protocol."""
    scale: tuple[Above0, Above0] = (0.08, 1.0)
    """Share of the area that a random resized crop takes, lowest and highest."""
    flip: bool = True
    """Mirror half of the training images; wrong for letters and digits."""

    @model_validator(mode="after")
    def _fits(self) -> Images:
        if self.resize < self.size:
            raise InputError(f"images.resize must be at least images.size = {self.size}, got {self.resize}")
        if not self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"images.scale must be (low, high) with low <= high <= 1, got {self.scale}")
        return self


class Batches(Section):
    """Which items meet in a step."""

    sampler: Literal["balanced", "shuffled"] = "balanced"
    """`classes_per_batch` x `samples_per_class` drawn anew each epoch, or a plain shuffle of the same batch size."""
    classes_per_batch: Count = 30
    """Classes in a batch; fewer if there are not as many."""
    samples_per_class: Count = 4
    """Items of each of them."""
    micro_batch_size: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Items that go through the network at once, where memory does not hold the batch; 0: all of it."""


class Model(Section):
    """The network."""

    backbone: str = "resnet18"
    """Any timm model, `bn_inception`, or `none` for features."""
    weights: str = "auto"
    """Empty: random; `hub`: timm's pretrained ones; a file of weights, or a run's folder; `auto`: `hub` for images."""
    weights_key: str = ""
    """Where in that file: a key of a checkpoint, a prefix of the names; empty: found, the averaged weights first."""
    pooling: Literal["auto", "own", "avg", "max", "avg+max"] = "auto"
    """Of the feature map; `own`: as the backbone was made; `auto`: avg+max where there is a feature map, else own."""
    neck: Literal["auto", "none", "center", "batchnorm", "layernorm"] = "auto"
    """Between features and head; `center`: less their training mean; `auto`: `center` for a pretrained backbone."""
    head: Literal["auto", "none", "linear", "pca"] = "auto"
    """Linear layer after the neck, at first random or a PCA; `auto`: `none` if pretrained, `pca` for vectors."""
    embedding_dim: Count = 128
    """Columns of the embedding: the head's, or without one those of a PCA after the training, if there are more."""
    freeze_bn: bool | Literal["auto"] = "auto"
    """Keep the running statistics of batch norms; `auto`: of a pretrained backbone."""
    sync_bn: bool = False
    """Batch norms see the batch of all devices, as one device would, rather than their own part; not on CPUs."""


class Optim(Section):
    """AdamW with three groups: backbone, head, proxies."""

    lr: Above0 = 3e-4
    """Learning rate of the backbone."""
    head_lr_mult: Above0 = 3.0
    """The head's learning rate, as a multiple of `lr`."""
    proxy_lr_mult: Above0 = 30.0
    """The proxies' learning rate, as a multiple of `lr`; per unit of the proxies' length."""
    weight_decay: AtLeast0 = 1e-4
    """Of backbone and head."""
    proxy_weight_decay: AtLeast0 = 0.0
    """Of the proxies: it shortens them, which speeds up their turning."""
    proxy_start: Literal["auto", "random", "items"] = "auto"
    """First directions of the proxies; `items`: of items of their class; `auto`: so if pretrained, or for vectors."""
    renormalize_proxies: bool = True
    """Give each proxy its length back after every step: as it grows, the same rate turns the proxy less and less."""
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "one-cycle"
    """Of all groups, after the warm-up."""
    step_epochs: Count = 10
    """Epochs between two drops of the `step` schedule."""
    step_factor: Above0 = 0.5
    """Factor of each drop."""
    warmup_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """First epochs in which the backbone does not train, at the full rates."""
    clip: Literal["none", "value", "norm"] = "value"
    """Clipping of the gradients."""
    clip_value: Above0 = 10.0
    """Bound of the clipping."""


class Run(Section):
    """How long, how exactly, on what."""

    epochs: Count = 20
    """Passes over the training classes, warm-up included."""
    before: bool = True
    """Measure the features before training too, as they are, centred, and reduced to the embedding's columns."""
    interpolate: Annotated[tuple[Part, ...], Field(min_length=1)] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Points from the start's weights (0) to the best epoch's (1): the best on validation classes is kept (WiSE-FT)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of initialisation, batches, augmentation and held-out classes."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    """As Lightning names them."""
    channels_last: bool = True
    """Memory format of images and convolutions."""
    threads: Annotated[int, Field(ge=0, le=1_024)] = 0
    """CPU threads of torch; 0: torch's own choice."""
    accelerator: str = "auto"
    """As Lightning names them: auto, cpu, gpu."""
    devices: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Devices of a node, each with a process of its own and its part of every batch; on CPUs, processes."""
    nodes: Count = 1
    """Machines; more than one are started with torchrun or srun."""
    checkpoint_minutes: AtLeast0 = 10.0
    """Minutes between two checkpoints within an epoch, beside the one after it; 0: none."""
    monitor: str = "map@r"
    """Measure on the validation classes whose best epoch is kept."""
    k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    """Cut-offs of recall, precision and nDCG."""
    loggers: tuple[Literal["csv", "tensorboard", "wandb", "mlflow"], ...] = ("csv", "tensorboard")
    """Where configuration, curves and measures go."""
    log_images: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Epochs from one set of pictures (held-out queries with their hits, proxies) to the next; 0: none."""


class Config(Section):
    """All of a run."""

    data: Data = Data()
    images: Images = Images()
    batches: Batches = Batches()
    model: Model = Model()
    loss: Loss = MultiProxyAnchor()
    optim: Optim = Optim()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _loss_has_a_name(cls, raw: Any) -> Any:
        """A table of keys without a name is the Multi Proxy Anchor family's."""
        if isinstance(raw, dict) and isinstance(raw.get("loss"), dict):
            return raw | {"loss": {"name": "multi-proxy-anchor"} | raw["loss"]}
        return raw

    @model_validator(mode="after")
    def _monitor_is_measured(self) -> Config:
        measures = [f"{name}@{k}" for name in ("recall", "precision", "ndcg") for k in self.run.k]
        measures += ["mrr", "r_precision", "map@r"]
        if self.run.monitor not in measures:
            near = nearest(self.run.monitor, measures)
            raise InputError(f"run.monitor must be one of {', '.join(measures)}, got {self.run.monitor!r}{near}")
        if self.optim.warmup_epochs >= self.run.epochs:
            raise InputError(
                f"optim.warmup_epochs must be below run.epochs = {self.run.epochs}, got {self.optim.warmup_epochs}"
            )
        return self

    @property
    def sharded(self) -> bool:
        """Whether devices hold different classes' proxies."""
        return isinstance(self.loss, MultiProxyAnchor) and self.loss.proxy_sharding == "class"

    @model_validator(mode="after")
    def _devices_fit(self) -> Config:
        if self.sharded and self.run.precision == "16-mixed":
            raise InputError(
                "run.precision = '16-mixed' scales gradients by what one device sees, and with "
                "loss.proxy_sharding = 'class' they see different ones; take bf16-mixed"
            )
        if self.model.sync_bn and (self.model.freeze_bn is True or self.batches.micro_batch_size):
            other = "batches.micro_batch_size" if self.batches.micro_batch_size else "model.freeze_bn"
            raise InputError(f"model.sync_bn and {other} exclude each other: statistics of the whole batch, or not")
        return self
