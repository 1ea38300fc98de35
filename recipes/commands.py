"""Templates of the commands that make the bundled weights.

FOLDER is the folder of the real tables, COMMIT the commit of the code.
"""

from __future__ import annotations

__all__ = ["RECIPES", "SPECTRA_STAGES"]

#: Weights trained on simulations alone.
BASE = "astrogenspec-properties-simulated"
SIMULATE_IMAGES = "astrogenspec simulate 90000 --training --seed 1 --out runs/images"
SIMULATE_MORE_IMAGES = "astrogenspec simulate 90000 --training --seed 3 --out runs/images3"
_SIMULATE_PHOTOMETRY = (
    "astrogenspec simulate {n} --training --no-images --no-spectra --seed 2 --out runs/photometry"
)
SIMULATE_PHOTOMETRY = _SIMULATE_PHOTOMETRY.format(n=600_000)
#: The same seed and folder: the shards that exist are kept.
SIMULATE_MORE_PHOTOMETRY = _SIMULATE_PHOTOMETRY.format(n=1_200_000)

TRAIN = (
    "astrogenspec train properties --data runs/images runs/photometry --hours {hours:.2f} "
    "--out runs/properties"
)
_TRAIN_HEADS = "astrogenspec train properties --model {model} --heads-alone --data {data}"
TRAIN_FIRST_HEADS = (
    _TRAIN_HEADS.format(model=BASE, data="runs/images runs/photometry")
    + " --hours 0.60 --out runs/heads-first"
)
TRAIN_SECOND_HEADS = (
    _TRAIN_HEADS.format(model="runs/heads-first/properties.safetensors", data="runs/photometry")
    + " --hours 0.50 --out runs/heads-second"
)
TRAIN_HEADS = (
    _TRAIN_HEADS.format(model=BASE, data="runs/photometry")
    + " --hours {hours:.2f} --out runs/heads"
)
TRAIN_IMAGE_HEADS = (
    _TRAIN_HEADS.format(model=BASE, data="runs/images") + " --hours 0.50 --out runs/image-heads"
)
JOIN_HEADS = (
    f"python recipes/join_heads.py {BASE} runs/image-heads/properties.safetensors "
    "--out runs/joined.safetensors"
)
TRAIN_IMAGES = (
    "astrogenspec train properties --model runs/joined.safetensors "
    "--data runs/images runs/images3 runs/photometry --steps {steps} --learning-rate 5e-4 "
    "--final-rate 2e-4 --out runs/image-network"
)
SIMULATE_SEDS = "python recipes/training_set.py runs/seds --seds --n 400000 --seed 2"
TRAIN_ANY_FILTERS = (
    "astrogenspec train properties --any-filters --data runs/seds --hours {hours:.2f} "
    "--learning-rate 1.5e-3 --out runs/any"
)
SIMULATE_IMAGES_WITH_SEDS = (
    "python recipes/training_set.py runs/images-seds --seds --images --n 50000 --seed 1"
)
WITH_ENCODER = "python recipes/any_filters.py encoder runs/any --out runs/any-encoder"
TRAIN_ANY_IMAGE_HEADS = (
    "astrogenspec train properties --model runs/any-encoder/properties.safetensors --heads-only "
    "--data runs/images-seds --steps {steps} --learning-rate 5e-4 --out runs/any-images"
)
JOIN_ANY_FILTERS = "python recipes/any_filters.py join runs/any-images runs/any --out runs/any-both"
SIMULATE_DEEP = (
    "python recipes/training_set.py runs/deep-seds --seds --n 240000 --seed 4 --population deep"
)
TRAIN_DEEP = (
    "astrogenspec train properties --any-filters --max-redshift 1.3 --data runs/deep-seds "
    "--hours {hours:.2f} --learning-rate 1.5e-3 --out runs/deep"
)
SIMULATE_FAINT = (
    "python recipes/training_set.py runs/faint --seds --n 100000 --seed 6 --population faint"
)
#: Continues the head for galaxies without images on fainter galaxies too.
TRAIN_FAINT = (
    f"astrogenspec train properties --model {BASE} --photometry-only --data runs/seds runs/faint "
    "--hours {hours:.2f} --learning-rate 6e-4 --seed 3 --out runs/faint-head"
)
FINETUNE = (
    "python recipes/finetune.py heads FOLDER --model runs/finetuned-images/properties.safetensors "
    "--data runs/seds --heads {heads} --out runs/finetuned"
)
#: Heads of each kind, and folds of the cross-validation.
N_HEADS, N_FOLDS = 3, 5
FINETUNE_FOLD = (
    "python recipes/finetune.py heads FOLDER --fold {fold} --heads 1 "
    "--model runs/finetuned-images/properties.safetensors --data runs/seds --out runs/folds"
)
#: Heads for galaxies with images, on labelled galaxies with images of simulated ones.
FINETUNE_IMAGE_HEADS = (
    "python recipes/finetune.py image-heads FOLDER --model runs/faint-head/properties.safetensors "
    "--data runs/images-seds --out runs/image-heads"
)
FINETUNE_ON_IMAGES = (
    "python recipes/finetune.py images FOLDER --model runs/image-heads/properties.safetensors "
    "--data runs/images-seds --out runs/finetuned-images"
)
CALIBRATE = (
    "python recipes/finetune.py calibrate FOLDER --folds runs/folds "
    "--model runs/finetuned/properties.safetensors --out runs/calibrated"
)
#: Runs of the spectra network: seed of the simulated galaxies, seed of the run (None: the default),
#: hours, folder.
SPECTRA_STAGES = (
    (1, None, 1.42, "runs/spectra-first"),
    (1, 7, 1.45, "runs/spectra-second"),
    (22, 9, 1.35, "runs/spectra-third"),
    (33, 11, 1.00, "runs/spectra"),
)


