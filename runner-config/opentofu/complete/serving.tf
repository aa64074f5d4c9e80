# The role of the endpoints: what their containers may do, `role` of the manifest's environments.

locals {
  partition    = data.aws_partition.current.partition
  region       = data.aws_region.current.id
  account      = data.aws_caller_identity.current.account_id
  serving_role = "${var.name}-serving"
}

data "aws_iam_policy_document" "serving_trust" {
  statement {
    sid     = "SageMakerAssumesTheRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["sagemaker.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "serving" {
  statement {
    sid       = "ReadModels"
    actions   = ["s3:GetObject"]
    resources = ["${module.storage.bucket_arn}/*"]
  }

  statement {
    sid       = "TellAbsentModels"
    actions   = ["s3:ListBucket"]
    resources = [module.storage.bucket_arn]
  }

  # Inputs and answers of asynchronous endpoints.
  statement {
    sid       = "WriteAnswers"
    actions   = ["s3:PutObject"]
    resources = ["${module.storage.bucket_arn}/asynchronous/*", "${module.storage.bucket_arn}/*/asynchronous/*"]
  }

  statement {
    sid       = "PullImages"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [for name in sort(var.serving_repositories) : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${name}"]
  }

  # ECR has no other resource for it.
  statement {
    sid       = "RegistryLogin"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "OwnLogs"
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/sagemaker/Endpoints/*"]
  }

  # CloudWatch has no other resource for it.
  statement {
    sid       = "InstanceMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["/aws/sagemaker/Endpoints"]
    }
  }
}

resource "aws_iam_role" "serving" {
  name               = local.serving_role
  description        = "Endpoints of models"
  assume_role_policy = data.aws_iam_policy_document.serving_trust.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "serving" {
  name   = "serving"
  role   = aws_iam_role.serving.id
  policy = data.aws_iam_policy_document.serving.json
}
