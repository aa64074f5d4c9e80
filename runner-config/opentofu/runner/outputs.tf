# Values for the operator's file, the manifest and other modules.

output "operator_file" {
  description = "Text of the operator's file on the host. Its policies are those that `sagemaker-executor policy iam` makes of it."
  value       = local.operator_file
}

output "policies" {
  description = "The applied policies by file name, as `policy iam` names them."
  value       = local.policies
}

output "runner_config" {
  description = "config.toml of GitLab Runner, with a placeholder for each token."
  value       = local.runner_config
}

output "set_up" {
  description = "Script that sets the host up when it starts. It has no secret."
  value       = local.set_up
}

output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.exchange.id
}

output "kms_key_arn" {
  description = "ARN of the bucket's key."
  value       = aws_kms_key.storage.arn
}

output "role_arns" {
  description = "ARNs of the roles `host`, `creator` and `training`."
  value       = { host = aws_iam_role.host.arn, creator = aws_iam_role.creator.arn, training = aws_iam_role.training.arn }
}

output "vpc_id" {
  description = "The VPC."
  value       = local.vpc_id
}

output "host_subnet_ids" {
  description = "Subnets of the runner host."
  value       = local.host_subnet_ids
}

output "training_subnet_ids" {
  description = "Subnets of the training jobs."
  value       = local.training_subnet_ids
}

output "host_route_table_id" {
  description = "Route table of the host subnets that the module made, for a way to GitLab of your own. Null with a given network."
  value       = local.own_vpc ? aws_route_table.host[0].id : null
}

output "security_group_ids" {
  description = "Security groups `host` and `training`. Endpoints of your own let both in at port 443."
  value       = local.groups
}

output "autoscaling_group" {
  description = "Name of the group that keeps the host."
  value       = aws_autoscaling_group.host.name
}
