"""Images of simulated galaxies."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from structure_cases import drawn, population

from astrogenspec.simulate.apertures import fibre_fractions
from astrogenspec.simulate.images import ImageRenderer, add_noise
from astrogenspec.simulate.neighbours import draw_neighbours, render_neighbours
from astrogenspec.simulate.priors import load_priors
from astrogenspec.simulate.psf import draw_point_spread
from astrogenspec.simulate.structure import Structure
from astrogenspec.surveys import SDSS, get_survey

PRIORS = load_priors("structure")
GAUSSIAN = PRIORS.replace(
    psf_outer_weight=0.0, psf_wing_weight=0.0, seeing_scatter=0.0, seeing_scatter_band=0.0
)
SHARP = replace(SDSS, psf_fwhm=dict.fromkeys(SDSS.bands, 0.9 * u.arcsec))
SCALE = 0.396


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(radius_disk, radius_bulge, n=4, **attributes):
    return Structure.smooth(
        torch.full((n,), radius_disk), torch.full((n,), radius_bulge), **attributes
    )


def component(which, n=4):
    """Flux of 100 nmgy in one of bulge, old disk, young disk."""
    flux = torch.zeros(n, 5, 3)
    flux[..., which] = 100.0
    return flux


def growth(image, centre, radii):
    """Light of an image within circles (arcsec) around a centre (pixels)."""
    y, x = np.indices(image.shape)
    distance = np.hypot(y - centre[0], x - centre[1]) * SCALE
    return np.array([image[distance < r].sum() for r in radii])


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * y).sum() / image.sum(), (image * x).sum() / image.sum()


FEATURES = {
    "arm_strength": 0.5,
    "arm_pitch": 0.35,
    "clumpiness": 0.5,
    "bar_light": 0.15,
    "bar_axis_ratio": 0.4,
    "ring_strength": 1.0,
    "disk_break": 2.5,
    "disk_break_slope": 1.0,
    "tail_light": 0.1,
}


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("attributes", [{}, {"axis_ratio_disk": 0.3}, FEATURES])
def test_flux_is_conserved(which, attributes):
    images = ImageRenderer(size=96).render(
        smooth(1.5, 1.0, sersic_bulge=1.0, **attributes),
        component(which),
        seeded(),
        neighbours=False,
    )
    total = images.flux.sum((2, 3))
    # the wing of the point-spread function leaves the cutout
    torch.testing.assert_close(total, torch.full((4, 5), 100.0), rtol=0.02, atol=0)


def test_shapes_types_and_contents():
    n = 12
    structure = drawn(population(n))
    images = ImageRenderer().render(structure, 100 * torch.rand(n, 5, 3), seeded())
    assert images.flux.shape == (n, 5, 64, 64) and images.flux.dtype == torch.float32
    assert images.psf_fwhm.shape == (n, 5) and images.neighbour_flux.shape == (n, 5)
    assert images.fibre_fraction.shape == (n, 3)
    assert len(images) == n
    for values in (images.flux, images.psf_fwhm, images.fibre_fraction, images.neighbour_flux):
        assert torch.isfinite(values).all()
    assert images.flux.min() > -0.05 * images.flux.max()
    assert ((images.fibre_fraction >= 0) & (images.fibre_fraction <= 1)).all()


def test_no_galaxies():
    images = ImageRenderer().render(drawn(population(4))[:0], torch.zeros(0, 5, 3), seeded())
    assert images.flux.shape == (0, 5, 64, 64)


def test_determinism():
    structure, flux = drawn(population(20)), 100 * torch.rand(20, 5, 3)
    first = ImageRenderer().render(structure, flux, seeded(3))
    again = ImageRenderer().render(structure, flux, seeded(3))
    other = ImageRenderer().render(structure, flux, seeded(4))
    assert torch.equal(first.flux, again.flux)
    assert torch.equal(first.neighbour_flux, again.neighbour_flux)
    assert not torch.equal(first.flux, other.flux)


@pytest.mark.parametrize("radius", [3.0, 5.0])
@pytest.mark.parametrize("which", [0, 1])
def test_half_light_radius(radius, which):
    renderer = ImageRenderer(SHARP, size=192, priors=GAUSSIAN)
    structure = smooth(radius, radius, 1, sersic_bulge=2.0)
    image = renderer.render(structure, component(which, 1), seeded(), neighbours=False).flux
    image = image[0, 2].numpy()
    radii = np.linspace(0.3, 12, 60)
    light = growth(image, centroid(image), radii) / 100
    assert np.interp(0.5, light, radii) == pytest.approx(radius, rel=0.03)


def test_painted_disk_without_features_is_the_smooth_one():
    """A disk painted cell by cell agrees with its closed form, on every field."""
    for radius, axis_ratio in ((1.2, 0.3), (3.0, 0.2), (3.0, 0.8), (6.0, 0.5)):
        attributes = {"axis_ratio_disk": axis_ratio, "position_angle": 0.6}
        plain = smooth(radius, 1.0, **attributes)
        painted = smooth(radius, 1.0, clumpiness=1e-6, **attributes)
        renderer = ImageRenderer(priors=PRIORS.replace(neighbour_density=0.0))
        for which in (1, 2):
            expected, found = (
                renderer.render(s, component(which), seeded(), neighbours=False).flux
                for s in (plain, painted)
            )
            difference = (found - expected).abs().amax((2, 3)) / expected.amax((2, 3))
            assert difference.max() < 0.02, (radius, axis_ratio, which)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5708])
def test_painted_disk_larger_than_the_grid_loses_the_light_outside(angle):
    """The part of a large disk inside its cutout does not depend on the size of the cutout."""
    structure = smooth(9.0, 1.0, 2, axis_ratio_disk=0.4, position_angle=angle, clumpiness=1e-6)
    small, large = (
        ImageRenderer(SDSS, size=size, priors=GAUSSIAN)
        .render(structure, component(1, 2), seeded(), neighbours=False)
        .flux
        for size in (64, 192)
    )
    total = large[..., 64:-64, 64:-64].sum((2, 3))
    assert (total < 95).all()
    torch.testing.assert_close(small.sum((2, 3)), total, rtol=0.01, atol=0)


def test_point_source_has_the_width_of_the_seeing():
    agn = torch.full((6, 5), 50.0)
    images = ImageRenderer(size=96, priors=GAUSSIAN.replace(seeing_scatter=0.145)).render(
        smooth(2.0, 1.0, 6), torch.zeros(6, 5, 3), seeded(), agn_flux=agn, neighbours=False
    )
    torch.testing.assert_close(images.flux.sum((2, 3)), agn, rtol=0.001, atol=0)
    assert images.psf_fwhm[:, 2].max() > 1.1 * images.psf_fwhm[:, 2].min()
    for image, fwhm in zip(images.flux[:, 2].numpy(), images.psf_fwhm[:, 2].tolist(), strict=True):
        y, _ = np.indices(image.shape)
        variance = (image * (y - centroid(image)[0]) ** 2).sum() / image.sum() - 1 / 12
        assert SCALE * np.sqrt(variance) * 2.3548 == pytest.approx(fwhm, rel=0.01)


def test_seeing_of_the_sum_of_gaussians_is_the_width_at_half_maximum():
    psf = draw_point_spread(50, SDSS, PRIORS, seeded(), "cpu")
    sigma, weight = psf.sigma.double(), psf.weight.double()

    def brightness(radius):
        return (weight / sigma**2 * torch.exp(-0.5 * (radius[..., None] / sigma) ** 2)).sum(-1)

    half = brightness(psf.fwhm.double() / 2) / brightness(torch.zeros(50, 5).double())
    torch.testing.assert_close(half, torch.full((50, 5), 0.5).double(), rtol=1e-4, atol=0)
    median = torch.tensor([SDSS.psf_fwhm[b].to_value(u.arcsec) for b in SDSS.bands])
    torch.testing.assert_close(psf.fwhm.median(0).values, median.float(), rtol=0.1, atol=0)


def test_fibre_fraction_of_images_matches_the_closed_form():
    structure = smooth(2.5, 1.0, 3, axis_ratio_disk=0.5, axis_ratio_bulge=0.8, sersic_bulge=3.0)
    renderer = ImageRenderer()
    images = renderer.render(structure, component(1, 3), seeded(), neighbours=False)
    expected = fibre_fractions(structure, PRIORS.fibre_seeing)
    torch.testing.assert_close(images.fibre_fraction, expected, rtol=0, atol=0.005)
    images = ImageRenderer(priors=GAUSSIAN).render(
        structure, component(1, 3), seeded(), neighbours=False
    )
    image = torch.nn.functional.interpolate(images.flux[:1, 2:3], scale_factor=8)[0, 0] / 64
    y, x = np.indices(image.shape)
    cy, cx = centroid(image.numpy())
    inside = np.hypot(y - cy, x - cx) * SCALE / 8 < 1.5
    seen = fibre_fractions(structure[:1], SDSS.psf_fwhm["r"].to_value(u.arcsec))[0, 1]
    assert image.numpy()[inside].sum() / 100 == pytest.approx(float(seen), abs=0.015)


def test_features_change_the_fibre_fraction_little():
    structure = smooth(2.5, 1.0, 8, **FEATURES | {"tail_light": 0.0, "bar_light": 0.0})
    images = ImageRenderer().render(structure, component(1, 8), seeded())
    expected = fibre_fractions(structure, PRIORS.fibre_seeing)
    assert (images.fibre_fraction - expected).abs().mean() < 0.03
    assert (images.fibre_fraction - expected)[:, 0].abs().max() < 0.001


def test_noise_has_the_stated_variance():
    flux = torch.zeros(400, 5, 16, 16)
    flux[..., :8] = 0.5
    quiet = PRIORS.replace(background_scatter=0.0)
    noisy, ivar = add_noise(flux, SDSS, seeded(), priors=quiet)
    assert noisy.shape == ivar.shape == flux.shape and noisy.dtype == torch.float32
    pull = (noisy - flux) * ivar.sqrt()
    assert pull.mean().abs() < 0.005
    torch.testing.assert_close(pull.std((0, 2, 3)), torch.ones(5), rtol=0.01, atol=0)
    assert (ivar[..., :8] < ivar[..., 8:]).all()
    sky = 1 / ivar[..., 15, 15].sqrt().median(0).values
    nominal = torch.tensor([SDSS.pixel_sigma[b] for b in SDSS.bands])
    torch.testing.assert_close(sky, nominal, rtol=0.15, atol=0)


def test_background_is_constant_within_an_image():
    flux = torch.zeros(200, 5, 32, 32)
    loud = PRIORS.replace(background_scatter=1.0)
    noisy, ivar = add_noise(flux, SDSS, seeded(), priors=loud)
    offset = noisy.mean((2, 3)) * ivar[..., 0, 0].sqrt()
    assert offset.std() == pytest.approx(1.0, rel=0.1)


def test_noise_is_reproducible():
    flux = torch.rand(2, 5, 8, 8)
    first, again, other = (add_noise(flux, SDSS, seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_neighbours_have_the_density_of_the_prior():
    width = 64 * SCALE
    neighbours = draw_neighbours(20000, width, PRIORS, seeded(), "cpu")
    inside = (neighbours.x.abs() < width / 2) & (neighbours.y.abs() < width / 2)
    count = (inside & (neighbours.flux[..., 2] > 0)).sum() / 20000
    assert count == pytest.approx(PRIORS.neighbour_density * (width / 60) ** 2, rel=0.05)
    magnitude = 22.5 - 2.5 * torch.log10(neighbours.flux[..., 2][neighbours.flux[..., 2] > 0])
    brighter = (magnitude < 21).sum() / len(magnitude)
    assert brighter == pytest.approx(10 ** (-1.5 * PRIORS.neighbour_slope), rel=0.1)


def test_neighbours_keep_their_flux():
    neighbours = draw_neighbours(50, 10.0, PRIORS, seeded(), "cpu")
    psf = draw_point_spread(50, SDSS, PRIORS, seeded(), "cpu")
    images = render_neighbours(neighbours, psf, 192, SCALE)
    expected = neighbours.flux.sum(1)
    torch.testing.assert_close(images.sum((2, 3)), expected, rtol=0.01, atol=1e-4)


def test_companion_is_added_and_blends_if_close():
    near, far = (
        smooth(2.0, 1.0, 1, companion_ratio=0.5, companion_distance=d, companion_axis_ratio=1.0)
        for d in (0.3, 6.0)
    )
    none = PRIORS.replace(neighbour_density=0.0)
    renderer = ImageRenderer(size=96, priors=none)
    flux = component(1, 1)
    for structure in (near, far):
        images = renderer.render(structure, flux, seeded())
        torch.testing.assert_close(
            images.flux.sum((2, 3)), torch.full((1, 5), 150.0), rtol=0.03, atol=0
        )
    close = renderer.render(near, flux, seeded()).neighbour_flux
    distant = renderer.render(far, flux, seeded()).neighbour_flux
    assert (close > 45).all() and (distant < 1).all()
    alone = renderer.render(far, flux, seeded(), neighbours=False)
    assert alone.flux.sum() == pytest.approx(500, rel=0.03)
    assert (alone.neighbour_flux == 0).all()


def test_dust_lane_makes_the_middle_plane_fainter():
    attributes = {"axis_ratio_disk": 0.3, "clumpiness": 1e-6}
    clear = smooth(6.0, 1.0, 1, **attributes)
    dusty = smooth(6.0, 1.0, 1, dust_lane=3.0, **attributes)
    clear, dusty = (
        ImageRenderer(SHARP).render(s, component(1, 1), seeded(), neighbours=False).flux
        for s in (clear, dusty)
    )
    row = int(clear[0, 2].sum(1).argmax())
    assert dusty[0, 2, row].sum() < 0.95 * clear[0, 2, row].sum()


@pytest.mark.parametrize(
    ("flux", "agn", "message"),
    [
        (torch.zeros(4, 5, 2), None, "component_flux has shape"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 3), "agn_flux has shape"),
    ],
)
def test_invalid_shapes_are_refused(flux, agn, message):
    with pytest.raises(ValueError, match=message):
        ImageRenderer().render(smooth(2.0, 1.0), flux, seeded(), agn_flux=agn)


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="even number"):
        ImageRenderer(size=63)


def without(survey, **changes):
    """A survey with unknown numbers in its second band."""
    survey = get_survey(survey)
    band = survey.bands[1]
    new = {key: getattr(survey, key) | {band: value} for key, value in changes.items()}
    return replace(survey, name="mine", **new)


@pytest.mark.parametrize("name", ["lsst", "legacy-dr10", "2mass", "euclid"])
def test_images_of_any_survey_keep_the_flux(name):
    survey = get_survey(name)
    scale = survey.pixel_scale.to_value(u.arcsec)
    flux = torch.rand(3, len(survey.bands), 3, generator=seeded()) * 100
    renderer = ImageRenderer(name, priors=PRIORS)
    images = renderer.render(smooth(4 * scale, 3 * scale, 3), flux, seeded(), neighbours=False)
    assert images.flux.shape == (3, len(survey.bands), 64, 64)
    torch.testing.assert_close(images.flux.sum((2, 3)), flux.sum(2), rtol=0.05, atol=0)
    assert torch.isnan(images.fibre_fraction).all()
    median = images.psf_fwhm[:, 0] / survey.psf_fwhm[survey.bands[0]].to_value(u.arcsec)
    assert (median - 1).abs().max() < 0.5
    if name == "euclid":
        assert torch.equal(median, torch.ones(3))


def test_galaxies_larger_than_a_small_cutout_lose_the_light_outside():
    """A disk of 4 arcsec does not return from the other side of a cutout of 13 arcsec."""
    wide, narrow = (
        ImageRenderer("lsst", size=size, priors=GAUSSIAN.replace(seeing_scatter=0.0)).render(
            smooth(4.0, 1.0), component(1)[:, :1].expand(-1, 6, -1), seeded(), neighbours=False
        )
        for size in (192, 64)
    )
    middle = wide.flux[..., 64:128, 64:128]
    torch.testing.assert_close(narrow.flux, middle, rtol=0.02, atol=2e-3)
    assert narrow.flux.sum((2, 3)).max() < 85


def test_noise_of_surveys_follows_from_their_depth():
    quiet = PRIORS.replace(background_scatter=0.0, calibration_scatter=0.0)
    for name in ("lsst", "legacy-dr10", "2mass"):
        survey = get_survey(name)
        n = len(survey.bands)
        flux = torch.zeros(300, n, 16, 16)
        flux[..., :8] = 2.0
        noisy, ivar = add_noise(flux, name, seeded(), priors=quiet)
        pull = (noisy - flux) * ivar.sqrt()
        torch.testing.assert_close(pull.std((0, 2, 3)), torch.ones(n), rtol=0.02, atol=0)
        sky = 1 / ivar[..., 15].sqrt().median(0).values.median(1).values
        nominal = torch.tensor([survey.pixel_sigma[b] for b in survey.bands])
        torch.testing.assert_close(sky, nominal, rtol=0.03, atol=0)
        source = (1 / ivar[..., 0] - 1 / ivar[..., 15]).mean((0, 2))
        if name == "lsst":
            expected = 2.0 / torch.tensor([survey.electrons_per_nmgy[b] for b in survey.bands])
            torch.testing.assert_close(source, expected, rtol=0.01, atol=0)
        elif name == "legacy-dr10":
            # Two exposures of about 120 s; 10,000 electrons per nmgy.
            assert 2.0 / source[0] == pytest.approx(1e4, rel=0.3)
        else:
            # Unknown in the near infrared, and negligible against the sky.
            assert source.abs().max() < 1e-4


def test_numbers_that_are_missing_are_named():
    flux = torch.zeros(1, 4, 16, 16)
    with pytest.raises(ValueError, match="no pixel scale, or no seeing in some band; add"):
        ImageRenderer(without("legacy-dr10", psf_fwhm=np.nan * u.arcsec))
    with pytest.raises(ValueError, match="noise of the band r of the survey mine is unknown"):
        add_noise(flux, without("legacy-dr10", pixel_sigma=np.nan, depth=np.nan), seeded())
    with pytest.raises(ValueError, match=r"flux has shape \(1, 4, 16, 16\); \(n, 6, ny, nx\)"):
        add_noise(flux, "lsst", seeded())


def test_deep_surveys_have_more_neighbours_of_the_same_colours():
    many = {
        name: draw_neighbours(4000, 20.0, PRIORS, seeded(), "cpu", get_survey(name))
        for name in ("sdss", "lsst")
    }
    count = {name: (found.flux[..., 2] > 0).float().sum() for name, found in many.items()}
    assert count["lsst"] / count["sdss"] == pytest.approx(10 ** (0.35 * 2.5), rel=0.05)
    r = many["lsst"].flux[..., 2]
    colour = 2.5 * torch.log10(r / many["lsst"].flux[..., 1])[r > 0]
    # Filters of LSST are those of SDSS within 100 A.
    assert colour.min() > 0.25 and colour.max() < 1.45
