"""Exclude scripts and generated pages of the documentation from the tests."""

collect_ignore_glob = ["tutorials/*", "gallery/*", "models/*", "pictures/*", "*.py"]
