"""A small chain of flows, shared by several tests."""

import torch

from astrogenspec.inference.flows import FlowChain

LOWER, UPPER = (0.0, 5.0, -4.0), (0.5, 13.0, 6.0)


def make_chain(seed=0, spread=0.3, context_size=6):
    """Make an untrained chain with strongly varying factors."""
    torch.manual_seed(seed)
    chain = FlowChain(context_size, lower=LOWER, upper=UPPER, n_bins=(6, 4, 4), hidden=16)
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    chain.location.copy_(torch.tensor([-1.0, 0.5, 0.2]))
    chain.scale.copy_(torch.tensor([0.7, 0.6, 0.4]))
    return chain
