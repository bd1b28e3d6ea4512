"""Draws docs/figures/loss_gradients.svg: the gradients of the family beside those of a soft-max, by autograd.

Run: python docs/figures/loss_gradients.py
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from polyanchor.functional import anchor_loss

ALONG = torch.linspace(-0.4, 1, 141, dtype=torch.float64)
BESIDE = {-0.1: "#8cbbe0", 0.2: "#3b78b0", 0.5: "#12375c"}
ALPHA, ITEMS, CLASSES = 32.0, 2, 3


def of_first(table: list[list[Tensor]], labels: list[int], cell: int, anchor: str) -> list[float]:
    """dL/dS of the first item to class ``cell``, in units of alpha, where the table varies along ALONG."""
    values = []
    for step in range(len(ALONG)):
        rows = [[float(entry[step]) if entry.ndim else float(entry) for entry in row] for row in table]
        s = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        if anchor == "soft-max":
            loss = F.cross_entropy(ALPHA * s, torch.tensor(labels))
        else:
            loss = anchor_loss(s, torch.tensor(labels), anchor=anchor, alpha=ALPHA)
        values.append(float(torch.autograd.grad(loss, s)[0][0, cell]) / ALPHA)
    return values


def main() -> None:
    """Two items of class 0 among three classes; the first item's own or foreign similarity varies."""
    mpl.rcParams.update(
        {"svg.hashsalt": "polyanchor", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.2), sharex=True)
    far = torch.tensor(-0.3, dtype=torch.float64)
    columns = {
        "class": ('anchor="class"', "the other item of its class at", "the other item at"),
        "data": ('anchor="data"', "the other item of its class at", "another foreign class at"),
        "soft-max": ("soft-max (NormSoftmax)", "a foreign class at", "the own class at"),
    }
    for column, (anchor, (title, pull_beside, push_beside)) in enumerate(columns.items()):
        for beside, colour in BESIDE.items():
            b = torch.tensor(beside, dtype=torch.float64)
            if anchor == "soft-max":
                pulled, pushed = [[ALONG, b, far], [far, far, far]], [[b, ALONG, far], [far, far, far]]
            elif anchor == "class":
                pulled, pushed = [[ALONG, far, far], [b, far, far]], [[far, ALONG, far], [far, b, far]]
            else:
                pulled, pushed = [[ALONG, far, far], [b, far, far]], [[far, ALONG, b], [far, far, far]]
            for row, (table, cell, sign) in enumerate(((pulled, 0, -1), (pushed, 1, 1))):
                values = [sign * value for value in of_first(table, [0, 0], cell, anchor)]
                axes[row, column].plot(ALONG, values, color=colour, label=f"{beside:+.1f}")
        axes[0, column].set_title(title)
        for row, beside_what in enumerate((pull_beside, push_beside)):
            place = "upper right" if row == 0 else "upper left"
            axes[row, column].legend(
                title=beside_what,
                frameon=False,
                fontsize=7.5,
                title_fontsize=7.5,
                loc=place,
                alignment="left",
            )
            axes[row, column].set_ylim(-0.03, 1.05 if row == 0 else 0.75)
        axes[1, column].set_xlabel("similarity")
    axes[0, 0].set_ylabel("pull on the item / alpha\nat its similarity to its own class")
    axes[1, 0].set_ylabel("push on the item / alpha\nat its similarity to a foreign class")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
