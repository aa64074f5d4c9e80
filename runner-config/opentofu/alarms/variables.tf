# Inputs of the module.

variable "name" {
  description = "Prefix of the names of topic, alarms and dashboard."
  type        = string
  default     = "ci-models"

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,31}$", var.name))
    error_message = "The name has 2 to 32 letters, digits and hyphens, and begins with a letter."
  }
}

variable "endpoints" {
  description = "Endpoints to watch, by name. `errors_5xx`: answers with status 5xx in five minutes that are too many; `latency_p95_ms`: p95 of the latency that is too long; `variant`: the name that `endpoint deploy` gives. `log_group`: whether the module makes the endpoint's log group, with its retention; false where the endpoint was there first."
  type = map(object({
    errors_5xx     = optional(number, 5)
    latency_p95_ms = optional(number, 1000)
    variant        = optional(string, "AllTraffic")
    log_group      = optional(bool, true)
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.endpoints) : can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", name))])
    error_message = "Names of endpoints have at most 63 letters, digits and hyphens."
  }
}

variable "runner_group" {
  description = "Autoscaling group of the runner host, output `autoscaling_group` of the module runner. An alarm tells that it has no instance."
  type        = string
  default     = null
}

variable "watches_runner" {
  description = "Whether there is an alarm for `runner_group`."
  type        = bool
  default     = false
}

variable "emails" {
  description = "Addresses that the alarms are sent to. Each confirms its subscription by a mail."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "An address has one @ and no spaces."
  }
}

variable "log_retention_days" {
  description = "Days that the logs of endpoints are kept."
  type        = number
  default     = 90
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
