"""Serves the model as SageMaker asks for it: GET /ping and POST /invocations on port 8080.

    python3 inference_handler.py --model model

A request is CSV (`text/csv`), a row of numbers a line, or JSON (`application/json`): `{"instances": [[1.5, 2], [3, 4]]}`.
The answer is JSON: for each row the class, and the probability of each class.
"""

import argparse
import csv
import json
import pickle
import signal
import threading
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# SageMaker sends no larger request.
LARGEST_REQUEST = 6 * 1024 * 1024
# The model's sums overflow far above it.
LARGEST_VALUE = 1e30


class BadRequest(Exception):
    """The request cannot be answered; the text says why."""


class Model:
    """The model that training_script.py or sample_model.py wrote."""

    def __init__(self, folder):
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.classes = description["classes"]
        self.features = description["features"]
        # A pickle runs code when it is read: serve models of your own alone.
        self.estimator = pickle.loads((folder / "model.pkl").read_bytes())

    def answer(self, rows):
        for number, row in enumerate(rows, start=1):
            if len(row) != self.features:
                raise BadRequest(f"row {number} has {len(row)} numbers; the model takes {self.features}")
        try:
            probabilities = self.estimator.predict_proba(rows).tolist()
        except (ArithmeticError, ValueError) as error:
            raise BadRequest(f"the model cannot take the values: {error}") from error
        best = [row.index(max(row)) for row in probabilities]
        return {
            "predictions": [self.classes[number] for number in best],
            "probabilities": [dict(zip(self.classes, row)) for row in probabilities],
        }


def read_rows(content_type, body):
    """The rows of a request."""
    kind = content_type.split(";")[0].strip().lower()
    try:
        text = body.decode("utf-8")
        if kind == "text/csv":
            rows = [[float(value) for value in row] for row in csv.reader(text.splitlines()) if row]
        elif kind == "application/json":
            rows = [[float(value) for value in row] for row in json.loads(text)["instances"]]
        else:
            raise BadRequest(f"the content type {kind or 'is missing'}: send text/csv or application/json")
    except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError, csv.Error) as error:
        raise BadRequest(f"the request cannot be read: {error}") from error
    if not rows:
        raise BadRequest("the request has no row")
    if not all(abs(value) <= LARGEST_VALUE for row in rows for value in row):
        raise BadRequest(f"the request has a value that is not finite, or beyond {LARGEST_VALUE}")
    return rows


class Handler(BaseHTTPRequestHandler):
    """Answers requests; a connection is kept for the next one."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer go out together, at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    model = None

    def do_GET(self):
        if self.path == "/ping":
            self.reply(HTTPStatus.OK, {"status": "ready"})
        else:
            self.reply(HTTPStatus.NOT_FOUND, {"error": "there are GET /ping and POST /invocations"})

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST_REQUEST:
            self.close_connection = True
            self.reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "a request needs a length of at most 6 MiB"})
            return
        body = self.rfile.read(int(length))
        if self.path != "/invocations":
            self.reply(HTTPStatus.NOT_FOUND, {"error": "there are GET /ping and POST /invocations"})
            return
        try:
            status, answer = HTTPStatus.OK, self.model.answer(read_rows(self.headers.get("Content-Type", ""), body))
        except BadRequest as error:
            status, answer = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        except Exception:
            traceback.print_exc()
            status, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "the model failed; the log of the endpoint says why"}
        self.reply(status, answer)

    def reply(self, status, answer):
        body = json.dumps(answer).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        """One line a request that failed; SageMaker asks for /ping every few seconds."""
        if len(arguments) > 1 and not str(arguments[1]).startswith("2"):
            super().log_message(format, *arguments)


class Server(ThreadingHTTPServer):
    # Connections that wait to be taken.
    request_queue_size = 128


def make_server(folder, address):
    """A server that listens; `serve_forever` answers."""
    handler = type("ModelHandler", (Handler,), {"model": Model(folder)})
    return Server(address, handler)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["serve"], default="serve", help="what SageMaker starts")
    parser.add_argument("--model", type=Path, default=Path("/opt/ml/model"), help="folder with the model")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    server = make_server(arguments.model, ("0.0.0.0", arguments.port))
    # Requests that have begun are answered: `shutdown` waits, so it needs a thread of its own.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"Serving {arguments.model} on port {server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    server.server_close()


if __name__ == "__main__":
    main()
