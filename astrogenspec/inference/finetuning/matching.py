r"""Matching: impute images and morphology of labelled galaxies from similar simulated galaxies.

Real galaxies with labels often have photometry only.  The image of a simulated galaxy with the same
redshift and fluxes is a draw of :math:`p(\mathrm{image} \mid \mathrm{fluxes}, z)` under the
simulator.  A labelled galaxy with this image imputed therefore supervises :math:`p(z \mid
\mathrm{image}, \mathrm{fluxes})`, provided that the image depends on the survey's real photometry
only through redshift and fluxes.  Other quantities are not matched, so they are not supervised (see
`astrogenspec.inference.finetuning.distillation`).  Radii and axis ratios are imputed in the same
way.

The match is by r magnitude, four adjacent colours and redshift, each scaled to its tolerance: one
of the eight nearest simulated galaxies within a distance of 4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ...inputs.features import SHAPE_FEATURES, ModelInputs
from ...quantities import quantity_index
from ...surveys import BANDS
from ..training import EncodedGalaxies
from .dataset import LabelledGalaxies

__all__ = ["MatchedGalaxies"]

_REDSHIFT = quantity_index("redshift")
#: Probability per step that an image, or radii and axis ratio, are imputed.
_IMPUTED_IMAGE, _IMPUTED_SHAPE = 0.25, 0.5
#: Number of matches of a galaxy, one of which is used in each step.
_N_MATCHES = 8
#: Tolerances of the r magnitude, four adjacent colours and the redshift, and maximum distance in
#: these units.
_TOLERANCES = (0.3, 0.15, 0.05, 0.03, 0.04, 0.004)
_MAX_DISTANCE = 4.0


class MatchedGalaxies:
    """Simulated galaxies that match each of n labelled galaxies.

    Parameters
    ----------
    galaxies : LabelledGalaxies
        Galaxies without images. Those whose redshift is not learnt, or with a missing band, have no
        matches.
    pool : EncodedGalaxies
        Simulated galaxies; those without image, radius and axis ratio are ignored.
    """

    def __init__(self, galaxies: LabelledGalaxies, pool: EncodedGalaxies) -> None:
        self.pool = pool
        candidates = _has_image_or_shape(pool.inputs).nonzero()[:, 0]
        points = _match_features(pool.flux[candidates], pool.redshift[candidates])
        wanted = _match_features(galaxies.sdss_flux, galaxies.theta[:, _REDSHIFT])
        learnt = galaxies.learnt[:, _REDSHIFT].numpy()
        complete = np.flatnonzero(np.isfinite(wanted).all(1) & learnt)
        matches = np.full((len(galaxies), _N_MATCHES), -1)
        if len(candidates) >= _N_MATCHES and len(complete):
            distance, index = cKDTree(points).query(wanted[complete], k=_N_MATCHES)
            found = candidates.numpy()[index]
            matches[complete] = np.where(distance <= _MAX_DISTANCE, found, -1)
        self._matches = torch.as_tensor(matches)

    def impute(
        self, inputs: ModelInputs, rows: Tensor, generator: torch.Generator
    ) -> tuple[ModelInputs, tuple[Tensor, Tensor], Tensor]:
        """Impute images, radii and axis ratios of some galaxies.

        Parameters
        ----------
        inputs : ModelInputs
            Inputs of the galaxies ``rows``, without images.
        rows : Tensor of int, shape (m,)
            Labelled galaxies.
        generator : `torch.Generator`
            Source of randomness.

        Returns
        -------
        inputs : ModelInputs
            With the bands and noise of imputed images, and with imputed radii and axis ratios where
            they were missing.
        latent : tuple of Tensor, shape (m, latent_size) each
            Mean and log variance of the latent of the imputed image; zero without one.
        imputed : Tensor of bool, shape (m,)
            Galaxies with anything imputed.
        """
        chosen = torch.randint(_N_MATCHES, rows.shape, generator=generator)
        match = self._matches[rows, chosen]
        image, shape = (
            (match >= 0)
            & (torch.rand(rows.shape, generator=generator, dtype=torch.float32) < probability)
            for probability in (_IMPUTED_IMAGE, _IMPUTED_SHAPE)
        )
        match = match.clamp_min(0)
        simulated = self.pool.inputs
        image &= simulated.has_image[match]

        def of_match(values: Tensor) -> Tensor:
            return values[match] * image[:, None]

        changes = {
            "image_bands": of_match(simulated.image_bands),
            "image_noise": of_match(simulated.image_noise),
        }
        if simulated.morphology is None:
            shape = torch.zeros_like(image)
        else:
            matched = simulated.morphology[match]
            own = torch.zeros_like(matched)
            if inputs.morphology is not None:
                own = inputs.morphology.clone()
            known, available = (m[:, SHAPE_FEATURES].any(1) for m in (own, matched))
            shape &= available & ~known & ~image
            own[:, SHAPE_FEATURES] += matched[:, SHAPE_FEATURES] * shape[:, None]
            changes["morphology"] = own
        latent = of_match(self.pool.mu), of_match(self.pool.logvar)
        return replace(inputs, **changes), latent, image | shape


def _has_image_or_shape(inputs: ModelInputs) -> Tensor:
    if inputs.morphology is None:
        return inputs.has_image
    return inputs.has_image | inputs.morphology[:, SHAPE_FEATURES].any(1)


def _match_features(flux: Tensor, redshift: Tensor) -> np.ndarray:
    """Return r magnitude, colours and redshift in units of their tolerances, shape (n, 6)."""
    magnitude = -2.5 * torch.where(flux > 0, flux, torch.nan).log10()
    red = magnitude[:, BANDS.index("r")]
    columns = [red, *(magnitude[:, :-1] - magnitude[:, 1:]).T, redshift]
    return (
        (torch.stack(columns, 1) / torch.tensor(_TOLERANCES, dtype=torch.float32)).double().numpy()
    )
