"""Training sets of real galaxies: sources, cutouts and spectra, shards on disk."""
