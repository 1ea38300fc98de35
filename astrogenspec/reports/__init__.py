"""Reports in HTML: calibration of an estimator on labelled galaxies, and statistics of the simulator."""