SIMULATE_FOR_SPECTRA = "astrogenspec simulate 30000 --training --seed 44 --out runs/images44"
REAL_SPECTRA = (
    "python recipes/finetune_spectra.py sample FOLDER --data runs/images44 "
    "--out runs/real-spectra.pt"
)
#: Minutes of the runs without each of the five folds.
_MINUTES_OF_FOLDS = (85, 85, 48, 40, 40)
#: The first is bundled; all of them measure the accuracy and calibrate the ranges.
FINETUNE_SPECTRA, *FINETUNE_SPECTRA_FOLDS = (
    "python recipes/finetune_spectra.py fit runs/real-spectra.pt --data runs/images44 "
    f"--without-fold {fold} --minutes {minutes} --learning-rate 5e-4 --batches 72 40 8 12 "
    f"--seed 15 --out runs/spectra-folds/fold-{fold}"
    for fold, minutes in enumerate(_MINUTES_OF_FOLDS)
)
CALIBRATE_SPECTRA = (
    "python benchmarks/spectra.py folds FOLDER --runs runs/spectra-folds --out results/spectra"
)


def _bundle(kind: str, *options: str) -> str:
    return " ".join(("python recipes/bundle.py", kind, *options, "--commit COMMIT"))


def spectra_commands(last_hours: float = 1.00, last_seed: int = 11) -> tuple[str, ...]:
    """Return the commands that simulate galaxies and train the spectra network.

    Parameters
    ----------
    last_hours : float
        Hours of the last run.
    last_seed : int
        Seed of the last run.
    """
    commands: list[str] = []
    before = None
    for data_seed, seed, hours, out in SPECTRA_STAGES:
        if out == SPECTRA_STAGES[-1][-1]:
            hours, seed = last_hours, last_seed
        data = "runs/images" if data_seed == 1 else f"runs/images{data_seed}"
        simulate = f"astrogenspec simulate 90000 --training --seed {data_seed} --out {data}"
        if simulate not in commands:
            commands.append(simulate)
        train = f"astrogenspec train spectra --data {data}"
        if before is not None:
            train += f" --model {before}/spectra.safetensors"
        train += f" --hours {hours:.2f}"
        if seed is not None:
            train += f" --seed {seed}"
        commands.append(f"{train} --out {out}")
        before = out
    return tuple(commands)


#: All commands for each of the bundled weights, in order.
RECIPES = {
    "simulated": (
        SIMULATE_IMAGES,
        SIMULATE_PHOTOMETRY,
        TRAIN.format(hours=3.40),
        _bundle("simulated", "runs/properties"),
        TRAIN_FIRST_HEADS,
        SIMULATE_MORE_PHOTOMETRY,
        TRAIN_SECOND_HEADS,
        _bundle("simulated", "--photometry runs/heads-second"),
        TRAIN_HEADS.format(hours=0.58),
        _bundle("simulated", "--photometry runs/heads"),
        TRAIN_IMAGE_HEADS,
        JOIN_HEADS,
        SIMULATE_MORE_IMAGES,
        TRAIN_IMAGES.format(steps=1400),
        _bundle("simulated", "--images runs/image-network"),
        SIMULATE_SEDS,
        TRAIN_ANY_FILTERS.format(hours=0.58),
        SIMULATE_IMAGES_WITH_SEDS,
        WITH_ENCODER,
        TRAIN_ANY_IMAGE_HEADS.format(steps=1400),
        JOIN_ANY_FILTERS,
        _bundle("simulated", "--any-filters runs/any-both"),
        f"python benchmarks/finetuning.py recalibration FOLDER --model {BASE} --out "
        "results/simulated",
        "python recipes/bundle.py simulated --results results/simulated",
    ),
    "deep": (
        SIMULATE_DEEP,
        TRAIN_DEEP.format(hours=0.45),
        _bundle("deep", "runs/deep"),
    ),
    "properties": (
        SIMULATE_SEDS,
        SIMULATE_FAINT,
        TRAIN_FAINT.format(hours=0.28),
        SIMULATE_IMAGES_WITH_SEDS,
        FINETUNE_IMAGE_HEADS,
        FINETUNE_ON_IMAGES,
        FINETUNE.format(heads=N_HEADS),
        *(FINETUNE_FOLD.format(fold=k) for k in range(N_FOLDS)),
        CALIBRATE,
        _bundle("properties", "runs/calibrated"),
        "python benchmarks/real.py FOLDER --folds runs/folds --out results/properties",
        "python recipes/bundle.py properties --results results/properties",
    ),
    "spectra-simulated": (
        *spectra_commands(),
        _bundle("spectra-simulated", "runs/spectra"),
        "python benchmarks/spectra.py ranges --model astrogenspec-spectra-simulated "
        "--out results/spectra-simulated",
        "python recipes/bundle.py spectra-simulated --results results/spectra-simulated",
    ),
    "spectra": (
        SIMULATE_FOR_SPECTRA,
        REAL_SPECTRA,
        FINETUNE_SPECTRA,
        *FINETUNE_SPECTRA_FOLDS,
        CALIBRATE_SPECTRA,
        _bundle("spectra", "runs/spectra-folds/fold-0", "--results results/spectra"),
        "python benchmarks/spectra.py real FOLDER --out results/spectra",
        "python recipes/bundle.py spectra --results results/spectra",
    ),
}
