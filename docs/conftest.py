"""Keep the tests away from what the build of the documentation runs or writes."""

collect_ignore_glob = ["tutorials/*", "gallery/*", "models/*", "pictures/*", "*.py"]
