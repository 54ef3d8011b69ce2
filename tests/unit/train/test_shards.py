"""Shards: what they compute and its gradients are those of the whole batch, whatever the number of threads."""

import threading

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from train.training.shards import LEAST, open_shards  # noqa: E402


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(4 * 36, 6))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_results_and_gradients_are_those_of_the_whole_batch(threads, count):
    network, batch = layers(), torch.rand(13, 3, 8, 8)
    leaf = batch.clone().requires_grad_()
    expected = network(leaf).chunk(2, dim=1)
    weights = list(network.parameters())
    wanted = torch.autograd.grad((expected[0] * expected[1].exp()).sum(), [leaf, *weights])
    threads(count)
    with open_shards() as shards:
        leaf = batch.clone().requires_grad_()
        first, second = shards.run(lambda shard: network(shard).chunk(2, dim=1), network, leaf)
        gradients = torch.autograd.grad((first * second.exp()).sum(), [leaf, *weights])
    torch.testing.assert_close((first, second), tuple(expected))
    torch.testing.assert_close(gradients, wanted)


def test_each_shard_has_a_thread_and_torch_has_one(threads):
    threads(2)
    seen = []
    barrier = threading.Barrier(2, timeout=30)

    def function(shard):
        barrier.wait()  # both run at once
        seen.append((len(shard), torch.get_num_threads()))
        return (shard,)

    with open_shards() as shards:
        shards.run(function, nn.Identity(), torch.zeros(2 * LEAST, 1))
        assert torch.get_num_threads() == 1
        with shards.suspended():
            assert torch.get_num_threads() == 2
    assert seen == [(LEAST, 1)] * 2
    assert torch.get_num_threads() == 2


def test_frozen_weights_and_images_get_no_gradients(threads):
    threads(2)
    network, batch = layers().requires_grad_(False), torch.rand(8, 3, 8, 8)
    with open_shards() as shards:
        (output,) = shards.run(lambda shard: (network(shard),), network, batch)
    assert not output.requires_grad


def test_an_error_in_a_shard_is_raised(threads):
    threads(2)

    def function(shard):
        raise ValueError("no")

    with open_shards() as shards, pytest.raises(ValueError, match="no"):
        shards.run(function, nn.Identity(), torch.zeros(8, 1))
