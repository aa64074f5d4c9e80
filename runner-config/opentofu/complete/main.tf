# All modules in one account and region.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

module "runner" {
  source = "../runner"

  name                = "${var.name}-runner"
  gitlab_url          = var.gitlab_url
  bucket              = var.runner.bucket
  ami_id              = var.runner.ami_id
  executor            = var.runner.executor
  gitlab_runner       = var.runner.gitlab_runner
  runners             = var.runner.runners
  download_bucket     = var.runner.download_bucket
  instance_type       = var.runner.instance_type
  instance_types      = var.runner.instance_types
  concurrent          = var.runner.concurrent
  max_runtime_seconds = var.runner.max_runtime_seconds
  several_nodes       = var.runner.several_nodes
  availability_zones  = var.runner.availability_zones
  vpc_cidr            = var.runner.vpc_cidr
  internet            = var.runner.internet
  egress              = var.runner.egress
  network             = var.runner.network
  training_log_group  = var.runner.training_log_group
  image_repositories  = sort(var.training_repositories)
  log_retention_days  = var.log_retention_days
  force_destroy       = var.force_destroy
  tags                = var.tags
}

module "storage" {
  source = "../storage"

  bucket          = var.model_bucket
  reader_accounts = var.reader_accounts
  force_destroy   = var.force_destroy
  tags            = var.tags
}

module "registry" {
  source = "../registry"

  repositories    = setunion(var.training_repositories, var.serving_repositories)
  model_groups    = var.model_groups
  reader_accounts = var.reader_accounts
  force_delete    = var.force_destroy
  tags            = var.tags
}

module "oidc_roles" {
  source = "../oidc-roles"

  name         = "${var.name}-jobs"
  gitlab_url   = coalesce(var.oidc_issuer, var.gitlab_url)
  provider_arn = var.oidc_provider_arn
  tags         = var.tags

  environments = {
    for name, environment in var.environments : name => {
      subjects     = environment.subjects
      commands     = environment.commands
      bucket       = var.model_bucket
      prefix       = environment.prefix
      endpoint     = environment.endpoint
      model_group  = environment.model_group
      serving_role = local.serving_role

      image_repositories = environment.image_repositories
      base_repositories  = environment.base_repositories
      build_role         = environment.build_role
      build_projects     = environment.build_projects
      token_secret       = environment.token_secret
      any_branch         = environment.any_branch
    }
  }
}

module "alarms" {
  source = "../alarms"

  name               = var.name
  endpoints          = { for name, environment in var.environments : environment.endpoint => environment.watch if environment.watch != null }
  runner_group       = module.runner.autoscaling_group
  watches_runner     = true
  emails             = var.alarm_emails
  log_retention_days = var.log_retention_days
  tags               = var.tags
}

module "approval_events" {
  source = "../approval-events"
  count  = var.approval_events == null ? 0 : 1

  name           = var.name
  model_groups   = sort(keys(var.model_groups))
  gitlab_url     = var.gitlab_url
  project_id     = try(var.approval_events.project_id, null)
  ref            = try(var.approval_events.ref, null)
  connection_arn = try(var.approval_events.connection_arn, null)
  tags           = var.tags
}
