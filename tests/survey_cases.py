"""Catalogues of surveys: two galaxies each, with the names, units and fill values of the survey.

The numbers are made up.  An AB magnitude of 20 is 10 nanomaggies, and one of 17.5 is 100.
"""

import numpy as np
from astropy.table import Table

from astrogenspec.surveys import get_survey

#: Nanojansky in a nanomaggy: the zero point of AB magnitudes is 3631 Jy (to 0.006%).
NJY = 3630.780547701013
#: Relative error of a flux whose magnitude has an error of 0.1.
TENTH = 0.1 * 0.4 * np.log(10)


def kids_with_curves():
    """Return the description of KiDS with curves of other surveys, for tests only."""
    similar = {band: f"cfht_megacam-{band}" for band in "ugri"}
    return get_survey("kids").with_curves(similar)


def legacy():
    return Table(
        {
            "RELEASE": [10000, 10000],
            "TYPE": ["SER", "EXP"],
            "OBJID": [11, 12],
            "EBV": [0.02, 0.05],
            "FLUX_G": [10.0, 3.0],
            "FLUX_R": [20.0, 5.0],
            "FLUX_I": [25.0, 0.0],
            "FLUX_Z": [30.0, -0.2],
            "FLUX_IVAR_G": [400.0, 100.0],
            "FLUX_IVAR_R": [400.0, 100.0],
            "FLUX_IVAR_I": [100.0, 0.0],
            "FLUX_IVAR_Z": [100.0, 25.0],
            "MW_TRANSMISSION_G": [0.9, 0.8],
            "MW_TRANSMISSION_R": [0.95, 0.85],
            "MW_TRANSMISSION_I": [0.97, 0.9],
            "MW_TRANSMISSION_Z": [0.98, 0.92],
            "FLUX_W1": [40.0, 9.0],
            "FLUX_IVAR_W1": [1.0, 1.0],
            "MASKBITS": [0, 0],
        }
    )


LEGACY = {
    "filters": [f"decamDR1-{band}" for band in "griz"],
    "flux": [[10, 20, 25, 30], [3, 5, np.nan, -0.2]],
    "error": [[0.05, 0.05, 0.1, 0.1], [0.1, 0.1, np.nan, 0.2]],
    "extinction": -2.5 * np.log10([[0.9, 0.95, 0.97, 0.98], [0.8, 0.85, 0.9, 0.92]]),
    "names": ("11", "12"),
}


def des():
    table = Table({"COADD_OBJECT_ID": [100, 101], "RA": [1.0, 2.0], "EBV_SFD98": [0.01, 0.03]})
    fluxes = ([1e4, 1e3], [2e4, 2e3], [3e4, 3e3], [4e4, -5e1], [5e4, 5e3])
    for band, flux in zip("GRIZY", fluxes, strict=True):
        table[f"FLUX_AUTO_{band}"] = flux
        table[f"FLUXERR_AUTO_{band}"] = [100.0, 100.0]
        table[f"MAG_AUTO_{band}"] = [20.0, 99.0]
        table[f"MAGERR_AUTO_{band}"] = [0.01, 99.0]
    return table


DES = {
    "filters": [f"decamDR1-{band}" for band in "grizY"],
    # Zero point 30: a flux of 1e4 is a magnitude of 20.
    "flux": [[10, 20, 30, 40, 50], [1, 2, 3, -0.05, 5]],
    "error": np.full((2, 5), 0.1),
    "ebv": [0.01, 0.03],
    "names": ("100", "101"),
}


def panstarrs():
    table = Table({"objID": [7, 8], "raMean": [10.0, 11.0]})
    for band in "grizy":
        table[f"{band}KronMag"] = [17.5, 20.0]
        table[f"{band}KronMagErr"] = [0.1, 0.1]
        table[f"{band}PSFMag"] = [18.0, 20.5]
        table[f"{band}PSFMagErr"] = [0.1, 0.1]
    table["yKronMag"][1] = table["yKronMagErr"][1] = -999.0
    return table


PANSTARRS = {
    "filters": [f"panstarrs-{band}" for band in "grizy"],
    "flux": [[100] * 5, [10, 10, 10, 10, np.nan]],
    "error": [[100 * TENTH] * 5, [10 * TENTH] * 4 + [np.nan]],
    "ebv": [0.0, 0.0],
    "names": ("7", "8"),
}


