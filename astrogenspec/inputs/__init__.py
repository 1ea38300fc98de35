"""Reading what users pass in: units, masks, uncertainties, coordinates, grids and tables.

`astrogenspec.inputs.cutouts` and `astrogenspec.inputs.photometry` are the doors; the modules here do the single steps.
"""
