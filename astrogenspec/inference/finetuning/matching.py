r"""Images and sizes for labelled galaxies that have none, lent by simulated galaxies that look like them.

What fluxes say of the redshift, many real galaxies tell; what an image says beyond, simulated ones alone. The image of a simulated
galaxy of the same redshift and fluxes is a draw of :math:`p(\mathrm{image} \mid \mathrm{fluxes}, z)`: lent to the real galaxy,
it teaches the redshift given both, as if the real galaxy had been photographed. Other quantities it must not teach: the lender
was not chosen by them. So it is with radii and axis ratios.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ...inputs.features import SHAPE_FEATURES, ModelInputs
from ...quantities import quantity_index
from ..training import EncodedGalaxies
from .dataset import LabelledGalaxies

__all__ = ["MatchedGalaxies"]

#: Probability that a galaxy with lenders gets an image in a step, and that it gets what the lender has of radii and axis ratio.
_LENT_IMAGE, _LENT_SHAPE = 0.25, 0.5
#: MatchedGalaxies of a galaxy, of which each step takes one.
_LENDERS = 8
#: What counts as alike: magnitude r, four adjacent colours, and redshift, each in these units, and the largest distance.
_ALIKE = (0.3, 0.15, 0.05, 0.03, 0.04, 0.004)
_FARTHEST = 4.0


class MatchedGalaxies:
    """Simulated galaxies that look like each of n labelled ones.

    Parameters
    ----------
    galaxies : LabelledGalaxies
        Those whose redshift is not to be learnt, or without one of the bands, are lent nothing.
    pool : EncodedGalaxies
        Who may lend: those with an image, or with a radius or axis ratio.
    """

    def __init__(self, galaxies: LabelledGalaxies, pool: EncodedGalaxies) -> None:
        self.pool = pool
        lenders = _may_lend(pool.inputs).nonzero()[:, 0]
        points = _features(pool.flux[lenders], pool.redshift[lenders])
        wanted = _features(galaxies.flux, galaxies.theta[:, quantity_index("redshift")])
        complete = np.flatnonzero(np.isfinite(wanted).all(1) & galaxies.learnt[:, 0].numpy())
        nearest = np.full((len(galaxies), _LENDERS), -1)
        if len(lenders) >= _LENDERS and len(complete):
            distance, index = cKDTree(points).query(wanted[complete], k=_LENDERS)
            found = lenders.numpy()[index]
            nearest[complete] = np.where(distance <= _FARTHEST, found, -1)
        self._nearest = torch.as_tensor(nearest)

    def lend(
        self, inputs: ModelInputs, rows: Tensor, generator: torch.Generator
    ) -> tuple[ModelInputs, tuple[Tensor, Tensor], Tensor]:
        """Give images, and sizes and shapes, to some galaxies.

        Parameters
        ----------
        inputs : ModelInputs
            Of the galaxies ``rows``, without images.
        rows : Tensor of int, shape (n,)
        generator : `torch.Generator`

        Returns
        -------
        inputs : ModelInputs
            As if they had the images, and radii and axis ratios where they had none.
        latent : tuple of Tensor, shape (n, latent_size) each
            What the encoder says of the images; zero without one.
        borrowed : Tensor of bool, shape (n,)
            Who was given anything.
        """
        chosen = torch.randint(_LENDERS, rows.shape, generator=generator)
        lender = self._nearest[rows, chosen]
        image, shape = (
            (lender >= 0) & (torch.rand(rows.shape, generator=generator) < chance)
            for chance in (_LENT_IMAGE, _LENT_SHAPE)
        )
        lender = lender.clamp_min(0)
        theirs = self.pool.inputs
        image &= theirs.has_image[lender]

        def of_lender(values: Tensor) -> Tensor:
            return values[lender] * image[:, None]

        changes = {
            "image_bands": of_lender(theirs.image_bands),
            "image_noise": of_lender(theirs.image_noise),
        }
        if theirs.morphology is None:
            shape = torch.zeros_like(image)
        else:
            lent = theirs.morphology[lender]
            own = torch.zeros_like(lent) if inputs.morphology is None else inputs.morphology.clone()
            known, offered = own[:, SHAPE_FEATURES].any(1), lent[:, SHAPE_FEATURES].any(1)
            shape &= offered & ~known & ~image
            own[:, SHAPE_FEATURES] += lent[:, SHAPE_FEATURES] * shape[:, None]
            changes["morphology"] = own
        latent = of_lender(self.pool.mu), of_lender(self.pool.logvar)
        return replace(inputs, **changes), latent, image | shape


def _may_lend(inputs: ModelInputs) -> Tensor:
    """Who has an image, or anything of a shape, shape (n,), bool."""
    if inputs.morphology is None:
        return inputs.has_image
    return inputs.has_image | inputs.morphology[:, SHAPE_FEATURES].any(1)


def _features(flux: Tensor, redshift: Tensor) -> np.ndarray:
    """Place galaxies such that those near one another are alike, shape (n, 6); NaN where something is missing."""
    magnitude = -2.5 * torch.where(flux > 0, flux, torch.nan).log10()
    columns = [magnitude[:, 2], *(magnitude[:, :-1] - magnitude[:, 1:]).T, redshift]
    return (torch.stack(columns, 1) / torch.tensor(_ALIKE)).double().numpy()