def hsc():
    table = Table({"object_id": [3, 4]})
    for band in "grizy":
        table[f"{band}_cmodel_flux"] = [10 * NJY, -0.01 * NJY]
        table[f"{band}_cmodel_fluxerr"] = [0.1 * NJY, 0.02 * NJY]
        table[f"a_{band}"] = [0.1, 0.2]
    return table


HSC = {
    "filters": [f"hsc2017-{band}" for band in ("g", "r2", "i2", "z", "y")],
    "flux": [[10] * 5, [-0.01] * 5],
    "error": [[0.1] * 5, [0.02] * 5],
    "extinction": [[0.1] * 5, [0.2] * 5],
    "names": ("3", "4"),
}


def lsst():
    table = Table({"objectId": [5, 6], "coord_ra": [1.0, 2.0], "ebv": [0.02, 0.04]})
    for band in "ugrizy":
        table[f"{band}_cModelFlux"] = [10 * NJY, -0.01 * NJY]
        table[f"{band}_cModelFluxErr"] = [0.1 * NJY, 0.02 * NJY]
        table[f"{band}_gaap1p0Flux"] = [5 * NJY, 1.0]
        table[f"{band}_gaap1p0FluxErr"] = [0.1 * NJY, 1.0]
    return table


LSST = {
    "filters": [f"lsst2023-{band}" for band in "ugrizy"],
    "flux": [[10] * 6, [-0.01] * 6],
    "error": [[0.1] * 6, [0.02] * 6],
    "ebv": [0.02, 0.04],
    "names": ("5", "6"),
}


def rail():
    table = Table({"id": [1, 2], "ebv": [0.0, 0.0]})
    for band in "ugrizy":
        table[f"mag_{band}_lsst"] = [20.0, 22.5]
        table[f"mag_err_{band}_lsst"] = [0.1, 0.1]
    # Not detected, with a limit of one standard deviation, and not observed.
    table["mag_u_lsst"][1], table["mag_err_u_lsst"][1] = 99.0, 27.5
    table["mag_y_lsst"][1], table["mag_err_y_lsst"][1] = -99.0, 0.0
    return table


RAIL = {
    "filters": LSST["filters"],
    "flux": [[10] * 6, [0, 1, 1, 1, 1, np.nan]],
    "error": [[10 * TENTH] * 6, [0.01] + [TENTH] * 4 + [np.nan]],
    "ebv": [0.0, 0.0],
    "names": ("1", "2"),
}


def kids():
    table = Table({"ID": ["a", "b"]})
    for band in ("u", "g", "r", "i", "Z", "Y", "J", "H", "Ks"):
        table[f"MAG_GAAP_{band}"] = [20.0, 17.5]
        table[f"MAGERR_GAAP_{band}"] = [0.1, 0.1]
        table[f"EXTINCTION_{band}"] = [0.1, 0.2]
    # Not detected, with a limit, and not observed.
    table["MAG_GAAP_u"][1], table["MAGERR_GAAP_u"][1] = 99.0, 25.0
    table["MAG_GAAP_Y"][1] = -99.0
    return table


KIDS = {
    "filters": [*kids_with_curves().filter_names.values()],
    "flux": [[10] * 9, [0, 100, 100, 100, 100, np.nan, 100, 100, 100]],
    "error": [[10 * TENTH] * 9, [0.1] + [100 * TENTH] * 4 + [np.nan] + [100 * TENTH] * 3],
    "extinction": np.zeros((2, 9)),
    "names": ("a", "b"),
}


def roman():
    table = Table({"label": [41, 42]})
    for band in ("f106", "f129", "f158"):
        table[f"kron_{band}_flux"] = [10 * NJY, 100 * NJY]
        table[f"kron_{band}_flux_err"] = [NJY, NJY]
        table[f"segment_{band}_flux"] = [1.0, 1.0]
        table[f"segment_{band}_flux_err"] = [1.0, 1.0]
    table["kron_f129_flux"][1] = np.nan
    return table


