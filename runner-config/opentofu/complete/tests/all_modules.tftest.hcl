# All modules with a provider that only pretends, in a commercial region: `terraform test` (1.7 or later), `tofu test` (1.8 or later).
# Mocks take no variables: the suite of the project runs this file again with the names of GovCloud in it.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com", reverse_dns_prefix = "com.amazonaws" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-west-1", name = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:111122223333:key/0d6ae7a0-54a9-4896-97c3-fec40d37e663", key_id = "0d6ae7a0-54a9-4896-97c3-fec40d37e663" }
  }
  mock_resource "aws_vpc_endpoint" {
    defaults = { id = "vpce-0123456789abcdef0", prefix_list_id = "pl-0123456789abcdef0" }
  }
  mock_resource "aws_subnet" {
    defaults = { id = "subnet-0123456789abcdef0" }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-0123456789abcdef0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::111122223333:policy/mocked" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::111122223333:instance-profile/mocked" }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::111122223333:oidc-provider/gitlab.example.com" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { id = "mocked", arn = "arn:aws:s3:::mocked" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:111122223333:mocked" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-west-1:111122223333:mocked" }
  }
  mock_resource "aws_cloudwatch_event_rule" {
    defaults = { arn = "arn:aws:events:eu-west-1:111122223333:rule/mocked" }
  }
  mock_resource "aws_cloudwatch_event_api_destination" {
    defaults = { arn = "arn:aws:events:eu-west-1:111122223333:api-destination/mocked" }
  }
}

variables {
  name       = "ml"
  gitlab_url = "https://gitlab.example.com"

  runner = {
    bucket         = "ci-exchange-7"
    ami_id         = "ami-0123456789abcdef0"
    executor       = { url = "https://downloads.example.com/sagemaker-executor", sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
    gitlab_runner  = { url = "https://downloads.example.com/gitlab-runner", sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" }
    instance_types = ["ml.m5.xlarge", "ml.g5.*"]
    several_nodes  = true
    # One zone, because a mocked provider gives all subnets one id.
    availability_zones = ["eu-west-1a"]
    runners = {
      sagemaker = { token_arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/gitlab/sagemaker" }
      large     = { token_arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:gitlab-large-AbCdEf", output_limit = 65536 }
    }
  }

  model_bucket          = "ci-models-7"
  training_repositories = ["train"]
  serving_repositories  = ["serve"]
  model_groups          = { wine = "Tells wines apart" }
  reader_accounts       = ["444455556666"]

  environments = {
    review = {
      subjects = ["project_path:ml/wine-review"]
      commands = ["validate-connect", "endpoint-deploy", "endpoint-deploy-package", "endpoint-delete", "endpoint-test", "package", "report"]
      prefix   = "candidate"
    }
    production = {
      subjects    = ["project_path:ml/wine:ref_type:branch:ref:main"]
      commands    = ["endpoint-deploy", "endpoint-rollback", "endpoint-status", "endpoint-test", "model-latest", "gate", "model-register", "model-approve"]
      endpoint    = "wine-production"
      model_group = "wine"
      watch       = { latency_p95_ms = 250 }
    }
    # The suite of the project runs these commands under the policies that are made here.
    dev = {
      subjects           = ["project_path:group/project:ref_type:branch:ref:main"]
      commands           = ["endpoint-delete", "endpoint-deploy", "endpoint-rollback", "endpoint-status", "model-register", "prune"]
      prefix             = "team"
      endpoint           = "wine"
      model_group        = "wine"
      image_repositories = ["serve"]
    }
  }

  alarm_emails    = ["ml@example.com"]
  approval_events = { project_id = 42, connection_arn = "arn:aws:events:eu-west-1:111122223333:connection/gitlab/11111111-2222-3333-4444-555555555555" }
  tags            = { Project = "wine" }
}

run "all_modules" {
  assert {
    condition     = strcontains(output.operator_file, "region = \"eu-west-1\"") && strcontains(output.operator_file, "creator_role_arn = \"arn:aws:iam::111122223333:role/ml-runner-creator\"")
    error_message = "The operator's file does not name the region and the creator's role."
  }

  assert {
    condition     = alltrue([for text in values(output.policies) : !strcontains(text, "123456789012") && !strcontains(text, "example-ci") && !strcontains(text, "subnet-0a")])
    error_message = "A policy still has a name of the sample."
  }

  assert {
    condition     = jsondecode(output.manifest_environments).review.prefix == "candidate" && output.ci_variables.production.MODEL_GROUP == "wine"
    error_message = "The outputs for the manifest and the CI variables are not those of the environments."
  }
}
