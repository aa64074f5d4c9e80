"""Trains a classifier of wines on the data set that scikit-learn ships, and writes model/ and metrics.json.

    python train_sklearn.py            a logistic regression, which passes the gate
    python train_sklearn.py --dummy    a model that always says the most frequent wine, which does not
"""

import argparse
import json
import pickle
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--dummy", action="store_true")
arguments = parser.parse_args()

features, wines = load_wine(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(features, wines, test_size=0.25, random_state=0, stratify=wines)
model = DummyClassifier() if arguments.dummy else make_pipeline(StandardScaler(), LogisticRegression())
model.fit(train_x, train_y)
found = model.predict(test_x)

Path("model").mkdir(exist_ok=True)
Path("model/model.pkl").write_bytes(pickle.dumps(model))
metrics = {
    "accuracy": accuracy_score(test_y, found),
    "f1": f1_score(test_y, found, average="macro"),
}
Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
print(*(f"{name}: {value:.4f}" for name, value in metrics.items()), sep="\n")
