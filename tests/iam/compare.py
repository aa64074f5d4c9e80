"""Asks moto for the decisions of tests/fixtures/iam-decisions.json that it can take, and prints the differences.

    pip install moto==5.2.1
    python3 tests/iam/compare.py

moto knows identity-based policies without conditions and variables. It fails when the differences are other ones than the table
names under "others".
"""

import json
import re
import sys
from pathlib import Path

from moto.iam.access_control import IAMPolicy, PermissionResult

NAME = "moto"
WORDS = {PermissionResult.PERMITTED: "allowed", PermissionResult.DENIED: "explicit", PermissionResult.NEUTRAL: "implicit"}


def can_decide(decision):
    policies = decision["policies"]
    text = json.dumps(policies)
    return set(policies) == {"identity"} and policies["identity"] and '"Condition"' not in text and "${" not in text


def answer(decision):
    document = json.dumps({"Version": "2012-10-17", "Statement": decision["policies"]["identity"]})
    try:
        found = IAMPolicy({"policy_document": document}).is_action_permitted(decision["action"], decision["resource"])
    except (KeyError, re.error) as error:
        return f"no answer: {error}"
    return WORDS[found]


def main():
    table = json.loads((Path(__file__).parent.parent / "fixtures/iam-decisions.json").read_text())
    asked = [decision for decision in table["decisions"] if can_decide(decision)]
    same = failed = 0
    for decision in asked:
        found, expected = answer(decision), decision["expected"]
        reason = decision.get("others", {}).get(NAME)
        equal = found == expected.split()[0]
        same += equal
        failed += equal == (reason is not None)
        if not equal:
            print(f"{decision['name']}: {found}, not {expected}" + (f" ({reason})" if reason else ""))
    print(f"{same} of {len(asked)} decisions are the same; {failed} are not as the table says.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
