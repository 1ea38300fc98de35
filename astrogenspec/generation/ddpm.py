r"""Denoising diffusion with discrete steps (DDPM; Ho, Jain & Abbeel 2020, arXiv:2006.11239).

Data :math:`x_0` of unit variance become noise in T steps,
:math:`x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon`, with the cosine schedule
of Nichol & Dhariwal (2021, arXiv:2102.09672),

.. math:: \bar\alpha_t = \frac{f(t)}{f(0)}, \qquad
          f(t) = \cos^2\left(\frac{t / T + s}{1 + s}\,\frac{\pi}{2}\right), \qquad s = 0.008 .

A network estimates :math:`\epsilon`; its loss is the mean squared error.  Ancestral sampling takes
all T steps; DDIM (Song et al. 2021, arXiv:2010.02502) some of them, without noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["CosineDiffusion"]

_OFFSET = 0.008
_MAX_BETA = 0.999
#: Largest |x_0| of an estimate.
_MAX_DATA = 8.0

#: ``network(x, t)`` estimates the noise; x has shape (n, m), t (n,), between 0 and 1.
NoiseNetwork = Callable[[Tensor, Tensor], Tensor]


class CosineDiffusion(nn.Module):
    """Noise schedule, loss and sampling.

    Parameters
    ----------
    n_steps : int
        Number of steps T.
    """

    def __init__(self, n_steps: int = 250) -> None:
        super().__init__()
        self.n_steps = n_steps
        angle = (torch.arange(n_steps + 1, dtype=torch.float64) / n_steps + _OFFSET) / (1 + _OFFSET)
        f = torch.cos(0.5 * math.pi * angle).square()
        beta = (1 - f[1:] / f[:-1]).clamp(max=_MAX_BETA)
        signal = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
        #: :math:`\bar\alpha_t` for t = 0 ... T.
        self.register_buffer("signal", signal.float(), persistent=False)

    def loss(
        self, network: NoiseNetwork, data: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the mean squared error of the noise at random steps, shape (n,).

        Parameters
        ----------
        network : callable
            Estimates the noise.
        data : Tensor, shape (n, m)
            Data of unit variance.
        generator : `torch.Generator`, optional
            Source of randomness.
        """
        source = generator.device if generator is not None else data.device
        step = torch.randint(1, self.n_steps + 1, (len(data),), generator=generator, device=source)
        noise = torch.randn(data.shape, generator=generator, device=source, dtype=torch.float32)
        step, noise = step.to(data.device), noise.to(data)
        signal = self.signal[step][:, None]
        noisy = signal.sqrt() * data + (1 - signal).sqrt() * noise
        return (network(noisy, step / self.n_steps) - noise).square().mean(1)

    def sample(
        self, network: NoiseNetwork, draw: Callable[[], Tensor], n_ddim: int | None = None
    ) -> Tensor:
        """Draw data.

        Parameters
        ----------
        network : callable
            Estimates the noise.
        draw : callable
            Returns standard normal noise of shape (n, m): at the beginning, and at every step of
            ancestral sampling but the last.
        n_ddim : int, optional
            Number of steps of DDIM; ancestral sampling by default.

        Returns
        -------
        Tensor, shape (n, m)
        """
        x = draw()
        count = self.n_steps if n_ddim is None else min(n_ddim, self.n_steps)
        steps = torch.linspace(self.n_steps, 0, count + 1).round().long().tolist()
        for now, after in zip(steps[:-1], steps[1:], strict=True):
            signal, later = self.signal[now], self.signal[after]
            noise = network(x, x.new_full((len(x),), now / self.n_steps))
            clean = ((x - (1 - signal).sqrt() * noise) / signal.sqrt()).clamp(-_MAX_DATA, _MAX_DATA)
            if n_ddim is not None:
                noise = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
                x = later.sqrt() * clean + (1 - later).sqrt() * noise
                continue
            alpha = signal / later
            # Mean and variance of the posterior of the earlier state given both.
            x = (later.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - later) * x) / (1 - signal)
            if after:
                x = x + ((1 - alpha) * (1 - later) / (1 - signal)).sqrt() * draw()
        return x
