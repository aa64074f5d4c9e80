# Inputs of the module.

variable "name" {
  description = "Prefix of the names of all resources. Roles are called NAME-host, NAME-creator and NAME-training."
  type        = string
  default     = "ci-sagemaker"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,31}$", var.name))
    error_message = "The name has 2 to 32 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "bucket" {
  description = "Name of the bucket that driver and agent exchange everything in. The module makes it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "The bucket has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "bucket_prefix" {
  description = "First part of every key in the bucket, `storage.prefix` of the operator's file."
  type        = string
  default     = "sagemaker-executor"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.bucket_prefix))
    error_message = "The prefix has letters, digits, `-` and `_`, and no slash at its ends."
  }
}

variable "gitlab_url" {
  description = "Address of GitLab, as the runner host reaches it."
  type        = string

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*)?$", var.gitlab_url))
    error_message = "The address begins with https:// and has a host, and perhaps a port and a path."
  }
}

variable "runners" {
  description = "Runners of the host by name. `token_arn` names the parameter of Systems Manager (SecureString) or the secret of Secrets Manager with the authentication token glrt-...; the host reads it, so that it never reaches the state. `token_kms_key_arn` is the key of the secret where this is not the key of AWS."
  type = map(object({
    token_arn         = string
    token_kms_key_arn = optional(string)
    output_limit      = optional(number, 16384)
  }))

  validation {
    condition     = length(var.runners) > 0 && alltrue([for name in keys(var.runners) : can(regex("^[a-z0-9][a-z0-9-]{0,30}$", name))])
    error_message = "There is at least one runner, and names have lower-case letters, digits and hyphens."
  }

  validation {
    condition = alltrue([
      for runner in values(var.runners) : can(regex("^arn:[a-z-]+:(ssm:[a-z0-9-]+:[0-9]{12}:parameter/.+|secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+)$", runner.token_arn))
    ])
    error_message = "`token_arn` is the ARN of a parameter (arn:...:ssm:...:parameter/NAME) or of a secret (arn:...:secretsmanager:...:secret:NAME). A token itself must not stand here."
  }
}

variable "concurrent" {
  description = "Jobs at a time on the host, `concurrent` of the runner's config.toml."
  type        = number
  default     = 20

  validation {
    condition     = var.concurrent >= 1 && var.concurrent <= 500
    error_message = "A host has 1 to 500 jobs at a time."
  }
}

variable "executor" {
  description = "Binary of sagemaker-executor: an https:// or s3:// address that the host reaches, and the SHA-256 of the file."
  type        = object({ url = string, sha256 = string })

  validation {
    condition     = can(regex("^(https|s3)://[^ '\"\\\\]+$", var.executor.url)) && can(regex("^[0-9a-f]{64}$", var.executor.sha256))
    error_message = "`url` begins with https:// or s3://, and `sha256` has 64 hexadecimal digits."
  }
}

variable "gitlab_runner" {
  description = "Binary of GitLab Runner for Linux: an https:// or s3:// address that the host reaches, and the SHA-256 of the file."
  type        = object({ url = string, sha256 = string })

  validation {
    condition     = can(regex("^(https|s3)://[^ '\"\\\\]+$", var.gitlab_runner.url)) && can(regex("^[0-9a-f]{64}$", var.gitlab_runner.sha256))
    error_message = "`url` begins with https:// or s3://, and `sha256` has 64 hexadecimal digits."
  }
}

variable "download_bucket" {
  description = "Bucket of the s3:// addresses of `executor` and `gitlab_runner`, which the host may then read. Null where both are https://."
  type        = string
  default     = null
}

variable "ami_id" {
  description = "Image of the host: Debian 12 or later, or another Linux for x86_64 with cloud-init and systemd. Packages that it lacks (bash, git, git-lfs, bubblewrap, curl, AWS CLI) are installed with apt-get or dnf when it starts; a network without a mirror needs an image that has them."
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "The image is an id, ami-0123456789abcdef0."
  }
}

variable "instance_type" {
  description = "Instance type of the host. A job costs the host one clone and a process that mostly waits."
  type        = string
  default     = "m6i.large"
}

