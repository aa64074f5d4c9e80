# Key, bucket and log group.

resource "aws_kms_key" "storage" {
  description             = "Objects of sagemaker-executor in ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags
}

# A policy of its own, because it names the key.
resource "aws_kms_key_policy" "storage" {
  key_id = aws_kms_key.storage.id
  policy = local.policies["storage-key-policy.json"]

  # KMS refuses roles that are not there.
  depends_on = [aws_iam_role.host, aws_iam_role.training]
}

resource "aws_s3_bucket" "exchange" {
  bucket        = var.bucket
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "exchange" {
  bucket                  = aws_s3_bucket.exchange.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "exchange" {
  bucket = aws_s3_bucket.exchange.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "exchange" {
  bucket = aws_s3_bucket.exchange.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.storage.arn
    }
  }
}

resource "aws_s3_bucket_policy" "exchange" {
  bucket = aws_s3_bucket.exchange.id
  policy = local.policies["bucket-policy.json"]

  # Both change the bucket's permissions, which S3 does one after the other.
  depends_on = [aws_s3_bucket_public_access_block.exchange]
}

locals {
  lifecycle_rules = jsondecode(replace(file("${path.module}/../../bucket-lifecycle.json"), "\"sagemaker-executor/", "\"${var.bucket_prefix}/")).Rules
}

resource "aws_s3_bucket_lifecycle_configuration" "exchange" {
  bucket = aws_s3_bucket.exchange.id

  dynamic "rule" {
    for_each = local.lifecycle_rules

    content {
      id     = rule.value.ID
      status = rule.value.Status

      filter {
        prefix = rule.value.Filter.Prefix
      }

      expiration {
        days                         = try(rule.value.Expiration.Days, null)
        expired_object_delete_marker = try(rule.value.Expiration.ExpiredObjectDeleteMarker, null)
      }

      dynamic "abort_incomplete_multipart_upload" {
        for_each = try([rule.value.AbortIncompleteMultipartUpload], [])

        content {
          days_after_initiation = abort_incomplete_multipart_upload.value.DaysAfterInitiation
        }
      }

      dynamic "noncurrent_version_expiration" {
        for_each = try([rule.value.NoncurrentVersionExpiration], [])

        content {
          noncurrent_days = noncurrent_version_expiration.value.NoncurrentDays
        }
      }
    }
  }
}

resource "aws_cloudwatch_log_group" "training" {
  count = var.training_log_group ? 1 : 0

  name              = "/aws/sagemaker/TrainingJobs"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}
