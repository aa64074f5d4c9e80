# Bucket of models, metrics, packages and deployments, with its key.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  root      = "arn:${local.partition}:iam::${local.account}:root"
  readers   = [for account in var.reader_accounts : "arn:${local.partition}:iam::${account}:root"]
  # Services call KMS by these names; in China they have two forms.
  s3_names = [for suffix in distinct([data.aws_partition.current.dns_suffix, "amazonaws.com"]) : "s3.${data.aws_region.current.id}.${suffix}"]
  arn      = "arn:${local.partition}:s3:::${var.bucket}"
}

data "aws_iam_policy_document" "key" {
  # The account's own policies give its administrators the key.
  statement {
    sid       = "AccountManagesTheKey"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = [local.root]
    }
  }

  # A role that may read or write an object may use the key for it, as with the key of AWS: the policies of the commands need not name it.
  statement {
    sid       = "ObjectsOfTheAccount"
    actions   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:DescribeKey"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:CallerAccount"
      values   = [local.account]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = local.s3_names
    }
  }

  dynamic "statement" {
    for_each = length(local.readers) > 0 ? [local.readers] : []

    content {
      sid       = "ObjectsOfReaders"
      actions   = ["kms:Decrypt"]
      resources = ["*"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = local.s3_names
      }
    }
  }
}

resource "aws_kms_key" "models" {
  description             = "Models and packages in ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = var.tags
}

resource "aws_s3_bucket" "models" {
  bucket        = var.bucket
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_versioning" "models" {
  bucket = aws_s3_bucket.models.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "models" {
  bucket                  = aws_s3_bucket.models.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "models" {
  bucket = aws_s3_bucket.models.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "models" {
  bucket = aws_s3_bucket.models.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.models.arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "models" {
  bucket = aws_s3_bucket.models.id

  # Not `candidate/deployments/`: the commands of endpoints need every record of an endpoint for as long as it lives.
  dynamic "rule" {
    for_each = toset(["asynchronous", "metrics", "models", "packages", "tests"])

    content {
      id     = "candidate-${rule.key}"
      status = "Enabled"

      filter {
        prefix = "candidate/${rule.key}/"
      }

      expiration {
        days = var.candidate_days
      }
    }
  }

  rule {
    id     = "old-versions-and-broken-uploads"
    status = "Enabled"

    filter {
      prefix = ""
    }

    expiration {
      expired_object_delete_marker = true
    }

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # Rules about old versions need them.
  depends_on = [aws_s3_bucket_versioning.models]
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "NoPlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.arn, "${local.arn}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = length(local.readers) > 0 ? [local.readers] : []

    content {
      sid       = "ReadersReadModelsAndPackages"
      actions   = ["s3:GetObject"]
      resources = [for folder in ["models", "packages", "metrics"] : "${local.arn}/${folder}/*"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }

  dynamic "statement" {
    for_each = length(local.readers) > 0 ? [local.readers] : []

    content {
      sid       = "ReadersTellAbsentObjects"
      actions   = ["s3:ListBucket"]
      resources = [local.arn]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_s3_bucket_policy" "models" {
  bucket = aws_s3_bucket.models.id
  policy = data.aws_iam_policy_document.bucket.json

  # Both change the bucket's permissions, which S3 does one after the other.
  depends_on = [aws_s3_bucket_public_access_block.models]
}
