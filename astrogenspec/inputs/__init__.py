"""Conversion of user input to tensors: units, masks, uncertainties, coordinates and pixel grids.

The entry points are `astrogenspec.inputs.cutouts` for images and `astrogenspec.inputs.photometry`
for catalogues.
"""
