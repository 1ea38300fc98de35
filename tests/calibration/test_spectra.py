"""Recalibration of the ranges of generated spectra."""

import json

import astropy.units as u
import numpy as np
import pytest
from generation_cases import make_network
from spectrum_estimator_cases import photometry, posterior, predict

from astrogenspec import Posterior, coerce_photometry
from astrogenspec.calibration import SpectrumCorrection, SpectrumRecalibration
from astrogenspec.calibration.line_factors import LineFactors
from astrogenspec.calibration.spectra import CASES
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.observations import observe
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.quantities import LINE_FLUX_UNIT
from astrogenspec.results.spectra import SpectrumDraws
from astrogenspec.surveys import SDSS
from astrogenspec.synthetic import response_weights
from astrogenspec.wavelengths import GENERATED, LINES, MEASURED_LINES

UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")
WAVELENGTH = GENERATED.wavelength[::20]


def simulated(n=200, k=41, too_narrow=2.0, seed=0, **options):
    """Make spectra with errors of 10% (15% in the blue), and draws with too small errors."""
    rng = np.random.default_rng(seed)
    blue = np.exp(-((WAVELENGTH - 3800) / 1500))

    def logs(*shape):
        return 0.1 * rng.normal(size=(*shape, 1)) + 0.05 * rng.normal(size=(*shape, 1)) * blue

    centre = 2 + logs(n) * too_narrow
    flux = np.exp(centre[:, None] + logs(n, k))
    truth = np.exp(2 + 0 * centre)
    draws = SpectrumDraws(
        flux * UNIT, WAVELENGTH * u.AA, np.full((n, k), 0.1), meta={"aperture": "total"}, **options
    )
    return draws, truth * UNIT


def coverage(draws, truth):
    low, high = np.quantile(draws, [0.16, 0.84], axis=1, method="weibull")
    return np.mean((truth > low) & (truth < high))


@pytest.mark.parametrize("too_narrow", [2.0, 1.0, 0.6])
def test_ranges_are_calibrated_on_other_galaxies(too_narrow):
    learnt = SpectrumRecalibration.fit(*simulated(1000, too_narrow=too_narrow))
    draws, truth = simulated(1000, too_narrow=too_narrow, seed=1)
    factors = learnt.factors(["photometry"] * 1000, "total", np.full(1000, 0.1), WAVELENGTH)
    assert factors.shape == (1000, len(WAVELENGTH))
    assert factors.min() > 0.8 * too_narrow and factors.max() < 1.2 * max(too_narrow, 1)
    logs = np.log(draws.flux.value)
    middle = np.median(logs, axis=1, keepdims=True)
    wider = np.exp(middle + factors[:, None] * (logs - middle))
    before, after = (coverage(f, truth.value) for f in (draws.flux.value, wider))
    assert abs(after - 0.68) < 0.05
    if too_narrow != 1:
        assert abs(before - 0.68) > 0.1


def test_factors_from_few_galaxies_are_shrunk_and_lines_are_excluded():
    many, few = (SpectrumRecalibration.fit(*simulated(n)) for n in (400, 60))
    one = ["photometry"], "total", [0.1], [5000.0]
    assert 1.2 < few.factors(*one)[0, 0] < many.factors(*one)[0, 0] < 2.2
    draws, truth = simulated(100)
    near = np.any([np.abs(WAVELENGTH / 1.1 - line) < 14 for line in LINES.values()], axis=0)
    spoilt = np.where(near, 100 * truth, truth)
    same = SpectrumRecalibration.fit(draws, spoilt)
    assert same.to_dict() == SpectrumRecalibration.fit(draws, truth).to_dict()


def test_modes_and_apertures_without_factors_are_not_changed():
    learnt = SpectrumRecalibration.fit(*simulated(60))
    assert (learnt.factors(["image", "both", ""], "total", [0.1] * 3, WAVELENGTH) == 1).all()
    assert (learnt.factors(["photometry"], "fibre", [0.1], WAVELENGTH) == 1).all()


