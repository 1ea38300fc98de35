"""From images, photometry and a draw of the properties to draws of the optical spectrum."""
