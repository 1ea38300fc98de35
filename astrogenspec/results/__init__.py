"""Result objects: the joint posterior of galaxy properties and draws of galaxy spectra."""