def test_factors_round_trip_through_the_card_and_can_be_combined():
    draws, truth = simulated(60)
    learnt = SpectrumRecalibration.fit(draws, truth) | SpectrumRecalibration.fit(
        draws, 1.5 * truth, mode="both"
    )
    again = SpectrumRecalibration.from_dict(json.loads(json.dumps(learnt.to_dict())))
    modes = ["photometry", "both", "image"]
    values = [r.factors(modes, "total", [0.1] * 3, WAVELENGTH) for r in (learnt, again)]
    assert np.allclose(*values, atol=1e-4)
    assert "photometry, total" in repr(learnt) and "both, total" in repr(learnt)
    with pytest.raises(TypeError):
        learnt | 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 49}, "at least 39 draws of 50"),
        ({"k": 38}, "at least 39 draws of 50"),
        ({"truth": np.ones(3) * UNIT}, "truth has shape"),
        ({"truth": np.full((60, len(WAVELENGTH)), np.nan) * UNIT}, "too few true fluxes"),
        ({"mode": "radio"}, "mode is 'radio'"),
    ],
)
def test_invalid_input_is_refused(change, message):
    draws, truth = simulated(change.get("n", 60), change.get("k", 41))
    with pytest.raises(ValueError, match=message):
        SpectrumRecalibration.fit(
            draws, change.get("truth", truth), mode=change.get("mode", "photometry")
        )


def test_invalid_units_entries_and_factors_are_refused():
    draws, truth = simulated(60)
    with pytest.raises(u.UnitConversionError):
        SpectrumRecalibration.fit(draws, truth.value * u.m)
    with pytest.raises(ValueError, match="case is 'slit'"):
        SpectrumRecalibration({("both", "slit"): SpectrumCorrection()})
    with pytest.raises(ValueError, match="mode is 'ra'"):
        SpectrumRecalibration({("ra", "total"): SpectrumCorrection()})
    with pytest.raises(ValueError, match="the entry recalibration.factors is missing"):
        SpectrumRecalibration.from_dict({"layout": 1})
    with pytest.raises(ValueError, match="layout 4"):
        SpectrumRecalibration.from_dict({"layout": 4})


def test_the_estimator_widens_continua_and_preserves_medians_and_lines():
    network = make_network()
    learnt = SpectrumRecalibration(
        {("photometry", "fibre"): SpectrumCorrection([1.5] * 7)}
    ).to_dict()
    estimator = SpectrumEstimator(network, card={"name": "t", "recalibration": learnt})
    properties = posterior()
    at_one = np.full(properties["redshift"].draws.shape, 0.1) * u.one
    arguments = (
        None,
        photometry(),
        Posterior(dict(properties.draws) | {"redshift": at_one}, names=properties.names),
    )
    wide = predict(estimator, *arguments)
    plain = predict(estimator, *arguments, calibrated=False)
    old = predict(SpectrumEstimator(network, card={"name": "t"}), *arguments)
    assert np.array_equal(plain.flux.value, old.flux.value)
    assert wide.meta["calibrated"] and not plain.meta["calibrated"]
    rest = GENERATED.wavelength / (1 + np.median(wide.redshift, axis=1)[:, None])
    quiet = np.all([np.abs(rest - line) > 80 for line in LINES.values()], axis=0)
    for row in range(3):
        logs = [np.log(d.flux.value[row][:, quiet[row]]) for d in (wide, plain)]
        middle = [np.median(values, axis=0) for values in logs]
        assert np.allclose(*middle, atol=1e-3)
        spreads = [values - m for values, m in zip(logs, middle, strict=True)]
        assert np.allclose(spreads[0], 1.5 * spreads[1], atol=2e-3)
    assert np.array_equal(wide.redshift, plain.redshift)
    moved = wide.photometric_residual.value - plain.photometric_residual.value
    weights = response_weights(GENERATED.wavelength * u.AA, SDSS, ("r",))
    light = [(d.flux.value @ weights)[:, :, 0] for d in (wide, plain)]
    assert np.allclose(moved[:, :, 2], -2.5 * np.log10(light[0] / light[1]), atol=1e-3)
    assert np.abs(moved[:, :, 2]).max() > 0.01
    single = [
        predict(estimator, *arguments, n_draws=1, calibrated=c).flux.value for c in (True, False)
    ]
    assert np.allclose(*single, rtol=1e-5)


