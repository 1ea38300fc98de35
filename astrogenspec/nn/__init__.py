"""Neural-network building blocks, independent of astronomy."""
