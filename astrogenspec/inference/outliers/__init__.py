"""Detection of inputs outside the training distribution."""
