"""Predict with the saved weights."""

import argparse
from pathlib import Path

import numpy as np
from model import features

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path, required=True)
parser.add_argument("--input", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
options = parser.parse_args()
np.save(options.output, features(np.load(options.input)) @ np.load(options.model / "weights.npy"))
