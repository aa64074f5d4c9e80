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
        subjects         = ["project_path:ml/wine:ref_type:branch:ref:main"]
        commands         = ["prune"]
        bucket           = "b"
        prefix           = "team"
        endpoint         = "wine"
        model_group      = "Wine"
        image_repository = "wine-train"
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
        ":endpoint/*\"", ":model/*\"", ":model-package/wine/*\"", ":repository/wine-train\"", ":s3:::b/team/candidate/*\"",
        "environment\":\"staging\"", "project\":\"ml/wine\""
      ] : strcontains(aws_iam_policy.command["staging/prune"].policy, text)
    ])
    error_message = "The policy misses a name of the environment."
  }
}