def test_input_modes_of_observations():
    flux = np.full((4, 5), 10.0)
    flux[1] = np.nan
    photometric = PhotometryBatch(flux, 0.1 * flux, np.zeros(4), np.array([0, 0, 1, 0], bool))
    image = np.ones((4, 5, 64, 64), np.float32)
    ivar = np.ones_like(image)
    ivar[3] = 0
    seen = observe(CutoutBatch(image, ivar), photometric, on_error="flag", measure=False)
    assert seen.modes.tolist() == ["both", "image", "image", "photometry"]
    flux[:] = np.nan
    nothing = observe(
        None, PhotometryBatch(flux, flux, np.zeros(4), np.zeros(4, bool)), on_error="flag"
    )
    assert nothing.modes.tolist() == [""] * 4


@pytest.mark.parametrize("too_narrow", [2.0, 0.6])
def test_factors_are_learned_from_noisy_spectra(too_narrow):
    draws, truth = simulated(300, too_narrow=too_narrow)
    rng = np.random.default_rng(3)
    noise = 0.1 * truth
    observed = truth + noise * rng.normal(size=truth.shape)
    learnt = SpectrumRecalibration.fit(draws, observed, noise=noise)
    factors = learnt.factors(["photometry"], "total", [0.1], WAVELENGTH)[0]
    assert np.abs(np.log(factors / too_narrow)).max() < 0.3
    with pytest.raises(ValueError, match="noise has shape"):
        SpectrumRecalibration.fit(draws, truth, noise=noise[0])


@pytest.mark.parametrize("heavy", [0.0, 0.5])
def test_tails_are_learned_from_noisy_spectra(heavy):
    n, k = 600, 60
    rng = np.random.default_rng(1)
    logs = 0.1 * rng.normal(size=(n, k, 1))
    true = np.exp(2 + 0.1 * np.exp(heavy * rng.normal(size=(n, 1))) * rng.normal(size=(n, 1)))
    shape = (n, len(WAVELENGTH))
    draws = SpectrumDraws(
        np.exp(2 + np.broadcast_to(logs, (n, k, shape[1]))) * UNIT,
        WAVELENGTH * u.AA,
        np.full((n, k), 0.1),
        meta={"aperture": "total"},
    )
    noise = np.full(shape, 0.1)
    learnt = SpectrumRecalibration.fit(
        draws, (true + noise * rng.normal(size=shape)) * UNIT, noise=noise * UNIT
    )
    scatter = learnt.scale_scatter(["photometry", "both"], "total")
    assert scatter[1] == 0 and abs(scatter[0] - heavy) < 0.15
    factors = learnt.factors(["photometry"], "total", [0.1], WAVELENGTH)
    assert np.abs(np.log(factors)).max() < 0.2
    again = SpectrumRecalibration.from_dict(json.loads(json.dumps(learnt.to_dict())))
    assert np.allclose(again.scale_scatter(["photometry"], "total"), scatter[:1], atol=1e-4)


