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

  shipped = "${path.module}/../../iam/lifecycle"
  # These are for a role of CodeBuild, for a machine that publishes an issuer, and for the bucket of that issuer.
  of_others = ["codebuild-role", "credentials-publish-issuer", "issuer-bucket-policy"]
  commands = toset([
    for file in fileset(local.shipped, "*.json") : trimsuffix(file, ".json")
    if !endswith(file, "-trust.json") && !contains(local.of_others, trimsuffix(file, ".json"))
  ])

  pairs = {
    for pair in flatten([
      for name, environment in var.environments : [for command in distinct(environment.commands) : { environment = name, command = command }]
    ]) : "${pair.environment}/${pair.command}" => pair
  }
  # The path of the project is in every subject, before the branch.
  projects = { for name, environment in var.environments : name => try(regex("^project_path:([^:]+)", environment.subjects[0])[0], "no-project") }

  # SageMaker's names have lower-case letters in ARNs. Configurations and models have the first 48 letters of their endpoint's name in theirs.
  endpoints  = { for name, environment in var.environments : name => environment.endpoint == null ? "*" : lower(environment.endpoint) }
  belongings = { for name, endpoint in local.endpoints : name => endpoint == "*" ? "*" : "${trim(substr(endpoint, 0, 48), "-")}-*" }
  groups     = { for name, environment in var.environments : name => environment.model_group == null ? "*" : lower(environment.model_group) }
  of_groups  = { for name, group in local.groups : name => group == "*" ? "*" : "${group}/*" }
  prefixes   = { for name, environment in var.environments : name => environment.prefix == "" ? "" : "${environment.prefix}/" }

  # The policies as the project ships them for its sample account, with the names of the project.
  with_project = {
    for key, pair in local.pairs : key => replace(replace(replace(
      try(file("${local.shipped}/${pair.command}.json"), "{\"Statement\": []}"),
      "group/project", local.projects[pair.environment]),
      "example-environment", pair.environment),
      "example-prefix/", "",
    )
  }

  # The same with the names of the environment. In a bucket names keep their letters.
  with_names = {
    for key, pair in local.pairs : key => replace(replace(replace(replace(replace(replace(replace(replace(
      local.with_project[key],
      "example-models/deployments/example-endpoint/", "example-models/deployments/${coalesce(var.environments[pair.environment].endpoint, "*")}/"),
      "/example-models/([a-z*])/", "example-models/${local.prefixes[pair.environment]}$1"),
      "example-models", var.environments[pair.environment].bucket),
      "role/example-serving", "role/${coalesce(var.environments[pair.environment].serving_role, "no-serving-role")}"),
      "role/example-build", "role/${coalesce(var.environments[pair.environment].build_role, "no-build-role")}"),
      ":project/example-*", ":project/${coalesce(var.environments[pair.environment].build_projects, "no-build-projects")}"),
      "/aws/codebuild/example-*", "/aws/codebuild/${coalesce(var.environments[pair.environment].build_projects, "no-build-projects")}"),
      ":secret:ci/gitlab-", ":secret:${coalesce(var.environments[pair.environment].token_secret, "no-token-secret")}-",
    )
  }
  # The whole account: all endpoints, and all versions but those that `prune` deletes.
  of_account = {
    for key, text in local.with_names : key => replace(replace(replace(replace(
      text,
      ":model-package/example-group/*", ":model-package/${local.of_groups[local.pairs[key].environment]}"),
      "arn:aws:", "arn:${local.partition}:"),
      "eu-west-1", local.region),
      "123456789012", local.account,
    )
  }
  # The endpoint and the group of the environment alone.
  of_environment = {
    for key, text in local.of_account : key => replace(replace(replace(replace(replace(
      text,
      ":endpoint/*", ":endpoint/${local.endpoints[local.pairs[key].environment]}"),
      ":endpoint-config/*", ":endpoint-config/${local.belongings[local.pairs[key].environment]}"),
      ":model/*", ":model/${local.belongings[local.pairs[key].environment]}"),
      ":model-package/*", ":model-package/${local.of_groups[local.pairs[key].environment]}"),
      ":model-package-group/*", ":model-package-group/${local.groups[local.pairs[key].environment]}",
    )
  }

  # These commands look through the whole account for users of what they delete. Where a policy asks for the tags of the project, they bound it.
  lookers = ["endpoint-delete", "prune"]
  policies = {
    for key, text in local.of_account : key => [
      for number, statement in jsondecode(text).Statement :
      contains(local.lookers, local.pairs[key].command) && (
        strcontains(jsonencode(statement), "aws:ResourceTag/") || alltrue([for action in flatten([statement.Action]) : can(regex(":(Describe|List)", action))])
      ) ? statement : jsondecode(local.of_environment[key]).Statement[number]
    ]
  }

  # The statements of each command, for all repositories of the environment.
  statements = {
    for key, statements in local.policies : key => [
      for statement in statements : merge(statement, {
        Resource = distinct(flatten([
          for resource in flatten([statement.Resource]) :
          endswith(resource, ":repository/example-image") ? [for name in var.environments[local.pairs[key].environment].image_repositories : replace(resource, "example-image", name)] :
          endswith(resource, ":repository/example-base") ? [for name in var.environments[local.pairs[key].environment].base_repositories : replace(resource, "example-base", name)] :
          [resource]
        ]))
      })
    ]
  }

  # IAM attaches ten policies to a role: the commands with long policies have their own, and others share one. A command is always in the
  # policy of the same name, so that one command more takes nothing from the others while it is applied.
  shared = {
    endpoint-status         = "endpoints"
    endpoint-test           = "endpoints"
    image-build             = "images"
    image-build-codebuild   = "images"
    image-scan              = "images"
    model-approve           = "models"
    model-latest            = "models"
    model-register          = "models"
    endpoint-deploy-package = "packages"
    package                 = "packages"
    token-secret            = "packages"
    gate                    = "reports"
    report                  = "reports"
    validate-connect        = "reports"
  }
  parts = {
    for part in flatten([
      for name, environment in var.environments : [
        for policy in distinct([for command in environment.commands : lookup(local.shared, command, command)]) : {
          environment = name
          policy      = policy
          commands    = [for command in sort(distinct(environment.commands)) : command if lookup(local.shared, command, command) == policy]
        }
      ]
    ]) : "${part.environment}/${part.policy}" => part
  }
  texts = {
    for key, part in local.parts : key => jsonencode({
      Version = "2012-10-17"
      # Sids are unique in a policy of several commands.
      Statement = flatten([
        for command in part.commands : [
          for statement in local.statements["${part.environment}/${command}"] : merge(statement, {
            Sid = part.commands[0] == part.policy ? statement.Sid : join("", concat([for word in split("-", command) : title(word)], [statement.Sid]))
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

  # IAM makes a policy anew when one of these two changes.
  name        = "${var.name}-${each.value.environment}-${each.value.policy}"
  description = "sagemaker-executor in ${each.value.environment}: ${each.value.policy}"
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
      condition     = !can(regex("no-build-(role|projects)|no-token-secret", local.texts[each.key]))
      error_message = "`image-build-codebuild` needs `build_role` and `build_projects` of the environment ${each.value.environment}, and `token-secret` needs `token_secret`."
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
