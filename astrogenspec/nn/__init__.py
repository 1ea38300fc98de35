"""Neural-network blocks that know no astronomy."""
