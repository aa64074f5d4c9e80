# Whom a role may not trust, and what it may not call.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
  }
}

variables {
  gitlab_url = "https://gitlab.example.com"
}

run "any_branch" {
  command = plan

  variables {
    environments = {
      production = { subjects = ["project_path:ml/wine:ref_type:branch:ref:*"], commands = ["gate"], bucket = "b" }
    }
  }

  expect_failures = [var.environments]
}

run "any_project" {
  command = plan

  variables {
    environments = {
      production = { subjects = ["project_path:ml/*:ref_type:branch:ref:main"], commands = ["gate"], bucket = "b" }
    }
  }

  expect_failures = [var.environments]
}

run "nobody" {
  command = plan

  variables {
    environments = {
      production = { subjects = [], commands = ["gate"], bucket = "b" }
    }
  }

  expect_failures = [var.environments]
}

run "unknown_command" {
  command = plan

  variables {
    environments = {
      production = { subjects = ["project_path:ml/wine"], commands = ["no-such-command"], bucket = "b" }
    }
  }

  expect_failures = [aws_iam_policy.command]
}

run "deployment_without_the_role_of_the_endpoint" {
  command = plan

  variables {
    environments = {
      production = { subjects = ["project_path:ml/wine"], commands = ["endpoint-deploy"], bucket = "b" }
    }
  }

  expect_failures = [aws_iam_policy.command]
}

# A clean-up looks at everything, and deletes what is the project's.
run "clean_up" {
  command = plan

  variables {
    environments = {
      staging = {
        subjects           = ["project_path:ml/wine:ref_type:branch:ref:main"]
        commands           = ["prune"]
        bucket             = "b"
        prefix             = "team"
        endpoint           = "wine"
        model_group        = "Wine"
        image_repositories = ["wine-train", "wine-serve"]
      }
    }
  }

  assert {
    condition     = !can(regex("example-|group/project", aws_iam_policy.command["staging/prune"].policy))
    error_message = "A name of the sample is left."
  }

  assert {
    condition = alltrue([
      for text in [
        ":endpoint/*\"", ":model/*\"", ":model-package/wine/*\"", ":repository/wine-train\"", ":repository/wine-serve\"", ":s3:::b/team/candidate/*\"",
        "environment\":\"staging\"", "project\":\"ml/wine\""
      ] : strcontains(aws_iam_policy.command["staging/prune"].policy, text)
    ])
    error_message = "The policy misses a name of the environment."
  }
}

# The commands of a whole flow, with those of a clean-up and a monitor, fit into ten policies.
run "all_commands_of_a_flow" {
  command = plan

  variables {
    environments = {
      review = {
        any_branch         = true
        subjects           = ["project_path:ml/wine"]
        commands           = ["endpoint-delete", "endpoint-deploy", "endpoint-deploy-package", "endpoint-rollback", "endpoint-status", "endpoint-test", "gate", "image-build", "image-build-codebuild", "image-scan", "model-latest", "model-register", "package", "prune", "report", "token-secret"]
        bucket             = "example-bucket-of-models-with-a-long-name"
        prefix             = "team"
        endpoint           = "wine-review-*"
        model_group        = "Wine"
        serving_role       = "serving"
        image_repositories = ["group-wine-training", "group-wine-serving"]
      }
    }
  }

  assert {
    condition     = length(aws_iam_policy.command) <= 10
    error_message = "IAM attaches ten policies to a role."
  }

  assert {
    condition = alltrue([
      for policy in values(aws_iam_policy.command) :
      length(distinct([for statement in jsondecode(policy.policy).Statement : statement.Sid])) == length(jsondecode(policy.policy).Statement)
    ])
    error_message = "Two statements of a policy have one Sid."
  }

  assert {
    condition     = !anytrue([for policy in values(aws_iam_policy.command) : can(regex("repository/example", policy.policy))])
    error_message = "A repository of the sample is left."
  }
}

run "any_branch_approves_nothing" {
  command = plan

  variables {
    environments = {
      review = { any_branch = true, subjects = ["project_path:ml/wine"], commands = ["model-approve"], bucket = "b" }
    }
  }

  expect_failures = [var.environments]
}

run "an_image_without_a_repository" {
  command = plan

  variables {
    environments = {
      staging = { subjects = ["project_path:ml/wine"], commands = ["image-scan"], bucket = "b" }
    }
  }

  expect_failures = [aws_iam_policy.command]
}
