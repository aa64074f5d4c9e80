"""Trains a classifier, and writes model/ and metrics.json.

    python3 training_script.py

It trains on the wines that scikit-learn ships: 178 rows with 13 numbers and one of three kinds. `--data FILE` takes rows of your own
instead: CSV without a header, with the class in the last column.
"""

import argparse
import csv
import json
import pickle
from pathlib import Path

import sklearn
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Change this number, and see what becomes of the metrics: smaller values make a simpler model.
REGULARIZATION = 1.0
TEST_SHARE = 0.25
# The same split and the same model in each run.
SEED = 0


def read_data(file=None):
    """Rows of numbers, their classes as numbers, and the names of the classes."""
    if file is None:
        data = load_wine()
        return data.data.tolist(), data.target.tolist(), [str(name) for name in data.target_names]
    with open(file, newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.reader(lines) if row]
    names = sorted({row[-1] for row in rows})
    return [[float(value) for value in row[:-1]] for row in rows], [names.index(row[-1]) for row in rows], names


def train(rows, classes, regularization=REGULARIZATION):
    """A fitted model."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularization, max_iter=1000))
    return model.fit(rows, classes)


def measure(model, rows, classes):
    """Metrics of the model on rows that it has not seen."""
    found = model.predict(rows)
    return {
        "accuracy": float(accuracy_score(classes, found)),
        "f1": float(f1_score(classes, found, average="macro")),
        "confusion_matrix": confusion_matrix(classes, found).tolist(),
    }


def learning_curve(train_rows, train_classes, test_rows, test_classes, regularization=REGULARIZATION):
    """Accuracy of models that were trained on one tenth of the rows, on two tenths, and so on."""
    curve = {"train_accuracy": [], "test_accuracy": []}
    for tenths in range(1, 11):
        count = len(train_rows) * tenths // 10
        rows, classes = train_rows[:count], train_classes[:count]
        if len(set(classes)) < 2:
            continue
        model = train(rows, classes, regularization)
        curve["train_accuracy"].append(float(model.score(rows, classes)))
        curve["test_accuracy"].append(float(model.score(test_rows, test_classes)))
    return curve


def write_model(folder, model, names, features):
    """The files that inference_handler.py of an endpoint project reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    description = {"classes": names, "features": features, "scikit_learn": sklearn.__version__}
    (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV file; the wines of scikit-learn when absent")
    parser.add_argument("--model", type=Path, default=Path("model"), help="folder for the model")
    parser.add_argument("--metrics", type=Path, default=Path("metrics.json"), help="file for the metrics")
    parser.add_argument("--regularization", type=float, default=REGULARIZATION)
    arguments = parser.parse_args()

    rows, classes, names = read_data(arguments.data)
    train_rows, test_rows, train_classes, test_classes = train_test_split(
        rows, classes, test_size=TEST_SHARE, random_state=SEED, stratify=classes
    )
    model = train(train_rows, train_classes, arguments.regularization)
    metrics = measure(model, test_rows, test_classes)
    # For people: `sagemaker-executor report` draws both.
    metrics["classes"] = names
    metrics["learning_curve"] = learning_curve(
        train_rows, train_classes, test_rows, test_classes, arguments.regularization
    )
    write_model(arguments.model, model, names, len(rows[0]))
    arguments.metrics.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"Trained on {len(train_rows)} rows, measured on {len(test_rows)}")
    print(f"accuracy: {metrics['accuracy']:.4f}")
    print(f"f1: {metrics['f1']:.4f}")


if __name__ == "__main__":
    main()
