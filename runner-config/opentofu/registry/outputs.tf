# Values for the manifest, the operator's file and the CI variables.

output "repository_urls" {
  description = "Addresses of the repositories by name, for `image build` and the variables TRAINING_IMAGE and SERVING_IMAGE."
  value       = { for name, repository in aws_ecr_repository.images : name => repository.repository_url }
}

output "model_groups" {
  description = "ARNs of the model package groups by name."
  value       = { for name, group in aws_sagemaker_model_package_group.models : name => group.arn }
}
