# Values for the manifest.

output "bucket" {
  description = "Name of the bucket, `bucket` of the manifest's environments."
  value       = aws_s3_bucket.models.id
}

output "bucket_arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.models.arn
}

output "kms_key_arn" {
  description = "ARN of the bucket's key, `key` of the manifest's environments."
  value       = aws_kms_key.models.arn
}
