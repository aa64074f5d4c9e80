# A given network: endpoints are made there, or found and checked.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com", reverse_dns_prefix = "com.amazonaws" }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_route_table" {
    defaults = { id = "rtb-0123456789abcdef0" }
  }
  mock_data "aws_vpc_endpoint" {
    defaults = {
      id                  = "vpce-0123456789abcdef0"
      prefix_list_id      = "pl-0123456789abcdef0"
      private_dns_enabled = true
      route_table_ids     = ["rtb-0123456789abcdef0"]
      security_group_ids  = ["sg-0123456789abcdef1"]
    }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:111122223333:key/0d6ae7a0-54a9-4896-97c3-fec40d37e663" }
  }
  mock_resource "aws_vpc_endpoint" {
    defaults = { id = "vpce-0123456789abcdef0", prefix_list_id = "pl-0123456789abcdef0" }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::111122223333:instance-profile/mocked" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
}

variables {
  bucket             = "ci-exchange-7"
  gitlab_url         = "https://gitlab.example.com"
  ami_id             = "ami-0123456789abcdef0"
  image_repositories = ["train"]
  executor           = { url = "https://downloads.example.com/e", sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  gitlab_runner      = { url = "https://downloads.example.com/r", sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" }
  runners            = { sagemaker = { token_arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/token" } }
  network            = { vpc_id = "vpc-0123456789abcdef0", host_subnet_ids = ["subnet-0123456789abcdef1"], training_subnet_ids = ["subnet-0123456789abcdef2"] }
}

run "endpoints_are_made" {
  assert {
    condition     = output.vpc_id == "vpc-0123456789abcdef0" && length(aws_vpc.own) == 0 && length(aws_nat_gateway.own) == 0 && length(aws_vpc_endpoint.interfaces) == 8
    error_message = "The given network is not used."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.nodes) == 0
    error_message = "Something comes into a training job."
  }
}

run "endpoints_are_found" {
  variables {
    network = { vpc_id = "vpc-0123456789abcdef0", host_subnet_ids = ["subnet-0123456789abcdef1"], training_subnet_ids = ["subnet-0123456789abcdef2"], endpoints = false }
  }

  assert {
    condition     = length(aws_vpc_endpoint.interfaces) == 0 && aws_vpc_security_group_egress_rule.endpoints["training"].referenced_security_group_id == "sg-0123456789abcdef1"
    error_message = "The endpoints of the network are not used."
  }
}

run "subnet_without_a_way_to_s3" {
  command = plan

  variables {
    network = { vpc_id = "vpc-0123456789abcdef0", host_subnet_ids = ["subnet-0123456789abcdef1"], training_subnet_ids = ["subnet-0123456789abcdef2"], endpoints = false }
  }

  override_data {
    target = data.aws_vpc_endpoint.s3[0]
    values = { id = "vpce-0123456789abcdef0", prefix_list_id = "pl-0123456789abcdef0", route_table_ids = [] }
  }

  expect_failures = [data.aws_vpc_endpoint.s3]
}

run "endpoint_without_private_names" {
  command = plan

  variables {
    network = { vpc_id = "vpc-0123456789abcdef0", host_subnet_ids = ["subnet-0123456789abcdef1"], training_subnet_ids = ["subnet-0123456789abcdef2"], endpoints = false }
  }

  override_data {
    target = data.aws_vpc_endpoint.interfaces["kms"]
    values = { id = "vpce-0123456789abcdef1", private_dns_enabled = false, security_group_ids = ["sg-0123456789abcdef1"] }
  }

  expect_failures = [data.aws_vpc_endpoint.interfaces["kms"]]
}

run "token_in_an_input" {
  command = plan

  variables {
    runners = { sagemaker = { token_arn = "glrt-0123456789" } }
  }

  expect_failures = [var.runners]
}

run "file_without_policies" {
  command = plan

  variables {
    operator_file = "[aws]"
  }

  expect_failures = [aws_launch_template.host]
}