def with_lines(n, k, seed, unknown, weak=0.0):
    """Make draws with lines, and observed spectra with more scatter and weaker weak lines (dex).

    Halpha and [N II] are weak in every second galaxy, the other lines in all of them.
    """
    rng = np.random.default_rng(seed)
    wavelength = GENERATED.wavelength
    rest = wavelength / 1.1
    share = {"halpha": 0.6, "nii6548": 0.1, "nii6584": 0.3, "oiii5007": 0.8, "hbeta": 0.3}
    share |= {"sii6717": 0.3, "sii6731": 0.3}
    profile = sum(
        share[name] * np.exp(-0.5 * ((rest - LINES[key]) / 2) ** 2) / (2 * np.sqrt(2 * np.pi))
        for name, key in zip(MEASURED_LINES, LINES, strict=True)
        if name in share
    )
    centre = np.where(np.arange(n) % 2, 1.0, -0.8)[:, None] + 0.1 * rng.normal(size=(n, 1))
    widths = 10 ** (centre + 0.1 * rng.normal(size=(n, k)))
    shift = np.where(centre < 0, weak, 0.0)[:, 0]
    true = 10 ** (centre[:, 0] + shift + np.hypot(0.1, unknown) * rng.normal(size=n))
    draws = SpectrumDraws(
        10 * (1 + widths[..., None] * profile).astype(np.float32) * UNIT,
        wavelength * u.AA,
        np.full((n, k), 0.1),
        line_flux={name: 11 * part * widths * LINE_FLUX_UNIT for name, part in share.items()},
        meta={"aperture": "fibre"},
    )
    noise = np.full((n, len(wavelength)), 0.02)
    observed = 10 * (1 + true[:, None] * profile) + noise * rng.normal(size=noise.shape)
    return draws, observed * UNIT, noise * UNIT


@pytest.mark.parametrize(("unknown", "weak"), [(0.0, 0.0), (0.2, 0.0), (0.1, -0.6)])
def test_factors_of_lines_are_learned_from_observed_spectra(unknown, weak):
    draws, observed, noise = with_lines(150, 40, 5, unknown, weak)
    learnt = SpectrumRecalibration.fit(draws, observed, noise=noise)
    assert learnt.applicable(["photometry"], "fibre", np.array([[0.1, 0.2]])) == [""]
    assert learnt.applicable(["photometry"], "fibre", np.array([[0.1, 0.1]])) == ["photometry"]
    found = learnt.line_factors(["photometry", "image"], "fibre")
    assert found.scatter[1] == 0 and abs(found.scatter[0] - unknown) < 0.07
    assert not found.shift[1].any() and abs(found.shift[0, 0] - weak) < 0.2
    assert abs(found.shift[0, 1]) < 0.05
    of_total = learnt.line_factors(["photometry"], "total")
    assert not of_total.shift.any() and not of_total.scatter.any()
    again = SpectrumRecalibration.from_dict(json.loads(json.dumps(learnt.to_dict())))
    read = again.line_factors(["photometry"], "fibre")
    assert np.allclose(read.shift, found.shift[:1], atol=1e-4)
    assert np.allclose(read.scatter, found.scatter[:1], atol=1e-4)
    both = learnt | SpectrumRecalibration({("image", "fibre"): SpectrumCorrection()})
    kept = both.line_factors(["photometry", "image"], "fibre")
    assert (kept.shift == found.shift).all() and (kept.scatter == found.scatter).all()
    assert ("lines" in repr(learnt)) == (found.shift.any() or found.scatter.any())


def test_lines_are_corrected_only_if_their_fluxes_are_known():
    draws, observed, noise = with_lines(60, 40, 5, 0.2)
    some = dict(draws.line_flux)
    del some["hbeta"]
    arguments = (draws.flux, draws.wavelength, draws.redshift)
    tied = dict(draws.meta) | {"free_lines": False}
    scattered = draws.redshift + 0.01 * np.random.default_rng(0).normal(size=draws.redshift.shape)
    for other in (
        SpectrumDraws(*arguments, meta=draws.meta),
        SpectrumDraws(*arguments, line_flux=draws.line_flux, meta=tied),
        SpectrumDraws(*arguments[:2], scattered, line_flux=draws.line_flux, meta=draws.meta),
    ):
        learnt = SpectrumRecalibration.fit(other, observed, noise=noise)
        found = learnt.line_factors(["photometry"], "fibre")
        assert not found.shift.any() and not found.scatter.any()
    partly = SpectrumDraws(*arguments, line_flux=some, meta=draws.meta)
    with pytest.raises(ValueError, match="lacks hbeta"):
        SpectrumRecalibration.fit(partly, observed, noise=noise)


