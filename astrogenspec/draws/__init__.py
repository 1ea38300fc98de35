"""Inside `astrogenspec.Posterior`: checks, summaries, joining, tables, reading and writing."""
