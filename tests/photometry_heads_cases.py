"""An estimator with a separate photometry head, shared by several tests."""

from estimator_cases import make_estimator

from astrogenspec import PropertyEstimator


def estimator_with_heads():
    network = make_estimator().network
    first = network.extract_head(0)
    return PropertyEstimator(network.with_heads([first], [first]), card={"name": "tiny"})
