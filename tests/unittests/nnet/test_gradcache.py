"""GradCache's random numbers."""

import torch

from speechbrain_clsp.nnet.gradcache import GradCache


def test_the_second_pass_draws_the_first_ones_random_numbers():
    """If this fails, GradCache's gradients belong to other embeddings than its loss."""
    tower = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5))
    seen = []

    def encode(chunk):
        seen.append(tower(chunk))
        return (seen[-1],)

    torch.manual_seed(1)
    cache = GradCache(encode)
    (embeddings,) = cache.encode(torch.randn(7, 4).split(2))
    assert not seen[0].requires_grad
    embeddings.square().sum().backward()
    state = torch.get_rng_state()
    cache.backward()
    assert torch.equal(torch.cat(seen[:4]), embeddings) and len(seen) == 8
    assert all(torch.equal(first, second) for first, second in zip(seen[:4], seen[4:]))
    assert torch.equal(torch.get_rng_state(), state)
