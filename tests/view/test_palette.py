"""The colours of pages can be told apart with any colour vision, in light and in dark mode."""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from astrogenspec.view.figures import FLAGGED, UNFLAGGED

#: Colour vision of dichromats, applied to linear RGB (Vienot, Brettel & Mollon 1999, Color Res.
#: Appl. 24, 243, for protanopia and deuteranopia; Machado, Oliveira & Fernandes 2009, IEEE Trans.
#: Vis. Comput. Graph. 15, 1291, for tritanopia).
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopia": np.array(
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
#: CIE XYZ of linear sRGB, and the white point D65.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return CIE L*a*b* of linear sRGB."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def schemes():
    style = (files("astrogenspec.view") / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(blocks) == 2
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)
    return {"light": light, "dark": light | dark}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_differ(scheme, vision):
    colours = schemes()[scheme]
    shown = {name: colours[name] for name in ("good", "bad", "true", "prior", "page")}
    seen = {name: lab(VISION[vision] @ linear(colour)) for name, colour in shown.items()}
    distances = {
        pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]])
        for pair in itertools.combinations(seen, 2)
    }
    # A difference of 2.3 is just noticeable side by side.
    assert {pair: d for pair, d in distances.items() if d < 15} == {}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("page", ["#ffffff", "#15181c"])
def test_points_of_the_plots_differ(page, vision):
    seen = [lab(VISION[vision] @ linear(c)) for c in (UNFLAGGED, FLAGGED, page)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 30


def test_distance_is_that_of_the_standard():
    assert np.linalg.norm(lab(linear("#ffffff")) - lab(linear("#000000"))) == pytest.approx(100)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)
