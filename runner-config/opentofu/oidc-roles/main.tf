# GitLab as identity provider, and a role for each environment of the manifest, with a policy for each command that its jobs call.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id
  account   = data.aws_caller_identity.current.account_id

  # IAM names the claims of a provider by its address without https://.
  issuer       = trimprefix(var.gitlab_url, "https://")
  provider_arn = var.provider_arn == null ? aws_iam_openid_connect_provider.gitlab[0].arn : var.provider_arn

  shipped  = "${path.module}/../../iam/lifecycle"
  commands = toset([for file in fileset(local.shipped, "*.json") : trimsuffix(file, ".json") if !endswith(file, "-trust.json")])

  pairs = {
    for pair in flatten([
      for name, environment in var.environments : [for command in distinct(environment.commands) : { environment = name, command = command }]
    ]) : "${pair.environment}/${pair.command}" => pair
  }
  # A clean-up looks at all endpoints of the account, to see what they use. What it deletes has the tags of the project.
  scopes  = { for key, pair in local.pairs : key => pair.command == "prune" ? "*" : local.endpoints[pair.environment] }
  of_both = { for key, scope in local.scopes : key => scope == "*" ? "*" : "${scope}-*" }

  # The path of the project is in every subject, before the branch.
  projects = { for name, environment in var.environments : name => try(regex("^project_path:([^:]+)", environment.subjects[0])[0], "no-project") }

  # SageMaker's names have lower-case letters in ARNs.
  endpoints = { for name, environment in var.environments : name => environment.endpoint == null ? "*" : lower(environment.endpoint) }
  groups    = { for name, environment in var.environments : name => environment.model_group == null ? "*" : lower(environment.model_group) }
  of_groups = { for name, group in local.groups : name => group == "*" ? "*" : "${group}/*" }
  prefixes  = { for name, environment in var.environments : name => environment.prefix == "" ? "" : "${environment.prefix}/" }

  # The policies as the project ships them for its sample account, with the names of the project.
  with_project = {
    for key, pair in local.pairs : key => replace(replace(replace(
      try(file("${local.shipped}/${pair.command}.json"), "{\"Statement\": []}"),
      "group/project", local.projects[pair.environment]),
      "example-environment", pair.environment),
      "example-prefix/", "",
    )
  }

  # The same with the names of the environment.
  with_names = {
    for key, pair in local.pairs : key => replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
      local.with_project[key],
      "example-models/deployments/example-endpoint/", "example-models/deployments/${local.endpoints[pair.environment]}/"),
      "/example-models/([a-z*])/", "example-models/${local.prefixes[pair.environment]}$1"),
      "example-models", var.environments[pair.environment].bucket),
      "role/example-serving", "role/${coalesce(var.environments[pair.environment].serving_role, "no-serving-role")}"),
      ":endpoint/*", ":endpoint/${local.scopes[key]}"),
      ":endpoint-config/*", ":endpoint-config/${local.of_both[key]}"),
      ":model/*", ":model/${local.of_both[key]}"),
      ":model-package/example-group/*", ":model-package/${local.of_groups[pair.environment]}"),
      ":model-package/*", ":model-package/${local.of_groups[pair.environment]}"),
      ":model-package-group/*", ":model-package-group/${local.groups[pair.environment]}",
    )
  }
  policies = {
    for key, text in local.with_names : key => replace(replace(replace(
      text,
      "arn:aws:", "arn:${local.partition}:"),
      "eu-west-1", local.region),
      "123456789012", local.account,
    )
  }

  # The statements of each command, for all repositories of the environment.
  statements = {
    for key, text in local.policies : key => [
      for statement in jsondecode(text).Statement : merge(statement, {
        Resource = distinct(flatten([
          for resource in flatten([statement.Resource]) :
          endswith(resource, ":repository/example-image") ? [for name in var.environments[local.pairs[key].environment].image_repositories : replace(resource, "example-image", name)] :
          endswith(resource, ":repository/example-base") ? [for name in var.environments[local.pairs[key].environment].base_repositories : replace(resource, "example-base", name)] :
          [resource]
        ]))
      })
    ]
  }

  # IAM attaches ten policies to a role: the commands with long policies have their own, and three of the others share one.
  long = ["endpoint-delete", "endpoint-deploy", "endpoint-rollback", "prune"]
  parts = {
    for part in flatten([
      for name, environment in var.environments : [
        for commands in concat(
          [for command in sort(distinct(environment.commands)) : [command] if contains(local.long, command)],
          chunklist([for command in sort(distinct(environment.commands)) : command if !contains(local.long, command)], 3),
        ) : { environment = name, commands = commands }
      ]
    ]) : "${part.environment}/${join("+", part.commands)}" => part
  }
  texts = {
    for key, part in local.parts : key => jsonencode({
      Version = "2012-10-17"
      # Sids are unique in a policy of several commands.
      Statement = flatten([
        for command in part.commands : [
          for statement in local.statements["${part.environment}/${command}"] : merge(statement, {
            Sid = length(part.commands) == 1 ? statement.Sid : join("", concat([for word in split("-", command) : title(word)], [statement.Sid]))
          })
        ]
      ])
    })
  }
}

resource "aws_iam_openid_connect_provider" "gitlab" {
  count = var.provider_arn == null ? 1 : 0

  url            = var.gitlab_url
  client_id_list = [var.audience]
  tags           = var.tags
}

data "aws_iam_policy_document" "trust" {
  for_each = var.environments

  statement {
    sid     = "JobsOfTheEnvironment"
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [local.provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = [var.audience]
    }

    condition {
      test     = each.value.any_branch ? "StringLike" : "StringEquals"
      variable = "${local.issuer}:sub"
      values = each.value.any_branch ? distinct([
        for subject in each.value.subjects : "project_path:${regex("^project_path:([^:]+)", subject)[0]}:ref_type:branch:ref:*"
      ]) : each.value.subjects
    }
  }
}

resource "aws_iam_role" "environment" {
  for_each = var.environments

  name                 = "${var.name}-${each.key}"
  description          = "Jobs of GitLab in the environment ${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = each.value.session_hours * 3600
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_policy" "command" {
  for_each = local.parts

  name        = "${var.name}-${each.value.environment}-${join("-", each.value.commands)}"
  description = "sagemaker-executor ${join(", ", each.value.commands)} in ${each.value.environment}"
  policy      = local.texts[each.key]
  tags        = var.tags

  lifecycle {
    precondition {
      condition     = length(setsubtract(each.value.commands, local.commands)) == 0
      error_message = "There is no command ${join(", ", setsubtract(each.value.commands, local.commands))}; there are ${join(", ", local.commands)}."
    }

    precondition {
      condition     = !strcontains(local.texts[each.key], "no-serving-role")
      error_message = "A command of ${join(", ", each.value.commands)} passes the role of the endpoint: give `serving_role` to the environment ${each.value.environment}."
    }

    precondition {
      condition     = alltrue([for statement in jsondecode(local.texts[each.key]).Statement : length(statement.Resource) > 0])
      error_message = "A command of ${join(", ", each.value.commands)} needs `image_repositories` of the environment ${each.value.environment}."
    }

    precondition {
      condition     = length(local.texts[each.key]) <= 6144
      error_message = "The policy of ${join(", ", each.value.commands)} in ${each.value.environment} has ${length(local.texts[each.key])} characters; IAM allows 6144. Shorten the names."
    }
  }
}

resource "aws_iam_role_policy_attachment" "command" {
  for_each = local.parts

  role       = aws_iam_role.environment[each.value.environment].name
  policy_arn = aws_iam_policy.command[each.key].arn
}
