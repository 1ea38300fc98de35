"""Conversion of user input to tensors: units, masks, uncertainties, coordinates, pixel grids and tables.

The entry points are `astrogenspec.inputs.cutouts` for images and `astrogenspec.inputs.photometry`
for catalogues.
"""
