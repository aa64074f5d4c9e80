"""Answers of the model that train_sklearn.py writes. `serve` calls these four functions, which have the names of SageMaker's toolkits.

A request is text/csv with one wine a line, or application/json: {"instances": [[...], ...]}. The answer is application/json.
"""

import json
import pickle
from pathlib import Path


def model_fn(folder):
    """Loads the model, once."""
    return pickle.loads((Path(folder) / "model.pkl").read_bytes())


def input_fn(body, content_type):
    """Reads a request. A ValueError tells the client what is wrong with it."""
    try:
        rows = [[float(value) for value in row] for row in read_rows(body, content_type)]
    except (ArithmeticError, RecursionError, TypeError) as error:
        raise ValueError(f"the request cannot be read: {error}") from error
    if not all(abs(value) <= 1e30 for row in rows for value in row):  # the model's sums overflow far above it
        raise ValueError("the request has a value that is not finite, or beyond 1e30")
    return rows


def read_rows(body, content_type):
    if content_type == "text/csv":
        return [line.split(",") for line in body.decode().splitlines() if line]
    if content_type == "application/json":
        request = json.loads(body)
        if isinstance(request, dict) and isinstance(request.get("instances"), list):
            return request["instances"]
        raise ValueError('the request has no list "instances"')
    raise ValueError(f"the content type is {content_type}, not text/csv or application/json")


def predict_fn(rows, model):
    """Asks the model."""
    return {"predictions": model.predict(rows).tolist(), "probabilities": model.predict_proba(rows).tolist()}


def output_fn(prediction):
    """Writes the answer: its body and its content type."""
    return json.dumps(prediction).encode(), "application/json"
