"""Images and photometry to the joint posterior of properties and line fluxes."""
