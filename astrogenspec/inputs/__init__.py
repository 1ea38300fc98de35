"""Reading what users pass in: units, masks, uncertainties, coordinates, grids and tables.

`astrogenspec.cutouts` and `astrogenspec.photometry` are the doors; the modules here do the single steps.
"""