def test_the_shift_of_lines_that_are_not_there_is_zero():
    draws, observed, noise = with_lines(150, 40, 5, 0.0, -0.6)
    strong = np.arange(150) % 2 == 1
    found = [
        SpectrumRecalibration.fit(draws[rows], observed[rows], noise=noise[rows])
        .line_factors(["photometry"], "fibre")
        .shift[0]
        for rows in (strong, ~strong)
    ]
    assert found[0][0] == 0 and abs(found[0][1]) < 0.05
    assert found[1][1] == 0 and abs(found[1][0] + 0.6) < 0.25


def test_galaxies_without_draws_or_halpha_do_not_calibrate_lines():
    draws, observed, noise = with_lines(100, 40, 5, 0.0, -0.6)
    flux, redshift = draws.flux.value.copy(), draws.redshift.copy()
    flux[:5], redshift[:5] = np.nan, np.nan
    redshift[5:10] = 0.5
    other = SpectrumDraws(
        flux * UNIT, draws.wavelength, redshift, line_flux=draws.line_flux, meta=draws.meta
    )
    found = SpectrumRecalibration.fit(other, observed, noise=noise)
    wanted = SpectrumRecalibration.fit(draws[10:], observed[10:], noise=noise[10:])
    shifts = [one.line_factors(["photometry"], "fibre").shift for one in (found, wanted)]
    np.testing.assert_array_equal(*shifts)


def test_draws_of_unknown_inputs_are_refused():
    draws, truth = simulated(60)
    for meta, message in (
        ({}, "no 'aperture' in their meta data"),
        ({"aperture": "slit"}, "case is 'slit'"),
    ):
        other = SpectrumDraws(draws.flux, draws.wavelength, draws.redshift, meta=meta)
        with pytest.raises(ValueError, match=message):
            SpectrumRecalibration.fit(other, truth)
    with pytest.raises(TypeError, match="a SpectrumCorrection is expected"):
        SpectrumRecalibration({("both", "total"): [1.0] * 7})
    with pytest.raises(ValueError, match="an input mode and a case are expected"):
        SpectrumRecalibration({"photometry": SpectrumCorrection()})
    with pytest.raises(ValueError, match="case is 'slit'"):
        SpectrumRecalibration({}).scale_scatter(["both"], "slit")


def test_factors_depend_on_the_strength_of_lines():
    factors = LineFactors(np.array([[-0.6, 0.2]]), np.array([0.1]))
    widths = np.array([[0.0, 0.5, 1.0, 2.0, 50.0]])
    found = np.log10(factors.evaluate(widths, np.zeros(widths.shape)))
    np.testing.assert_allclose(found, [[-0.6, -0.6, -0.2, 0.2, 0.2]], atol=1e-12)
    scattered = np.log10(factors.evaluate(widths, np.full(widths.shape, 2.0)))
    np.testing.assert_allclose(scattered - found, 0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"continuum": [1.0, 2.0]}, "7 positive numbers"),
        ({"continuum": [0.0] * 7}, "7 positive numbers"),
        ({"continuum": [np.inf] * 7}, "7 positive numbers"),
        ({"line_scatter": -0.1}, "line_scatter is -0.1; it must be finite and at least 0"),
        ({"scale_scatter": np.nan}, "scale_scatter is nan"),
        ({"line_shift": [0.1]}, "two finite numbers"),
        ({"line_shift": [0.1, np.inf]}, "two finite numbers"),
    ],
)
def test_invalid_corrections_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SpectrumCorrection(**change)
    with pytest.raises(TypeError, match="line_scatter is 'wide'; numbers are expected"):
        SpectrumCorrection(line_scatter="wide")
    assert SpectrumCorrection(np.ones(7)) == SpectrumCorrection()
    assert len({SpectrumCorrection([1.0] * 7), SpectrumCorrection()}) == 1


