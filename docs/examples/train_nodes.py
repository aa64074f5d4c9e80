"""Trains one line on several nodes with Python's standard library alone: each node has a part of the points, and in every step the nodes
add up their gradients and their loss (an all-reduce over plain sockets).

The nodes find each other by MASTER_ADDR, MASTER_PORT, NNODES and NODE_RANK, which every node of a job has, so on one node the same script
runs alone. The loss does not depend on the number of nodes.
"""

import json
import os
import random
import socket
import time

RANK, NODES = int(os.environ.get("NODE_RANK", "0")), int(os.environ.get("NNODES", "1"))
ADDRESS = os.environ.get("MASTER_ADDR", "localhost"), int(os.environ.get("MASTER_PORT", "7777"))
STEPS, RATE, PATIENCE = 25, 0.4, 600


class Nodes:
    """The connections of the first node to all others, and of each other node to the first."""

    def __init__(self):
        self.files = {}
        if NODES == 1:
            return
        if RANK > 0:
            self.files[0] = self.connect().makefile("rw")
            self.send(0, RANK)
            return
        with socket.create_server(ADDRESS) as server:
            server.settimeout(PATIENCE)
            for _ in range(1, NODES):
                connection = server.accept()[0]
                connection.settimeout(PATIENCE)
                file = connection.makefile("rw")
                self.files[json.loads(file.readline())] = file

    @staticmethod
    def connect():
        """The first node may start later, and SageMaker may not know its name at once."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(ADDRESS, timeout=PATIENCE)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def send(self, rank, value):
        self.files[rank].write(json.dumps(value) + "\n")
        self.files[rank].flush()

    def sum(self, values):
        """The sum of each value over all nodes, on all nodes."""
        if RANK > 0:
            self.send(0, values)
            return json.loads(self.files[0].readline())
        for rank in sorted(self.files):
            others = json.loads(self.files[rank].readline())
            values = [value + other for value, other in zip(values, others)]
        for rank in self.files:
            self.send(rank, values)
        return values


random.seed(0)
points = [(x, 3 * x - 2 + random.gauss(0, 0.1)) for x in (random.uniform(-1, 1) for _ in range(1000))]
mine = points[RANK::NODES]
nodes = Nodes()
slope = intercept = loss = 0.0
for _ in range(STEPS):
    errors = [(slope * x + intercept - y, x) for x, y in mine]
    parts = [sum(error * x for error, x in errors), sum(error for error, _ in errors), sum(error**2 for error, _ in errors)]
    by_slope, by_intercept, squares = nodes.sum(parts)
    slope -= RATE * 2 * by_slope / len(points)
    intercept -= RATE * 2 * by_intercept / len(points)
    loss = squares / len(points)
print(f"loss {loss:.6f}", flush=True)
