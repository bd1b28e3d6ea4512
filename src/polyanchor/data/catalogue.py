"""The data sources a user can name, and what there is to know of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceInfo:
    """What a user wants to know of a data source before using it.

    Attributes:
        name: as in :func:`polyanchor.data.sources.open_source`; capital letters stand for a path.
        what: one line.
        classes: classes to train on and to test on, in words.
        images: images to train on and to test on, in words.
        citation: the paper to cite; empty for the user's own data.
        where: how to get it.
        licence: what is known of its terms; empty if nothing is.
    """

    name: str
    what: str
    classes: str
    images: str
    citation: str = ""
    where: str = ""
    licence: str = ""


KNOWN: tuple[SourceInfo, ...] = (
    SourceInfo(
        "digits",
        "handwritten digits, 8 x 8, for trying things out",
        "5 / 5",
        "901 / 896",
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        "comes with scikit-learn",
        "CC BY 4.0 (UCI)",
    ),
    SourceInfo(
        "cub200",
        "birds, fine-grained (CUB-200-2011)",
        "100 / 100",
        "5,864 / 5,924",
        "Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011",
        "Caltech data repository: the archive CUB_200_2011",
        "research and education, non-commercial",
    ),
    SourceInfo(
        "cars196",
        "cars, fine-grained (Stanford Cars)",
        "98 / 98",
        "8,054 / 8,131",
        "Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR, 2013",
        "the official site is gone; copies in torchvision's layout are on data set hubs",
        "research, non-commercial",
    ),
    SourceInfo(
        "sop",
        "products from online sales (Stanford Online Products)",
        "11,318 / 11,316",
        "59,551 / 60,502",
        "Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016",
        "Stanford CVGL: the archive Stanford_Online_Products",
    ),
    SourceInfo(
        "inshop",
        "garments, with queries and a gallery (DeepFashion In-Shop)",
        "3,997 / 3,985",
        "25,882 / 14,218 queries in 12,612",
        "Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval, CVPR 2016",
        "MMLAB, on request",
        "research, non-commercial, by agreement",
    ),
    SourceInfo(
        "cifar100",
        "small pictures with fine and coarse labels; a closed set",
        "100 / the same",
        "50,000 / 10,000",
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "Hugging Face hub, as train and test Parquet files",
    ),
    SourceInfo("folder:DIR", "images in one folder per class, nested if you like", "yours", "yours"),
    SourceInfo("csv:FILE", "a table with the columns path,label[,split]", "yours", "yours"),
    SourceInfo("parquet:FILE-or-DIR", "images inside Parquet files, as Hugging Face stores them", "yours", "yours"),
    SourceInfo("features:FILE", "vectors computed beforehand (.safetensors or .npz)", "yours", "yours"),
)
