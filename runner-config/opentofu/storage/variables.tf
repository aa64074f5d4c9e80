# Inputs of the module.

variable "bucket" {
  description = "Name of the bucket of models, metrics, packages and deployments, `bucket` of the manifest's environments."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "The bucket has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "candidate_days" {
  description = "Days until models, packages and metrics below `candidate/` expire; records of deployments stay. Give the environments of merge requests the prefix `candidate` in the manifest, and an `auto_stop_in` that is shorter."
  type        = number
  default     = 7

  validation {
    condition     = var.candidate_days >= 1
    error_message = "Candidates are kept for a day at least."
  }
}

variable "noncurrent_days" {
  description = "Days that replaced and deleted objects can be brought back."
  type        = number
  default     = 30
}

variable "reader_accounts" {
  description = "Other accounts whose roles may read models and packages, where they deploy what this account has registered. Their roles need permissions of their own besides."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for account in var.reader_accounts : can(regex("^[0-9]{12}$", account))])
    error_message = "Accounts have 12 digits."
  }
}

variable "force_destroy" {
  description = "Whether a destroy deletes the objects of the bucket, too."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
