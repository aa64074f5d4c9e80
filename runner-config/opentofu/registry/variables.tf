# Inputs of the module.

variable "repositories" {
  description = "Names of the ECR repositories, for training and serving images."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.repositories : can(regex("^[a-z0-9]+([._/-][a-z0-9]+)*$", name))])
    error_message = "Names of repositories have lower-case letters and digits, and single `.`, `_`, `-`, `/` between them."
  }
}

variable "model_groups" {
  description = "Names of the model package groups, `model.group` of the manifests, with their descriptions."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.model_groups) : can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", name))])
    error_message = "Names of groups have at most 63 letters, digits and hyphens."
  }
}

variable "untagged_days" {
  description = "Days until an image without a tag expires."
  type        = number
  default     = 14
}

variable "kept_builds" {
  description = "Number of images with a tag `build-...` that are kept. Give it so that what an endpoint serves, and what it may be rolled back to, is among them."
  type        = number
  default     = 200
}

variable "reader_accounts" {
  description = "Other accounts that may pull the images and read the versions, where they deploy what this account has registered."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for account in var.reader_accounts : can(regex("^[0-9]{12}$", account))])
    error_message = "Accounts have 12 digits."
  }
}

variable "force_delete" {
  description = "Whether a destroy deletes repositories with images."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
