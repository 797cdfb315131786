"""What the harness runs: flags for the training script."""
# ruff: noqa

import subprocess
import sys

TRAIN_ARGS = [
    "--depth", "12",
    "--head-dim", "128",
    "--window-pattern", "SSSL",
    "--target-param-data-ratio", "105",
    "--device-batch-size", "16",
    "--total-batch-size", "524288",
    "--matrix-lr", "0.02",
    "--embedding-lr", "0.3",
    "--weight-decay", "0.28",
    "--warmup-steps", "40",
    "--warmdown-ratio", "0.65",
    "--final-lr-frac", "0.05",
    "--core-metric-every", "999999",
    "--eval-every", "250",
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "base_train", *TRAIN_ARGS]))
