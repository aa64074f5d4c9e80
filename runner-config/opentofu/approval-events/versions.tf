# The subset that OpenTofu 1.6 and Terraform 1.6 have in common. The caller configures the provider.

terraform {
  required_version = ">= 1.6.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.81.0"
    }
  }
}
