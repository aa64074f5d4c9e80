# The policies: those that `policy iam` makes of the sample file, with the names of this account in place of the sample's. A test holds
# the result against what `policy iam` makes of the operator's file of this module.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id
  account   = data.aws_caller_identity.current.account_id

  roles     = { for role in ["host", "creator", "training"] : role => "${var.name}-${role}" }
  role_arns = { for role, name in local.roles : role => "arn:${local.partition}:iam::${local.account}:role/${name}" }

  # `**` of the operator's file is `*` in IAM, whose `*` passes slashes.
  repository_arns = distinct([
    for name in var.image_repositories : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${replace(name, "**", "*")}"
  ])
  subnet_arns = [for id in local.training_subnet_ids : "arn:${local.partition}:ec2:${local.region}:${local.account}:subnet/${id}"]

  # Services call KMS by their names in the region; in China these have two forms.
  via = local.partition == "aws-cn" ? "\"$1.${local.region}.amazonaws.com.cn\",\"$1.${local.region}.amazonaws.com\"" : "\"$1.${local.region}.amazonaws.com\""

  sample_folder = "${path.module}/../../iam/creator-in-vpc"
  # One line without white space, so that lists have one form.
  sample = { for file in fileset(local.sample_folder, "*.json") : file => jsonencode(jsondecode(file("${local.sample_folder}/${file}"))) }

  # Lists and whole ARNs of the sample.
  with_lists = {
    for file, text in local.sample : file => replace(replace(replace(replace(replace(
      text,
      "[\"ml.m5.large\",\"ml.m5.xlarge\",\"ml.g5.xlarge\"]", jsonencode(var.instance_types)),
      "[\"subnet-0a\",\"subnet-0b\"]", jsonencode(local.training_subnet_ids)),
      "\"arn:aws:ec2:eu-west-1:123456789012:subnet/subnet-0a\",\"arn:aws:ec2:eu-west-1:123456789012:subnet/subnet-0b\"", trim(jsonencode(local.subnet_arns), "[]")),
      "\"arn:aws:ecr:eu-west-1:123456789012:repository/*\"", jsonencode(local.repository_arns)),
      "\"86400\"", "\"${var.max_runtime_seconds}\"",
    )
  }
  with_names = {
    for file, text in local.with_lists : file => replace(replace(replace(replace(replace(replace(replace(replace(
      text,
      "example-ci-sagemaker/sagemaker-executor/", "${var.bucket}/${var.bucket_prefix}/"),
      "\"sagemaker-executor/", "\"${var.bucket_prefix}/"),
      "example-ci-sagemaker", var.bucket),
      "role/ci-runner-host", "role/${local.roles.host}"),
      "role/ci-creator", "role/${local.roles.creator}"),
      "role/ci-training", "role/${local.roles.training}"),
      "sg-0a", local.training_security_group_id),
      "vpce-0a", local.s3_endpoint_id,
    )
  }
  made_policies = {
    for file, text in local.with_names : file => replace(replace(replace(replace(replace(replace(
      text,
      "/\"kms:ViaService\":(\"[^\"]+\")/", "\"kms:ViaService\":[$1]"),
      "/\"([a-z0-9]+)\\.eu-west-1\\.amazonaws\\.com\"/", local.via),
      "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", aws_kms_key.storage.arn),
      "arn:aws:", "arn:${local.partition}:"),
      "eu-west-1", local.region),
      "123456789012", local.account,
    )
  }
  policies = var.policies == null ? local.made_policies : var.policies
}

resource "aws_iam_role" "host" {
  name        = local.roles.host
  description = "Runner hosts of sagemaker-executor"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "InstancesAssumeTheRole"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${data.aws_partition.current.dns_suffix}" }
    }]
  })
  tags = var.tags
}

resource "aws_iam_role" "creator" {
  name               = local.roles.creator
  description        = "Creates the training jobs of sagemaker-executor, for each job with its tags"
  assume_role_policy = local.policies["creator-trust.json"]
  tags               = var.tags

  # IAM refuses a trust in a role that is not there.
  depends_on = [aws_iam_role.host]
}

resource "aws_iam_role" "training" {
  name               = local.roles.training
  description        = "Training jobs of sagemaker-executor"
  assume_role_policy = local.policies["training-job-trust.json"]
  tags               = var.tags
}

resource "aws_iam_role_policy" "host" {
  name   = "runner-host"
  role   = aws_iam_role.host.id
  policy = local.policies["runner-host.json"]
}

resource "aws_iam_role_policy" "creator" {
  name   = "creator"
  role   = aws_iam_role.creator.id
  policy = local.policies["creator.json"]
}

resource "aws_iam_role_policy" "training" {
  name   = "training-job"
  role   = aws_iam_role.training.id
  policy = local.policies["training-job.json"]
}

# The tokens of the runners, and the binaries where they are in S3.
locals {
  token_actions = {
    ssm            = "ssm:GetParameter"
    secretsmanager = "secretsmanager:GetSecretValue"
  }
  token_arns = {
    for service, action in local.token_actions : service => sort(distinct([
      for runner in values(var.runners) : runner.token_arn if split(":", runner.token_arn)[2] == service
    ]))
  }
  token_keys = sort(distinct([for runner in values(var.runners) : runner.token_kms_key_arn if runner.token_kms_key_arn != null]))
  start_statements = concat(
    [for service, arns in local.token_arns : { Sid = "TokensIn${title(service)}", Effect = "Allow", Action = local.token_actions[service], Resource = arns } if length(arns) > 0],
    [for keys in [local.token_keys] : { Sid = "KeysOfTokens", Effect = "Allow", Action = "kms:Decrypt", Resource = keys } if length(keys) > 0],
    [for bucket in [var.download_bucket] : { Sid = "Binaries", Effect = "Allow", Action = "s3:GetObject", Resource = ["arn:${local.partition}:s3:::${bucket}/*"] } if bucket != null],
  )
}

resource "aws_iam_role_policy" "start" {
  name   = "start-of-the-host"
  role   = aws_iam_role.host.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.start_statements })
}

resource "aws_iam_instance_profile" "host" {
  name = local.roles.host
  role = aws_iam_role.host.name
  tags = var.tags
}
