"""The language of the project: the field's standard terms, no private vocabulary."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Private words, as regular expressions, with the standard term to use.
PRIVATE_WORDS = {
    r"lend(?:s|ing|er|ers)?|lent|borrow(?:s|ed|ing)?": "match, impute",
    r"lessons?|taught|rehears(?:e|es|ed|al)|replay(?:s|ed)?": "teacher samples, distillation",
    r"anchor(?:ed|ing)": "fine-tuned, fine-tuning",
    r"stamps?": "cutout",
    r"garbles?": "is missing or invalid",
    r"novelt(?:y|ies)": "outlier",
    r"cascades?": "network",
    r"each_?pieces?": "map_chunks",
    r"_(?:most|least|fewest|farthest)_\w+": "MAX_..., MIN_...",
    r"fault of the program": "internal error",
    r"(?:it|this|that) is said": "is reported, is listed",
    r"in vain": "without effect",
    r"(?:what|which) (?:there )?is (?:there )?wrong is said": "report",
}
#: Where a private word is part of something that cannot change: keys of files, keywords and options
#: kept as aliases.
ALLOWED = {
    ("CHANGES.rst", "cascade"),
    ("astrogenspec/_moved.py", "cascade"),
    ("CHANGES.rst", "rehearsal"),
    # Deprecated keyword of `PropertyEstimator.fit`.
    ("astrogenspec/inference/estimator.py", "rehearsal"),
    ("tests/inference/test_estimator.py", "rehearsal"),
    # Keys of cards, and names of the files of results that the cards hold.
    ("benchmarks/finetuning.py", "anchored"),
    ("benchmarks/finetuning.py", "anchoring"),
    ("benchmarks/own_sample.py", "anchoring"),
    ("docs/model_figures.py", "anchoring"),
    ("docs/model_scores.toml", "anchoring"),
    ("docs/model_scores.toml", "anchored"),
    ("recipes/bundle.py", "anchoring"),
    ("recipes/bundle.py", "novelty"),
    ("recipes/cards.py", "novelty"),
    ("recipes/cards.py", "anchoring"),
    ("recipes/README.rst", "anchoring"),
    ("recipes/training_set.py", "novelty"),
    ("benchmarks/flags.py", "novelty"),
    ("tests/test_fuzz.py", "novelty"),
    # A keyword of `PropertyEstimator.fit`.
    ("benchmarks/finetuning.py", "rehearsal"),
    ("recipes/real_images.py", "rehearsal"),
    ("tests/test_language.py", None),
    # Names of modules that have moved.
    ("astrogenspec/_moved.py", "cascade"),
    ("astrogenspec/inference/outliers/detector.py", "novelty"),
    ("astrogenspec/inference/sampling.py", "novelty"),
    ("astrogenspec/inference/card.py", "novelty"),
    ("tests/inference/test_card.py", "novelty"),
    ("astrogenspec/inference/finetuning/trainer.py", "rehearsal"),
    ("tests/inference/finetuning/test_trainer.py", "rehearsal"),
    ("tests/inference/outliers/test_detector.py", "novelty"),
    ("tests/inference/outliers/test_stars.py", "novelty"),
    ("tests/inference/test_any_filters.py", "novelty"),
}
SUFFIXES = {".py", ".rst", ".toml", ".cfg", ".yml", ".md"}
PATTERN = re.compile(
    "|".join(rf"(?<![a-zA-Z])(?:{words})(?![a-zA-Z])" for words in PRIVATE_WORDS), re.I
)


def _files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        folders = ("astrogenspec", "benchmarks", "docs", "recipes", "tests")
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return sorted(p for p in paths if p.suffix in SUFFIXES and p.is_file())


@pytest.mark.parametrize("path", _files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_private_words(path):
    name = path.relative_to(ROOT).as_posix()
    allowed = {word for file, word in ALLOWED if file == name}
    if None in allowed:
        return
    found = [
        f"{name}:{k}: {match.group()}"
        for k, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in PATTERN.finditer(line)
        if match.group().lower() not in allowed
    ]
    assert found == []
