# Inputs of the module.

variable "name" {
  description = "Prefix of the names of roles and policies: NAME-ENVIRONMENT and NAME-ENVIRONMENT-COMMAND."
  type        = string
  default     = "ci-models"

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,23}$", var.name))
    error_message = "The name has 2 to 24 letters, digits and hyphens, and begins with a letter."
  }
}

variable "gitlab_url" {
  description = "Issuer of the id tokens: the address of GitLab, or `ci_id_tokens_issuer_url` where AWS cannot reach GitLab."
  type        = string

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*[A-Za-z0-9_-])?$", var.gitlab_url))
    error_message = "The address begins with https:// and does not end with a slash."
  }
}

variable "audience" {
  description = "Audience of the id tokens, the input `id_token_audience` of the components."
  type        = string
  default     = "sts.amazonaws.com"
}

variable "provider_arn" {
  description = "ARN of the account's identity provider for this GitLab, where there is one: an account has one for each issuer. Null: the module makes it."
  type        = string
  default     = null
}

variable "environments" {
  description = "Environments of the manifest by name. `subjects` are the exact claims `sub` of the jobs that get the role, as project_path:GROUP/PROJECT:ref_type:branch:ref:BRANCH; `commands` the commands that they call, by the names of the files in runner-config/iam/lifecycle; `bucket`, `prefix`, `endpoint`, `model_group`, `serving_role` and `image_repository` the values of the manifest. Without `endpoint` or `model_group` the policies hold for all endpoints or groups of the account; `image-build` and `prune` need `image_repository`, and `prune` takes the project of the first subject."
  type = map(object({
    subjects      = list(string)
    commands      = list(string)
    bucket        = string
    prefix        = optional(string, "")
    endpoint      = optional(string)
    model_group   = optional(string)
    serving_role  = optional(string)
    session_hours = optional(number, 1)

    image_repository = optional(string)
  }))

  validation {
    condition     = alltrue([for name in keys(var.environments) : can(regex("^[a-zA-Z0-9][a-zA-Z0-9-]{0,23}$", name))])
    error_message = "Names of environments have at most 24 letters, digits and hyphens here."
  }

  validation {
    condition = alltrue(flatten([
      for environment in values(var.environments) : [
        for subject in environment.subjects : can(regex("^project_path:[^*?$:]+(:ref_type:(branch|tag):ref:[^*?$]+)?$", subject))
      ]
    ]))
    error_message = "A subject is exact, without `*`, `?` and variables: project_path:GROUP/PROJECT:ref_type:branch:ref:BRANCH. For all branches of one project let GitLab leave the branch out (`ci_id_token_sub_claim_components` = [\"project_path\"]), and give project_path:GROUP/PROJECT."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : length(environment.subjects) > 0])
    error_message = "An environment without subjects would have a role that nobody can assume."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : length(distinct(environment.commands)) <= 10 && length(environment.commands) > 0])
    error_message = "A role has 1 to 10 policies, one for each command: split the commands over two environments, or raise IAM's quota and change this limit."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : can(regex("^([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?$", environment.prefix))])
    error_message = "A prefix has letters, digits, `-` and `_`, and no slash at its ends."
  }
}

variable "permissions_boundary" {
  description = "ARN of a policy that bounds every role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
