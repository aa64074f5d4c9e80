"""Sends the same requests to the emulator's model registry and to moto's, and prints the differences.

    pip install moto==5.2.1 boto3
    sagemaker-executor emulator --data-dir /tmp/emulator --listen 127.0.0.1:4566
    AWS_SHARED_CREDENTIALS_FILE=/tmp/emulator/credentials python3 tests/registry/compare.py http://127.0.0.1:4566

Times, accounts and the identities of callers are left out. It fails when the differences are other ones than OTHERS names.
"""

import datetime
import json
import sys

import boto3
import botocore.exceptions
from botocore.config import Config
from moto import mock_aws

REGION = "eu-west-1"
ARN = "arn:aws:sagemaker:%s:{account}:" % REGION
GROUP = {"ModelPackageGroupName": "fraud"}
SPECIFICATION = {"Containers": [{"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz"}], "SupportedContentTypes": ["text/csv"]}
VERSION = dict(GROUP, InferenceSpecification=SPECIFICATION, CustomerMetadataProperties={"commit": "abc"}, ModelApprovalStatus="PendingManualApproval")
ONE = ARN + "model-package/fraud/1"

# Name, operation and request of each step; {account} stands for the account.
STEPS = [
    ("absent group", "describe_model_package_group", GROUP),
    ("version of an absent group", "create_model_package", VERSION),
    ("group", "create_model_package_group", dict(GROUP, ModelPackageGroupDescription="finds fraud", Tags=[{"Key": "a", "Value": "b"}])),
    ("group again", "create_model_package_group", GROUP),
    ("group described", "describe_model_package_group", GROUP),
    ("group by ARN", "describe_model_package_group", {"ModelPackageGroupName": ARN + "model-package-group/fraud"}),
    ("groups", "list_model_package_groups", {"NameContains": "rau", "SortBy": "Name"}),
    ("tags of a group", "list_tags", {"ResourceArn": ARN + "model-package-group/fraud"}),
    ("two names", "create_model_package", dict(VERSION, ModelPackageName="alone")),
    ("no name", "create_model_package", {"InferenceSpecification": SPECIFICATION}),
    ("version", "create_model_package", dict(VERSION, ClientToken="one")),
    ("version again", "create_model_package", dict(VERSION, ClientToken="one")),
    ("version described", "describe_model_package", {"ModelPackageName": ONE}),
    ("versions", "list_model_packages", dict(GROUP, SortBy="CreationTime", SortOrder="Ascending", MaxResults=1)),
    ("versions by status", "list_model_packages", dict(GROUP, ModelApprovalStatus="Approved")),
    ("approval", "update_model_package", {"ModelPackageArn": ONE, "ModelApprovalStatus": "Approved", "ApprovalDescription": "by @user"}),
    ("approved version", "describe_model_package", {"ModelPackageName": ONE}),
    ("metadata", "update_model_package", {"ModelPackageArn": ONE, "ModelApprovalStatus": "Approved", "CustomerMetadataProperties": {"pipeline": "7"}}),
    ("changed version", "describe_model_package", {"ModelPackageName": ONE}),
    ("absent version", "describe_model_package", {"ModelPackageName": ARN + "model-package/fraud/9"}),
    ("update of an absent version", "update_model_package", {"ModelPackageArn": ARN + "model-package/fraud/9", "ModelApprovalStatus": "Approved"}),
    ("package", "create_model_package", {"ModelPackageName": "alone", "InferenceSpecification": SPECIFICATION}),
    ("package described", "describe_model_package", {"ModelPackageName": "alone"}),
    ("packages", "list_model_packages", {}),
    ("wrong status", "create_model_package", dict(VERSION, ModelApprovalStatus="Maybe")),
]

# The steps in which moto answers otherwise, each with the reason.
DESCRIPTION = "moto does not show the group's description"
CHECKS = "moto names checks that never ran; AWS shows none for a version"
OTHERS = {
    "group again": "moto replaces the group; AWS refuses it",
    "group described": DESCRIPTION,
    "group by ARN": "moto takes the ARN for a name",
    "groups": DESCRIPTION,
    "tags of a group": "moto does not list them",
    "version again": "moto does not know client tokens",
    "version described": CHECKS,
    "versions": "moto made a second version before, so it has another page",
    "approved version": CHECKS + "; an update without metadata removes what is there",
    "changed version": CHECKS + "; an update replaces all metadata",
    "absent version": "moto's own words",
    "update of an absent version": "moto's own words",
    "package described": CHECKS,
    "wrong status": "moto does not count the errors, and sorts the values in another way",
}

HIDDEN = {"ResponseMetadata", "CreatedBy", "LastModifiedBy"}


def shown(value, account):
    """A reply without what differs at every call."""
    if isinstance(value, dict):
        return {name: shown(one, account) for name, one in value.items() if name not in HIDDEN}
    if isinstance(value, list):
        return [shown(one, account) for one in value]
    if isinstance(value, datetime.datetime):
        return "TIME"
    return value.replace(account, "ACCOUNT") if isinstance(value, str) else value


def filled(value, account):
    return json.loads(json.dumps(value).replace("{account}", account))


def replies(**client):
    session = boto3.Session(region_name=REGION)
    account = session.client("sts", **client).get_caller_identity()["Account"]
    sagemaker = session.client("sagemaker", config=Config(parameter_validation=False), **client)
    found = {}
    for name, operation, request in STEPS:
        try:
            found[name] = shown(getattr(sagemaker, operation)(**filled(request, account)), account)
        except botocore.exceptions.ClientError as error:
            # moto puts the words of boto3 before those of AWS.
            words = error.response["Error"]["Message"].split(" operation: ")[-1]
            found[name] = {"error": error.response["Error"]["Code"], "words": words.replace(account, "ACCOUNT")}
    return found


@mock_aws
def of_moto():
    return replies()


def main():
    ours = replies(endpoint_url=sys.argv[1])
    theirs = of_moto()
    same = failed = 0
    for name, _, _ in STEPS:
        equal, reason = ours[name] == theirs[name], OTHERS.get(name)
        same += equal
        failed += equal == (reason is not None)
        if not equal:
            print("%s: %s\n  emulator: %s\n  moto:     %s" % (name, reason or "NO REASON", json.dumps(ours[name]), json.dumps(theirs[name])))
    print("%d of %d replies are the same; %d are not as OTHERS says." % (same, len(STEPS), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