def test_older_cards_are_read():
    wide = SpectrumCorrection([2.0] * 7, scale_scatter=0.2, line_scatter=0.1)
    keys = [("both", "fibre"), ("both", "total")]
    old = SpectrumRecalibration(dict.fromkeys(keys, wide)).to_dict()
    for part in old["factors"]:
        del part["line_shift"]
    read = SpectrumRecalibration.from_dict(old | {"layout": 2})
    assert read.scale_scatter(["both"], "fibre photometry") == 0.2
    for case in CASES:
        found = read.line_factors(["both"], case)
        assert found.scatter == 0.1 and not found.shift.any()
    for part in old["factors"]:
        del part["line_scatter"], part["scale_scatter"]
    read = SpectrumRecalibration.from_dict(old | {"layout": 1})
    for case in CASES:
        assert read.line_factors(["both"], case).scatter == read.scale_scatter(["both"], case) == 0
        assert (read.factors(["both"], case, [0.1], [5000.0]) == 2).all()
    invalid = {"line_shift": [1.0, 2.0, 3.0], "line_scatter": "wide", "known_redshift": "yes"}
    for name, value in invalid.items():
        with pytest.raises(ValueError, match=name):
            SpectrumRecalibration.from_dict(old | {"factors": [old["factors"][0] | {name: value}]})


def test_the_estimator_scatters_the_scales_of_draws():
    network = make_network()
    key = ("photometry", "fibre")
    learnt = SpectrumRecalibration({key: SpectrumCorrection(scale_scatter=0.5)}).to_dict()
    estimator = SpectrumEstimator(network, card={"name": "t", "recalibration": learnt})
    wide, plain = (
        predict(estimator, None, photometry(), posterior(), n_draws=12, calibrated=c)
        for c in (True, False)
    )
    red = [np.log(d.flux.value[..., 1500:1520]).mean(-1) for d in (wide, plain)]
    offsets = [values - np.median(values, axis=1, keepdims=True) for values in red]
    ratio = np.abs(offsets[0] / offsets[1])[np.abs(offsets[1]) > 1e-2]
    assert 0.2 < np.log(ratio).std() < 1.0
    alone = predict(estimator, None, photometry()[:1], posterior()[:1], n_draws=12, calibrated=True)
    np.testing.assert_allclose(alone.flux.value[0], wide.flux.value[0], rtol=1e-4)


def test_photometry_in_a_fibre_has_factors_of_its_own():
    key = ("photometry", "fibre photometry")
    learnt = SpectrumRecalibration(
        {key: SpectrumCorrection([2.0] * 7, line_shift=[-1.0, -1.0])}
    ).to_dict()
    estimator = SpectrumEstimator(make_network(), card={"name": "t", "recalibration": learnt})
    batch = photometry()
    changes = []
    for seen in (coerce_photometry(batch, aperture="fibre"), batch):
        after, before = (
            predict(estimator, None, seen, posterior(), aperture="fibre", calibrated=c)
            for c in (True, False)
        )
        lines = np.log10(after.line_flux["halpha"] / before.line_flux["halpha"]).value
        spread = [np.log(d.flux.value[..., 2000]).std() for d in (after, before)]
        changes.append((np.median(lines), spread[0] / spread[1]))
    assert abs(changes[0][0] + 1) < 0.1 and changes[0][1] > 1.2
    assert changes[1] == pytest.approx((0, 1))


