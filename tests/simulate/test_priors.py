"""Tables of priors."""

import numpy as np
import pytest

from astrogenspec.simulate.priors import Priors, load_priors, prior_groups

KINDS = {"literature", "fitted", "empirical", "assumed"}


@pytest.mark.parametrize("group", prior_groups())
def test_every_number_is_documented(group):
    table = load_priors(group).table
    assert len(set(table["name"])) == len(table)
    assert np.isfinite(table["value"]).all()
    assert set(table["kind"]) <= KINDS
    assert all(str(row["description"]) for row in table)
    for row in table:
        if row["kind"] in ("literature", "fitted"):
            assert str(row["source"]).strip("- "), row["name"]


def test_replace_returns_a_copy():
    population = load_priors("population")
    changed = population.replace(mass_function_knee=10.5)
    assert changed.mass_function_knee == 10.5
    assert population.mass_function_knee != 10.5
    assert isinstance(changed, Priors)
    assert len(changed) == len(population)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no group of priors is named 'weather'"):
        load_priors("weather")
    with pytest.raises(ValueError, match="no prior is named 'knee'"):
        load_priors("population").replace(knee=1.0)
    with pytest.raises(AttributeError, match="knee"):
        _ = load_priors("population").knee
