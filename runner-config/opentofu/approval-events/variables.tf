# Inputs of the module.

variable "name" {
  description = "Prefix of the names of rule, destination, role and queue."
  type        = string
  default     = "ci-models"

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,31}$", var.name))
    error_message = "The name has 2 to 32 letters, digits and hyphens, and begins with a letter."
  }
}

variable "model_groups" {
  description = "Groups whose approvals start a pipeline."
  type        = list(string)

  validation {
    condition     = length(var.model_groups) > 0
    error_message = "Without a group no approval starts a pipeline."
  }
}

variable "gitlab_url" {
  description = "Address of GitLab. EventBridge reaches public addresses alone: a private GitLab has a scheduled pipeline with `model latest` instead."
  type        = string

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*[A-Za-z0-9_-])?$", var.gitlab_url))
    error_message = "The address begins with https:// and does not end with a slash."
  }
}

variable "project_id" {
  description = "Number of the project whose pipeline is started."
  type        = number
}

variable "ref" {
  description = "Branch of that pipeline."
  type        = string
  default     = "main"
}

variable "connection_arn" {
  description = "ARN of the EventBridge connection that holds the trigger token. Make it with the command in the README, so that the token never reaches the state."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:events:[a-z0-9-]+:[0-9]{12}:connection/.+$", var.connection_arn))
    error_message = "The ARN is that of a connection, arn:...:events:...:connection/NAME/ID."
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
