"""Reports in HTML: calibration on labelled galaxies, and statistics of the simulator."""
