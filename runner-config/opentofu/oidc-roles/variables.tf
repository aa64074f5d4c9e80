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
  description = "Environments of the manifest by name. `subjects` are the exact claims `sub` of the jobs that get the role, as project_path:GROUP/PROJECT:ref_type:branch:ref:BRANCH; `commands` the commands that they call, by the names of the files in runner-config/iam/lifecycle; `bucket`, `prefix`, `endpoint`, `model_group` and `serving_role` the values of the manifest; `image_repositories` are the project's repositories of ECR, and `base_repositories` those of the images that its Dockerfiles begin with. `build_role` and `build_projects` are the role of builds in CodeBuild and the name of the projects there, which may end with `*`, for `image-build-codebuild`; `token_secret` is the name of the secret with a token of GitLab, for `token-secret`. Without `endpoint` or `model_group` the policies hold for all endpoints or groups of the account; `image-build`, `image-scan` and `prune` need `image_repositories`, and `prune` takes the project of the first subject. `any_branch`: jobs of every branch of the projects in `subjects` get the role, as merge requests need it for their candidates and endpoints."
  type = map(object({
    subjects      = list(string)
    commands      = list(string)
    bucket        = string
    prefix        = optional(string, "")
    endpoint      = optional(string)
    model_group   = optional(string)
    serving_role  = optional(string)
    session_hours = optional(number, 1)

    image_repositories = optional(list(string), [])
    base_repositories  = optional(list(string), [])
    build_role         = optional(string)
    build_projects     = optional(string)
    token_secret       = optional(string)
    any_branch         = optional(bool, false)
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
    error_message = "A subject is exact, without `*`, `?` and variables: project_path:GROUP/PROJECT:ref_type:branch:ref:BRANCH. For all branches of a project give `any_branch = true` and its project_path:GROUP/PROJECT."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : length(environment.subjects) > 0])
    error_message = "An environment without subjects would have a role that nobody can assume."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : length(environment.commands) > 0])
    error_message = "An environment without commands would have a role that may do nothing."
  }

  validation {
    condition     = alltrue([for environment in values(var.environments) : !(environment.any_branch && contains(environment.commands, "model-approve"))])
    error_message = "A role of every branch cannot approve models: code that nobody has read would approve itself. Give `model-approve` to the environment of a protected branch."
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
