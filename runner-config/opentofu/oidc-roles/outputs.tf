# Values for the CI variables.

output "provider_arn" {
  description = "ARN of the identity provider."
  value       = local.provider_arn
}

output "role_arns" {
  description = "Role of each environment: the CI variable AWS_ROLE_ARN with that environment as scope."
  value       = { for name, role in aws_iam_role.environment : name => role.arn }
}

output "policies" {
  description = "Policy of each command, by ENVIRONMENT/COMMAND."
  value       = { for key, statements in local.statements : key => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}
