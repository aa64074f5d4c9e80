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
    if content_type == "text/csv":
        return [[float(value) for value in line.split(",")] for line in body.decode().splitlines() if line]
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
