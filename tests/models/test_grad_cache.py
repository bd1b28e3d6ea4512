"""Pieces against the whole batch: every gradient, for losses that couple the items; what memory holds meanwhile."""

import copy
import weakref

import pytest
import torch
from torch import nn

from polyanchor import MultiProxyAnchorLoss, embed_in_micro_batches
from polyanchor.config.schema import LOSSES
from polyanchor.losses.pml import BASELINES, pml_loss

ITEMS, CLASSES, DIM = 11, 4, 6
LABELS = torch.arange(ITEMS) % CLASSES
ANCHORS = ("class", "data", "mixed")


def network(norm="frozen", dropout=0.0):
    """Images to embeddings, float64, with a batch norm whose statistics are not those of a fresh one."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(80, DIM)
    ).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model[1].train(norm == "training")
    return model


def loss_called(name):
    torch.manual_seed(2)
    if name in ANCHORS:
        return MultiProxyAnchorLoss(CLASSES, DIM, proxies_per_class=2, anchor=name).double()
    return pml_loss(name, CLASSES, DIM, **LOSSES[name](name=name).model_dump(exclude={"name"})).double()


def images():
    return torch.randn(ITEMS, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def gradients(model, loss, piece):
    value = loss(embed_in_micro_batches(model, images(), piece), LABELS)
    value.backward()
    parameters = [*model.parameters(), *loss.parameters()]
    return [value.detach(), *(parameter.grad for parameter in parameters)]


@pytest.mark.parametrize("name", [*ANCHORS, *BASELINES])
def test_loss_and_every_gradient_are_those_of_the_whole_batch(subtests, name):
    whole = gradients(network(), loss_called(name), 0)
    assert whole[0] > 0
    for piece in (1, 4, 10):
        with subtests.test(piece=piece):
            for got, want in zip(gradients(network(), loss_called(name), piece), whole, strict=True):
                assert (got - want).norm() <= 1e-10 * want.norm()


def test_gradients_of_smaller_batches_added_up_are_others():
    """What gradient accumulation usually means; if it were the same, none of this would be needed."""
    model, loss = network(), loss_called("class")
    for part, labels in zip(images().split(4), LABELS.split(4), strict=True):
        (loss(model(part), labels) * len(part) / ITEMS).backward()
    whole = network()
    loss_called("class")(whole(images()), LABELS).backward()
    assert (model[0].weight.grad - whole[0].weight.grad).norm() > 0.05 * whole[0].weight.grad.norm()


def test_no_more_than_a_piece_at_once_and_the_last_only_once():
    model, seen = network(), []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    gradients(model, loss_called("class"), 4)
    assert seen[:3] == [4, 4, 3]  # forward
    assert seen[3:] == [4, 4]  # and back, the second piece before the first


class Watched(torch.autograd.Function):
    """The identity, into memory that says when it is given back."""

    alive, most = 0, 0

    @staticmethod
    def forward(ctx, inputs):
        memory = inputs.numpy().copy()
        Watched.alive += len(memory)
        Watched.most = max(Watched.most, Watched.alive)
        weakref.finalize(memory, Watched.gone, len(memory))
        return torch.from_numpy(memory)

    @staticmethod
    def backward(ctx, gradient):
        return gradient

    @staticmethod
    def gone(rows):
        Watched.alive -= rows


class Watching(nn.Module):
    def forward(self, inputs):
        return Watched.apply(inputs).square()  # whose gradient needs the input


def test_activations_of_one_piece_are_alive_at_a_time():
    model = nn.Sequential(nn.Linear(5, 5), Watching(), nn.Linear(5, DIM))
    inputs = torch.randn(64, 5)
    for piece, most in ((0, 64), (8, 8), (10, 10)):
        Watched.most = 0
        embed_in_micro_batches(model, inputs, piece).square().sum().backward()
        assert Watched.alive == 0
        assert Watched.most == most


def test_dropout_draws_the_same_numbers_on_the_way_back():
    """A step of plain autograd whose masks are those that the pieces drew in the forward pass."""
    model, masks = network(dropout=0.5), []
    model[3].register_forward_hook(lambda module, inputs, output: masks.append((output != 0) | (inputs[0] == 0)))
    torch.manual_seed(5)
    embed_in_micro_batches(model, images(), 4).square().sum().backward()
    after = torch.get_rng_state()
    mask = torch.cat(masks[:3])

    plain = network()
    features = plain[:3](images()) * mask / 0.5
    plain[4:](features).square().sum().backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-10, atol=0)
    torch.manual_seed(5)
    with torch.no_grad():
        embed_in_micro_batches(model, images(), 4)
    assert torch.equal(after, torch.get_rng_state())  # recomputing leaves no trace in the generator


def test_batch_norm_in_training_normalises_each_piece_and_counts_it_once():
    """Not the whole batch: that is what the documentation warns of."""
    model, plain = network("training"), network("training")
    loss = loss_called("class")
    loss(embed_in_micro_batches(model, images(), 4), LABELS).backward()
    embeddings = torch.cat([plain(part) for part in images().tensor_split(3)])  # all in memory: autograd's own answer
    loss_called("class")(embeddings, LABELS).backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        assert (got.grad - want.grad).norm() <= 1e-10 * want.grad.norm()
    for got, want in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(got, want)
    assert int(model[1].num_batches_tracked) == 3
    whole = network("training")
    loss_called("class")(whole(images()), LABELS).backward()
    assert (model[0].weight.grad - whole[0].weight.grad).norm() > 1e-3 * whole[0].weight.grad.norm()


def test_state_that_enters_the_output_is_what_it_was():
    """Spectral norm in training moves its vector in every forward pass, and the output depends on it."""

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(108, DIM))).double()

    one, plain = model(), model()
    embed_in_micro_batches(one, images(), 4).pow(3).sum().backward()
    torch.cat([plain(part) for part in images().tensor_split(3)]).pow(3).sum().backward()
    for got, want in zip(one.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-10, atol=1e-12)


def test_autocast_is_the_same_on_the_way_back():
    model = network().float()
    plain = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pieces = embed_in_micro_batches(model, images().float(), 4).float().square().sum()
        whole = torch.cat([plain(part) for part in images().float().tensor_split(3)]).float().square().sum()
    pieces.backward()
    whole.backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=0.02, atol=1e-3)


def test_nothing_to_divide():
    model = network()
    assert torch.equal(embed_in_micro_batches(model, images(), 11), model(images()))
    with pytest.raises(ValueError, match="micro_batch_size must be an integer of 0 or more, got -1"):
        embed_in_micro_batches(model, images(), -1)
