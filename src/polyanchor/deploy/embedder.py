"""A trained model with its preprocessing: images or vectors in, unit vectors out."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from torch import Tensor, nn

from polyanchor import _check
from polyanchor._defaults import own_defaults
from polyanchor._errors import InputError, InputTypeError
from polyanchor._io import save_tensors, user_path
from polyanchor.config.builders import require_fitting
from polyanchor.datasets.items import Items
from polyanchor.datasets.loading import Given, MixedImages, collected
from polyanchor.datasets.transforms import ImageTransform
from polyanchor.deploy.description import Description, Preprocessing, origin_of, read_description
from polyanchor.deploy.model_card import model_card
from polyanchor.models.embedding import EmbeddingModel, restored_model
from polyanchor.models.weights import at_once, read_state
from polyanchor.runs.embed import embed
from polyanchor.runs.folder import RunFolder, write_json
from polyanchor.types import Embeddings

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Embedder(nn.Module, ModelHubMixin):
    """A trained model with its preprocessing and description.

    Usually obtained from :meth:`from_run` or :meth:`from_pretrained`. A module in evaluation mode: ``.to("cuda")``
    moves it, ``embedder(pixels)`` computes with gradients if they are enabled.

    Args:
        model: inputs -> unit vectors.
        description: of the model, with preprocessing if it takes images.

    Raises:
        ValueError: the description does not fit the model.

    Example:
        >>> model = EmbeddingModel(None, features=6, embedding_dim=2)
        >>> embedder = Embedder(model, Description(backbone="none", embedding_dim=2))
        >>> torch.allclose(embedder.embed(torch.ones(3, 6)).norm(dim=1), torch.ones(3))
        True
    """

    def __init__(self, model: EmbeddingModel, description: Description) -> None:
        super().__init__()
        if model.embedding_dim != description.embedding_dim:
            raise InputError(
                f"the model gives {model.embedding_dim} dimensions, its description says {description.embedding_dim}"
            )
        if (model.backbone is None) != (description.preprocessing is None):
            raise InputError("a model with a backbone needs preprocessing in its description, one without has none")
        if model.neck_name != description.neck:
            raise InputError(f"the model has the neck {model.neck_name!r}, its description says {description.neck!r}")
        if model.pooling not in ("auto", description.pooling):
            raise InputError(f"the model pools by {model.pooling!r}, its description says {description.pooling!r}")
        self.model = model
        self.description = description
        self.eval()

    @property
    def embedding_dim(self) -> int:
        """D, columns of the embeddings."""
        return self.description.embedding_dim

    @property
    def takes_images(self) -> bool:
        """Whether the inputs are images rather than vectors."""
        return self.description.preprocessing is not None

    @property
    def transform(self) -> ImageTransform | None:
        """RGB image -> ``(3, size, size)`` float32; None if the inputs are vectors."""
        preprocessing = self.description.preprocessing
        return None if preprocessing is None else preprocessing.transform()

    @property
    @own_defaults()
    def fingerprint(self) -> str:
        """SHA-256 of weights, architecture and preprocessing, computed at each call, as weights can change."""
        digest = hashlib.sha256()
        digest.update(
            self.description.model_dump_json(include={"backbone", "pooling", "neck", "preprocessing"}).encode()
        )
        for name, tensor in sorted(self.model.state_dict().items()):
            values = tensor.float() if tensor.is_floating_point() else tensor  # as in a saved embedder
            digest.update(f"{name} {tuple(values.shape)}".encode())
            digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, 3, size, size)`` normalised pixels, or ``(B, F)`` vectors -> ``(B, D)`` vectors of length 1."""
        embeddings: Tensor = self.model(inputs)
        return embeddings

    @own_defaults()
    def embed(self, inputs: Iterable[Given] | Given | Tensor, *, batch_size: int = 64) -> Tensor:
        """Embed images or vectors.

        Args:
            inputs: one image or any iterable of images: paths, PIL images, bytes of image files and uint8 arrays
                ``(H, W)`` or ``(H, W, C)`` in any mixture, or an ``(N, H, W, C)`` array; for a model without backbone
                an ``(N, F)`` floating tensor or array.
            batch_size: inputs per step.

        Returns:
            ``(N, D)`` float32, rows of length 1, on the CPU, without gradients.

        Raises:
            BadImageError: an image cannot be read; the message names it.
            TypeError: vectors for a model of images, or images for one of vectors.
            ValueError: vectors of another width, or ``batch_size`` below 1.
        """
        batch_size = _check.count("batch_size", batch_size)
        inputs = collected(inputs)
        items = None if isinstance(inputs, list) and not inputs else self._items(inputs)
        if not items:  # an empty list may be of either kind
            return torch.empty(0, self.embedding_dim)
        return self.embed_items(items, batch_size=batch_size)[0].vectors

    @own_defaults()
    def embed_items(
        self,
        items: Items,
        *,
        batch_size: int = 64,
        workers: int = 0,
        on_bad: Literal["stop", "skip"] = "stop",
        description: str = "embedding",
    ) -> tuple[Embeddings, tuple[str, ...]]:
        """Embed the items of a data source; see :func:`polyanchor.runs.embed.embed`."""
        if items.is_vectors == self.takes_images:
            raise InputTypeError(
                f"the model takes {self._kind}, got items that are {'vectors' * items.is_vectors or 'images'}"
            )
        require_fitting(self.model, "items", items, of="the model")
        return embed(
            self,
            items,
            self.transform,
            batch_size=batch_size,
            workers=workers,
            on_bad=on_bad,
            channels_last=self.description.channels_last,
            description=description,
        )

    @property
    def _kind(self) -> str:
        return "images" if self.takes_images else "vectors"

    def _items(self, inputs: list[Given] | Tensor) -> Items:
        if isinstance(inputs, Tensor):
            if self.takes_images:
                raise InputTypeError(
                    "the model takes images (paths, PIL images, bytes, uint8 arrays), got floating "
                    f"{tuple(inputs.shape)}; call the embedder itself with pixels resized and normalised already"
                )
            width = self.model.features
            if inputs.ndim != 2 or inputs.shape[1] != width:
                raise InputError(f"the model takes vectors of shape (N, {width}), got {tuple(inputs.shape)}")
            _check.finite("inputs", inputs)
            return Items(inputs, torch.zeros(len(inputs), dtype=torch.int64))
        if not self.takes_images:
            kind = type(inputs[0]).__name__
            raise InputTypeError(f"the model takes vectors, an (N, F) floating tensor or array, got {kind}")
        return Items(MixedImages(inputs), torch.zeros(len(inputs), dtype=torch.int64))

    @classmethod
    @own_defaults()
    def from_run(cls, run: str | Path) -> Embedder:
        """Load a finished run's model with the preprocessing of its test images.

        Args:
            run: the run's folder.

        Raises:
            FileNotFoundError: no run, or one that is not finished.
            ValueError: a file of the run is damaged.
        """
        folder = RunFolder(user_path(run))
        config, model = folder.read_config(), folder.load_model()
        images, statistics = config.images, model.statistics
        description = Description(
            backbone=config.model.backbone,
            pooling=config.model.pooling,
            neck=model.neck_name,
            embedding_dim=config.model.embedding_dim,
            preprocessing=None
            if statistics is None
            else Preprocessing(
                size=images.size,
                resize=images.resize,
                aspect=images.aspect,
                mean=statistics.mean,
                std=statistics.std,
            ),
            channels_last=config.run.channels_last,
            origin=origin_of(folder, config),
        )
        return cls(model, description)

    @classmethod
    @own_defaults()
    def from_pretrained(  # type: ignore[override]  # the mixin's options for the model are in the folder
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> Embedder:
        """Load an embedder written by :meth:`save_pretrained`. Reads JSON and safetensors, and runs no code from them.

        Args:
            pretrained_model_name_or_path: a folder, or the name of a repository on the Hugging Face hub.
            force_download: download again.
            token: access to a private repository; see ``huggingface_hub.snapshot_download`` for this and the rest.
            cache_dir: folder of downloads.
            local_files_only: download nothing.
            revision: branch, tag or commit.

        Raises:
            FileNotFoundError: neither a folder nor a repository of that name; or a file is missing.
            ValueError: a file is damaged, or the two files are not of one model.
        """
        folder = user_path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _fetched(
                str(pretrained_model_name_or_path),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} is not a saved embedder: it has no {name}")
        description, fingerprint = read_description(folder / CONFIG)
        state = read_state(folder / WEIGHTS)
        try:
            model = restored_model(
                description.backbone,
                {name.removeprefix("model."): tensor for name, tensor in state.items()},
                pooling=description.pooling,
                neck=description.neck,
                channels_last=description.channels_last,
                image_size=None if description.preprocessing is None else description.preprocessing.size,
            )
            embedder = cls(model, description)
        except ValueError as error:
            raise InputError(f"{folder}: {error}") from error
        if embedder.fingerprint != fingerprint:
            raise InputError(
                f"{folder}: {WEIGHTS} and {CONFIG} are not of one model, or one was changed (the fingerprint is "
                "another); copy or save it again"
            )
        return embedder

    @own_defaults()
    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and a model card, ``README.md``.

        Args:
            save_directory: new or empty folder; it is written whole or not at all.
            options: of ``huggingface_hub.ModelHubMixin.save_pretrained``.

        Returns:
            With ``push_to_hub=True`` the URL of the commit.

        Raises:
            FileExistsError: the folder holds something.
        """
        folder = user_path(save_directory)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is not an empty folder; take another, or delete it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as writing:
            whole = Path(writing) / folder.name
            url = super().save_pretrained(whole, **options)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        save_tensors(self.state_dict(), save_directory / WEIGHTS, {"format": "pt"})
        write_json(
            save_directory / CONFIG, {**self.description.model_dump(mode="json"), "fingerprint": self.fingerprint}
        )

    def generate_model_card(self, **more: Any) -> ModelCard:
        """The model card, with the measures of the run."""
        return model_card(self.description, self.fingerprint, **more)


def _fetched(name: str, **options: Any) -> Path:
    try:
        with at_once():
            return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS], **options))
    except (OSError, ValueError) as error:  # no network, no such repository, or not a name of one
        raise FileNotFoundError(
            f"{name} is not a folder here, and the Hugging Face hub gave no model of that name: "
            f"{str(error).splitlines()[0]}"
        ) from error


def open_embedder(place: str | Path) -> Embedder:
    """Load an embedder from the folder of a finished run or of :meth:`Embedder.save_pretrained`.

    Raises:
        FileNotFoundError: it is neither, or the run is not finished.
        ValueError: a file in it is damaged.
    """
    folder = user_path(place)
    if (folder / CONFIG).is_file():
        return Embedder.from_pretrained(folder)
    if RunFolder(folder).config.is_file():
        return Embedder.from_run(folder)
    reason = (
        f"it has no {RunFolder(folder).config.name} and no {CONFIG}" if folder.is_dir() else "there is no such folder"
    )
    raise FileNotFoundError(f"{folder} is neither a run's folder nor a saved embedder: {reason}")
