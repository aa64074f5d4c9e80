"""Trains a small model into model/, to try the endpoint with before a training project has one.

    python3 sample_model.py
"""

import argparse
import json
import pickle
from pathlib import Path

import sklearn
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def write_model(folder):
    """A classifier of the wines that scikit-learn ships, in the files that inference_handler.py reads."""
    data = load_wine()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data.data, data.target)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    description = {
        "classes": [str(name) for name in data.target_names],
        "features": data.data.shape[1],
        "scikit_learn": sklearn.__version__,
    }
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model"), help="folder for the model")
    write_model(parser.parse_args().model)
