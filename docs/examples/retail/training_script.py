"""Learns from data/customers.csv which customers of a shop leave it. Writes model/ and metrics.json.

    python3 training_script.py
"""

import csv
import json
import pickle
from pathlib import Path

import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

DATA = Path(__file__).with_name("data") / "customers.csv"
# Answers of the endpoint, in the order of the classes 0 and 1.
CLASSES = ["stays", "leaves"]
# Change this number, and see what becomes of the metrics: smaller values make a simpler model.
REGULARIZATION = 1.0
TEST_SHARE = 0.25
# The same split and the same model in each run.
SEED = 0


def read_customers(file=DATA):
    """Rows of numbers, and for each row 1 for a customer who leaves, else 0."""
    with open(file, newline="", encoding="utf-8") as lines:
        customers = list(csv.DictReader(lines))
    leaves = [int(customer.pop("next") == "leaves") for customer in customers]
    return [[float(value) for value in customer.values()] for customer in customers], leaves


def train(rows, leaves):
    """A fitted model."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=1000))
    return model.fit(rows, leaves)


def measure(model, rows, leaves):
    """Metrics of the model on customers that it has not seen."""
    found = model.predict(rows)
    return {
        "accuracy": float(accuracy_score(leaves, found)),
        "f1": float(f1_score(leaves, found, zero_division=0)),
        "confusion_matrix": confusion_matrix(leaves, found, labels=[0, 1]).tolist(),
        "classes": CLASSES,
    }


def write_model(folder, model, features):
    """The files that inference_handler.py reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    description = {"classes": CLASSES, "features": features, "scikit_learn": sklearn.__version__}
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main():
    rows, leaves = read_customers()
    train_rows, test_rows, train_leaves, test_leaves = train_test_split(
        rows, leaves, test_size=TEST_SHARE, random_state=SEED, stratify=leaves
    )
    model = train(train_rows, train_leaves)
    metrics = measure(model, test_rows, test_leaves)
    write_model(Path("model"), model, len(rows[0]))
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"Trained on {len(train_rows)} customers, measured on {len(test_rows)}")
    print(f"accuracy: {metrics['accuracy']:.4f}")
    print(f"f1: {metrics['f1']:.4f}")


if __name__ == "__main__":
    main()
