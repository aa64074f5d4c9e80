"""Writes customers.csv, which the training reads: customers of a shop that does not exist, the same ones in each run.

    python3 data/make_customers.py
"""

import math
import random
from pathlib import Path

CUSTOMERS = 480
SEED = 7
HEADER = "visits,basket_eur,days_since_last,returns,has_card,next"


def make_rows():
    """Lines of CSV: five numbers about a customer, and whether that customer `leaves` or `stays`."""
    # `random()` alone gives the same numbers in each version of Python.
    chance = random.Random(SEED).random
    for _ in range(CUSTOMERS):
        visits = int(1 + 24 * chance() ** 2)
        basket = round(8 + 140 * chance() ** 2, 2)
        days = int(1 + 120 * chance())
        returns = int(6 * chance() ** 3)
        has_card = int(chance() < 0.4)
        pull = 0.11 * (days - 80) - 0.22 * (visits - 8) + 0.9 * returns - 1.6 * has_card - 0.012 * (basket - 50)
        leaves = chance() < 1 / (1 + math.exp(-pull))
        yield f"{visits},{basket},{days},{returns},{has_card},{'leaves' if leaves else 'stays'}"


def make_file(file):
    file.write_text("\n".join([HEADER, *make_rows()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_file(Path(__file__).with_name("customers.csv"))