def test_corrections_of_known_redshifts_are_not_applied_to_inferred_ones():
    key = ("photometry", "fibre photometry")
    given = posterior()
    known = Posterior(
        dict(given.draws) | {"redshift": np.full((3, 8), 0.1) * u.one}, names=given.names
    )
    seen = coerce_photometry(photometry(), aperture="fibre")
    for restricted in (True, False):
        correction = SpectrumCorrection([2.0] * 7, 0.2, [-1.0, -1.0], known_redshift=restricted)
        learnt = SpectrumRecalibration({key: correction}).to_dict()
        assert SpectrumRecalibration.from_dict(learnt).to_dict() == learnt
        estimator = SpectrumEstimator(make_network(), card={"name": "t", "recalibration": learnt})
        for properties, corrected in ((known, True), (given, not restricted)):
            after, before = (
                predict(estimator, None, seen, properties, aperture="fibre", calibrated=c)
                for c in (True, False)
            )
            assert (np.abs(after.flux.value / before.flux.value - 1).max() > 1e-3) == corrected
            lines = after.line_flux["halpha"] / before.line_flux["halpha"]
            assert (np.abs(np.log10(lines.value)).max() > 0.5) == corrected


def test_draws_do_not_depend_on_the_inputs_of_other_galaxies():
    corrections = {
        ("photometry", "total"): SpectrumCorrection(line_scatter=0.2),
        ("both", "total"): SpectrumCorrection(scale_scatter=0.3),
    }
    learnt = SpectrumRecalibration(corrections).to_dict()
    estimator = SpectrumEstimator(make_network(), card={"name": "t", "recalibration": learnt})
    flux = np.full((2, 5), 30.0)
    table = PhotometryBatch(flux, 0.02 * flux, np.zeros(2), np.zeros(2, bool))
    image = np.random.default_rng(0).uniform(0.02, 0.2, (2, 5, 64, 64)).astype(np.float32)
    ivar = np.full_like(image, 1e4)
    ivar[0] = 0  # an image of the second galaxy alone
    arguments = (CutoutBatch(image, ivar), table, posterior(2))
    options = {"aperture": "total", "on_error": "flag"}
    whole, alone = (
        predict(estimator, *arguments, batch_size=size, **options).flux.value for size in (2, 1)
    )
    np.testing.assert_allclose(alone, whole, rtol=1e-3)


def test_the_estimator_scatters_free_lines_together():
    network = make_network()
    keys = [("photometry", aperture) for aperture in ("fibre", "total")]
    learnt = SpectrumRecalibration(
        dict.fromkeys(keys, SpectrumCorrection(line_scatter=0.3))
    ).to_dict()
    estimator = SpectrumEstimator(network, card={"name": "t", "recalibration": learnt})
    properties = posterior()
    at_one = np.full(properties["redshift"].draws.shape, 0.1) * u.one
    arguments = (
        None,
        photometry(),
        Posterior(dict(properties.draws) | {"redshift": at_one}, names=properties.names),
    )
    options = {"aperture": "total", "n_draws": 30}
    scattered, plain = (
        predict(estimator, *arguments, calibrated=c, **options) for c in (True, False)
    )
    rest = GENERATED.wavelength / 1.1
    near = [np.abs(rest - LINES[name]) < 1 for name in ("OIII5008", "Halpha")]
    light = [
        np.stack([np.log10(d.flux.value[..., at].mean(-1)) for at in near])
        for d in (scattered, plain)
    ]
    change = light[0] - light[1]
    logs = [
        np.log10([d.line_flux[name].value for name in ("oiii5007", "halpha")])
        for d in (scattered, plain)
    ]
    np.testing.assert_allclose(*(logs[0] - logs[1]), atol=0.01)
    assert 0.2 < (logs[0] - logs[1]).std() < 0.4
    assert 0.02 < change.std() < 0.35
    assert np.corrcoef(*change.reshape(2, -1))[0, 1] > 0.5
    tied = [
        predict(estimator, *arguments, calibrated=c, aperture="fibre").flux.value
        for c in (True, False)
    ]
    np.testing.assert_allclose(*tied, rtol=1e-4)
