# Inputs of the module: those of its parts, each as the part describes it.

variable "name" {
  description = "Prefix of the names of all resources."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.name))
    error_message = "The name has 2 to 16 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "gitlab_url" {
  description = "Address of GitLab."
  type        = string
}

variable "oidc_issuer" {
  description = "Issuer of the id tokens where AWS cannot reach GitLab, `ci_id_tokens_issuer_url`. Null: GitLab itself."
  type        = string
  default     = null
}

variable "oidc_provider_arn" {
  description = "ARN of the account's identity provider for the issuer, where there is one. Null: it is made."
  type        = string
  default     = null
}

variable "runner" {
  description = "Inputs of the module `runner`: runners, binaries, image of the host, and what differs from its defaults."
  type = object({
    bucket              = string
    ami_id              = string
    executor            = object({ url = string, sha256 = string })
    gitlab_runner       = object({ url = string, sha256 = string })
    runners             = map(object({ token_arn = string, token_kms_key_arn = optional(string), output_limit = optional(number, 16384) }))
    download_bucket     = optional(string)
    instance_type       = optional(string, "m6i.large")
    instance_types      = optional(list(string), ["ml.m5.large"])
    concurrent          = optional(number, 20)
    max_runtime_seconds = optional(number, 86400)
    several_nodes       = optional(bool, false)
    availability_zones  = optional(list(string), [])
    vpc_cidr            = optional(string, "10.42.0.0/16")
    internet            = optional(bool, true)
    egress              = optional(object({ cidrs = optional(list(string), ["0.0.0.0/0"]), ports = optional(list(number), [443]) }), {})
    training_log_group  = optional(bool, true)
    network = optional(object({
      vpc_id              = string
      host_subnet_ids     = list(string)
      training_subnet_ids = list(string)
      endpoints           = optional(bool, true)
    }))
  })
}

variable "model_bucket" {
  description = "Name of the bucket of models and packages."
  type        = string
}

variable "training_repositories" {
  description = "ECR repositories of training images, which jobs may use."
  type        = set(string)
}

variable "serving_repositories" {
  description = "ECR repositories of serving images, which endpoints may use."
  type        = set(string)
}

variable "model_groups" {
  description = "Model package groups, with their descriptions."
  type        = map(string)
}

variable "reader_accounts" {
  description = "Other accounts that deploy the models of this one."
  type        = list(string)
  default     = []
}

variable "environments" {
  description = "Environments of the manifest by name: whose jobs get the role (`subjects`; with `any_branch` those of every branch, as `review` needs), what they call (`commands`, by `ci-templates/README.md`), and what of the manifest it is about. `watch`: limits of the alarms of its endpoint; null for none."
  type = map(object({
    subjects    = list(string)
    commands    = list(string)
    prefix      = optional(string, "")
    endpoint    = optional(string)
    model_group = optional(string)

    image_repositories = optional(list(string), [])
    base_repositories  = optional(list(string), [])
    build_role         = optional(string)
    build_projects     = optional(string)
    token_secret       = optional(string)
    any_branch         = optional(bool, false)

    watch = optional(object({ errors_5xx = optional(number, 5), latency_p95_ms = optional(number, 1000) }))
  }))

  validation {
    condition     = alltrue([for environment in values(var.environments) : environment.watch == null || environment.endpoint != null])
    error_message = "An environment with `watch` names its `endpoint`."
  }
}

variable "alarm_emails" {
  description = "Addresses that the alarms are sent to."
  type        = set(string)
  default     = []
}

variable "approval_events" {
  description = "Pipeline that an approval starts: the project's number, its branch, and the connection with the trigger token. Null where GitLab is private; then a schedule asks with `model latest`."
  type        = object({ project_id = number, ref = optional(string, "main"), connection_arn = string })
  default     = null
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 90
}

variable "force_destroy" {
  description = "Whether a destroy deletes objects and images, too."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
