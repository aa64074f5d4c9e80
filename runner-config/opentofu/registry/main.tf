# Repositories of images, and groups of model versions.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  readers = [for account in var.reader_accounts : "arn:${data.aws_partition.current.partition}:iam::${account}:root"]
  prefix  = "arn:${data.aws_partition.current.partition}:sagemaker:${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"
}

resource "aws_ecr_repository" "images" {
  for_each = var.repositories

  name = each.key
  # A tag stays with its image, so that nobody replaces what was tested.
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.force_delete
  tags                 = var.tags

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "AES256"
  }
}

resource "aws_ecr_lifecycle_policy" "images" {
  for_each = aws_ecr_repository.images

  repository = each.value.name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "images without a tag"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = var.untagged_days }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "old builds"
        selection    = { tagStatus = "tagged", tagPrefixList = ["build-"], countType = "imageCountMoreThan", countNumber = var.kept_builds }
        action       = { type = "expire" }
      },
    ]
  })
}

data "aws_iam_policy_document" "pull" {
  count = length(local.readers) > 0 ? 1 : 0

  statement {
    sid     = "ReadersPullImages"
    actions = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]

    principals {
      type        = "AWS"
      identifiers = local.readers
    }
  }
}

resource "aws_ecr_repository_policy" "images" {
  for_each = length(local.readers) > 0 ? aws_ecr_repository.images : {}

  repository = each.value.name
  policy     = data.aws_iam_policy_document.pull[0].json
}

resource "aws_sagemaker_model_package_group" "models" {
  for_each = var.model_groups

  model_package_group_name        = each.key
  model_package_group_description = each.value
  tags                            = var.tags
}

data "aws_iam_policy_document" "group" {
  for_each = length(local.readers) > 0 ? var.model_groups : {}

  statement {
    sid       = "ReadersSeeTheGroup"
    actions   = ["sagemaker:DescribeModelPackageGroup"]
    resources = ["${local.prefix}:model-package-group/${each.key}"]

    principals {
      type        = "AWS"
      identifiers = local.readers
    }
  }

  # CreateModel with the ARN of a version asks for no other action there.
  statement {
    sid       = "ReadersDeployVersions"
    actions   = ["sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", "sagemaker:CreateModel"]
    resources = ["${local.prefix}:model-package/${each.key}/*"]

    principals {
      type        = "AWS"
      identifiers = local.readers
    }
  }
}

resource "aws_sagemaker_model_package_group_policy" "models" {
  for_each = data.aws_iam_policy_document.group

  model_package_group_name = aws_sagemaker_model_package_group.models[each.key].model_package_group_name
  resource_policy          = each.value.json
}
