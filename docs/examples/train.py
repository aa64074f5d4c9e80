"""A small real training: fits a line to noisy points by gradient descent, with Python's standard library alone.

Prints the loss of each epoch, and leaves the model and its metrics in model/ beside itself.
"""

import json
import os
import pathlib
import random
import time

SLOPE, INTERCEPT, NOISE = 3.0, -2.0, 0.1
EPOCHS, RATE = 5, 0.4

random.seed(0)
xs = [random.uniform(-1, 1) for _ in range(1000)]
ys = [SLOPE * x + INTERCEPT + random.gauss(0, NOISE) for x in xs]
points = list(zip(xs, ys))
train, test = points[:800], points[800:]


def loss(points, slope, intercept):
    """The mean squared error."""
    return sum((slope * x + intercept - y) ** 2 for x, y in points) / len(points)


slope = intercept = 0.0
history = []
for epoch in range(1, EPOCHS + 1):
    for _ in range(5):
        errors = [(slope * x + intercept - y, x) for x, y in train]
        slope -= RATE * 2 * sum(error * x for error, x in errors) / len(train)
        intercept -= RATE * 2 * sum(error for error, _ in errors) / len(train)
    history.append(loss(train, slope, intercept))
    print(f"epoch {epoch} of {EPOCHS}, loss {history[-1]:.4f}", flush=True)
    time.sleep(0.5)  # So that the lines are seen to arrive one by one.

test_loss = loss(test, slope, intercept)
folder = pathlib.Path(__file__).parent / "model"
folder.mkdir(exist_ok=True)
(folder / "model.json").write_text(json.dumps({"slope": slope, "intercept": intercept}) + "\n")
(folder / "metrics.json").write_text(json.dumps({"loss": history, "test_loss": test_loss}) + "\n")
print(f"test loss {test_loss:.4f}: y = {slope:.2f} x + {intercept:.2f}")
print(f"trained by {os.environ.get('TRAINING_JOB_NAME', 'no training job')}")