variable "root_volume" {
  description = "Device name of the image's root volume, and its size in GB. It holds the projects of the jobs."
  type        = object({ device = optional(string, "/dev/xvda"), size_gb = optional(number, 200) })
  default     = {}
}

variable "network" {
  description = "Existing network. `host_subnet_ids` are the subnets of the runner host, `training_subnet_ids` those of the training jobs, all of `vpc_id`. `endpoints` says whether the module makes the endpoints there; false: they are there, and the module checks them. Null: the module makes a VPC."
  type = object({
    vpc_id              = string
    host_subnet_ids     = list(string)
    training_subnet_ids = list(string)
    endpoints           = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.network == null ? true : length(var.network.host_subnet_ids) > 0 && length(var.network.training_subnet_ids) > 0
    error_message = "`host_subnet_ids` and `training_subnet_ids` name at least one subnet each."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that the module makes, a /16 to /20."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 8, 255))
    error_message = "The range is IPv4 with room for 256 networks, such as 10.42.0.0/16."
  }
}

variable "availability_zones" {
  description = "Zones of the subnets that the module makes, one subnet of each kind in each zone."
  type        = list(string)
  default     = []
}

variable "internet" {
  description = "Whether the VPC that the module makes gets a NAT gateway, by which the host alone (not the training jobs) reaches GitLab and the addresses of the binaries. False: connect the VPC to GitLab's network yourself, by the route table of the output `host_route_table_id`."
  type        = bool
  default     = true
}

variable "egress" {
  description = "Where the host may connect to besides the endpoints: ranges of addresses and ports."
  type        = object({ cidrs = optional(list(string), ["0.0.0.0/0"]), ports = optional(list(number), [443]) })
  default     = {}
}

variable "several_nodes" {
  description = "Whether training jobs may have several instances, which then reach each other. Without it the security group of training jobs has no inbound rule."
  type        = bool
  default     = false
}

variable "instance_types" {
  description = "Instance types that jobs may choose; the first one is the default."
  type        = list(string)
  default     = ["ml.m5.large"]

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for type in var.instance_types : can(regex("^ml\\.[a-z0-9*-]+\\.[a-z0-9*]+$", type))])
    error_message = "Instance types of SageMaker begin with ml., as in ml.m5.large; `*` stands for any characters."
  }
}

variable "image_repositories" {
  description = "Repositories of the training images, in the account's registry in the region; `*` stands for any characters but slashes, `**` for any."
  type        = list(string)

  validation {
    condition     = length(var.image_repositories) > 0 && alltrue([for name in var.image_repositories : can(regex("^[a-z0-9*][a-z0-9*._/-]*$", name))])
    error_message = "Names of repositories have lower-case letters, digits and `.`, `_`, `-`, `/`, `*`."
  }
}

variable "max_runtime_seconds" {
  description = "Longest run time of a training job in seconds."
  type        = number
  default     = 86400

  validation {
    condition     = var.max_runtime_seconds >= 60 && var.max_runtime_seconds <= 2419200
    error_message = "SageMaker allows at most 28 days, 2419200 seconds."
  }
}

variable "operator_file" {
  description = "Text of an operator's file of your own, with more rules than the one that the module makes; then `policies` must be given too. Null: the module makes it."
  type        = string
  default     = null
}

variable "policies" {
  description = "Policies by file name, as `sagemaker-executor policy iam --config FILE --out DIR` writes them for `operator_file`. Null: those for the file that the module makes."
  type        = map(string)
  default     = null

  validation {
    condition = var.policies == null ? true : alltrue([
      for file in ["bucket-policy.json", "creator-trust.json", "creator.json", "runner-host.json", "storage-key-policy.json", "training-job-trust.json", "training-job.json"] :
      can(jsondecode(var.policies[file]))
    ])
    error_message = "`policies` needs bucket-policy.json, creator-trust.json, creator.json, runner-host.json, storage-key-policy.json, training-job-trust.json and training-job.json: the file needs aws.creator_role_arn and storage.kms_key_id."
  }
}

variable "training_log_group" {
  description = "Whether the module makes the log group /aws/sagemaker/TrainingJobs. False where it is there already."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "Days that the logs of training jobs are kept."
  type        = number
  default     = 90
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
