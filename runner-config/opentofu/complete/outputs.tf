# Values for the manifest, the operator's file and GitLab's variables.

output "manifest_environments" {
  description = "`environments` of the manifest, as one JSON object."
  value = jsonencode({
    for name, environment in var.environments : name => merge(
      {
        region  = local.region
        account = local.account
        role    = aws_iam_role.serving.arn
        bucket  = module.storage.bucket
        key     = module.storage.kms_key_arn
      },
      environment.prefix == "" ? {} : { prefix = environment.prefix },
    )
  })
}

output "ci_variables" {
  description = "CI/CD variables by their scope in GitLab: the name of the environment, with `/*` where it is that of every branch."
  value = {
    for name, environment in var.environments : (environment.any_branch ? "${name}/*" : name) => merge(
      {
        AWS_ROLE_ARN      = module.oidc_roles.role_arns[name]
        AWS_REGION        = local.region
        AWS_ACCOUNT_ID    = local.account
        MODEL_BUCKET      = module.storage.bucket
        ENDPOINT_ROLE_ARN = aws_iam_role.serving.arn
      },
      environment.model_group == null ? {} : { MODEL_GROUP = environment.model_group },
    )
  }
}

output "repository_urls" {
  description = "Addresses of the image repositories by name."
  value       = module.registry.repository_urls
}

output "operator_file" {
  description = "Text of the operator's file on the runner host."
  value       = module.runner.operator_file
}

output "policies" {
  description = "Policies of the runner by file name, as `policy iam` names them."
  value       = module.runner.policies
}

output "command_policies" {
  description = "Policies of the environments, by ENVIRONMENT/COMMAND."
  value       = module.oidc_roles.policies
}

output "set_up" {
  description = "Script that sets the runner host up."
  value       = module.runner.set_up
}

output "runner_config" {
  description = "config.toml of GitLab Runner, with a placeholder for each token."
  value       = module.runner.runner_config
}

output "alarm_topic_arn" {
  description = "Topic of the alarms."
  value       = module.alarms.topic_arn
}
