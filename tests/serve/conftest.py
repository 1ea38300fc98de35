"""A server in another process, as a department would run it."""

import re
import subprocess
import sys

import pytest

PREFIX = "/galaxies"
ORIGIN = "https://astro.example.edu"


@pytest.fixture(scope="session")
def address():
    pytest.importorskip("tornado")
    command = [sys.executable, "-m", "astrogenspec", "serve", "--port", "0", "--prefix", PREFIX]
    command += ["--origin", ORIGIN, "--max-upload", "1", "--max-galaxies", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while line := process.stdout.readline():
            found = re.search(r"Open (http://\S+) in a browser", line)
            if found:
                break
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