ROMAN = {
    "filters": [f"roman-{band}" for band in ("F106", "F129", "F158")],
    "flux": [[10] * 3, [100, np.nan, 100]],
    "error": [[1] * 3, [1, np.nan, 1]],
    "ebv": [0.0, 0.0],
    "names": ("41", "42"),
}


def euclid():
    table = Table({"OBJECT_ID": [21, 22], "GAL_EBV": [0.02, 0.03]})
    for band in ("VIS", "Y", "J", "H"):
        table[f"FLUX_{band}_SERSIC"] = [10 * NJY / 1000, -0.01 * NJY / 1000]
        table[f"FLUXERR_{band}_SERSIC"] = [0.1 * NJY / 1000, 0.02 * NJY / 1000]
        table[f"FLUX_{band}_2FWHM_APER"] = [1.0, 1.0]
        table[f"FLUXERR_{band}_2FWHM_APER"] = [1.0, 1.0]
    return table


EUCLID = {
    "filters": [f"Euclid-{band}" for band in ("VIS", "Y", "J", "H")],
    "flux": [[10] * 4, [-0.01] * 4],
    "error": [[0.1] * 4, [0.02] * 4],
    "ebv": [0.02, 0.03],
    "names": ("21", "22"),
}


def twomass():
    table = Table({"designation": ["J0001", "J0002"]})
    for band, offset in zip("jhk", (0.91, 1.39, 1.85), strict=True):
        table[f"{band}_m_ext"] = [17.5 - offset, -99.0]
        table[f"{band}_msig_ext"] = [0.1, -99.0]
    table["j_m_ext"][1], table["j_msig_ext"][1] = 20 - 0.91, 0.1
    return table


TWOMASS = {
    "filters": [f"twomass-{band}" for band in ("J", "H", "Ks")],
    "flux": [[100] * 3, [10, np.nan, np.nan]],
    "error": [[100 * TENTH] * 3, [10 * TENTH, np.nan, np.nan]],
    "ebv": [0.0, 0.0],
    "names": ("J0001", "J0002"),
}


def wise():
    table = Table({"designation": ["W1", "W2"]})
    for band, offset in zip(range(1, 5), (2.699, 3.339, 5.174, 6.62), strict=True):
        table[f"w{band}mpro"] = [17.5 - offset, 20 - offset]
        table[f"w{band}sigmpro"] = [0.1, 0.1]
    table["w4sigmpro"][1] = np.nan
    return table


WISE = {
    "filters": [f"wise2010-W{k}" for k in range(1, 5)],
    "flux": [[100] * 4, [10, 10, 10, np.nan]],
    "error": [[100 * TENTH] * 4, [10 * TENTH] * 3 + [np.nan]],
    "ebv": [0.0, 0.0],
    "names": ("W1", "W2"),
}


def galex():
    return Table(
        {
            "objid": [31, 32],
            "fuv_mag": [20.0, -999.0],
            "fuv_magerr": [0.1, -999.0],
            "nuv_mag": [17.5, 20.0],
            "nuv_magerr": [0.1, 0.1],
            "e_bv": [0.02, 0.03],
        }
    )


GALEX = {
    "filters": ["galex-fuv", "galex-nuv"],
    "flux": [[10, 100], [np.nan, 10]],
    "error": [[10 * TENTH, 100 * TENTH], [np.nan, 10 * TENTH]],
    "ebv": [0.02, 0.03],
    "names": ("31", "32"),
}

#: Survey, table, right values, and whether the survey is recognised by the names of its columns.
CATALOGUES = {
    "legacy-dr10": ("legacy-dr10", legacy, LEGACY, False),
    "des": ("des", des, DES, True),
    "panstarrs": ("panstarrs", panstarrs, PANSTARRS, True),
    "hsc": ("hsc", hsc, HSC, True),
    "lsst": ("lsst", lsst, LSST, True),
    "rail": ("lsst", rail, RAIL, True),
    "kids": (kids_with_curves(), kids, KIDS, False),
    "roman": ("roman", roman, ROMAN, True),
    "euclid": ("euclid", euclid, EUCLID, True),
    "2mass": ("2mass", twomass, TWOMASS, True),
    "wise": ("wise", wise, WISE, True),
    "galex": ("galex", galex, GALEX, True),
}
