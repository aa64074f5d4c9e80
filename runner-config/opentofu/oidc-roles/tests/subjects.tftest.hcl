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
        ":endpoint/*\"", ":model/*\"", ":repository/wine-train\"", ":repository/wine-serve\"", ":s3:::b/team/candidate/*\"",
        "environment\":\"staging\"", "project\":\"ml/wine\""
      ] : strcontains(aws_iam_policy.command["staging/prune"].policy, text)
    ])
    error_message = "The policy misses a name of the environment."
  }

  # Versions of all groups may have the images and packages that would go; those of the own group alone are deleted.
  assert {
    condition = {
      for statement in jsondecode(aws_iam_policy.command["staging/prune"].policy).Statement : statement.Sid => [for resource in statement.Resource : regex("[^:]*$", resource)]
      if contains(["DeleteOwnThings", "DeleteVersions", "FindVersions", "FindWhatTheAccountHas", "LookAtUsers"], statement.Sid)
      } == {
      DeleteOwnThings       = ["endpoint/*", "endpoint-config/*", "model/*"]
      DeleteVersions        = ["model-package/wine/*"]
      FindVersions          = ["model-package/*"]
      FindWhatTheAccountHas = ["*"]
      LookAtUsers           = ["endpoint/*", "endpoint-config/*", "inference-component/*", "model/*"]
    }
    error_message = "A clean-up does not see what the account has, or deletes versions of other groups."
  }
}

# A deletion looks at all endpoints of the account, because one of them may use what it would delete.
run "a_deletion_looks_at_other_endpoints" {
  command = plan

  variables {
    environments = {
      staging = {
        subjects = ["project_path:ml/wine:ref_type:branch:ref:main"]
        commands = ["endpoint-delete", "endpoint-status"]
        bucket   = "b"
        endpoint = "Wine-with-a-name-that-is-longer-than-those-of-most-endpoints"
      }
    }
  }

  assert {
    condition = {
      for statement in jsondecode(aws_iam_policy.command["staging/endpoint-delete"].policy).Statement : statement.Sid => [for resource in statement.Resource : regex("[^:]*$", resource)]
      if contains(["LookAtTheEndpoint", "DeleteTheEndpoint", "RecordDeployments"], statement.Sid)
      } == {
      LookAtTheEndpoint = ["endpoint/*", "endpoint-config/*", "model/*"]
      DeleteTheEndpoint = [
        "endpoint/wine-with-a-name-that-is-longer-than-those-of-most-endpoints",
        "endpoint-config/wine-with-a-name-that-is-longer-than-those-of-mo-*", "model/wine-with-a-name-that-is-longer-than-those-of-mo-*"
      ]
      RecordDeployments = ["b/deployments/Wine-with-a-name-that-is-longer-than-those-of-most-endpoints/*"]
    }
    error_message = "A deletion does not see the users of what it deletes, or has other names than its endpoint."
  }

  assert {
    condition     = !strcontains(aws_iam_policy.command["staging/endpoints"].policy, ":endpoint/*")
    error_message = "A command that only reads its own endpoint sees others."
  }
}

# Creations and deletions have no order: a policy that changes its name would be missing for a moment, or be the eleventh of its role.
run "one_command_more_leaves_the_other_policies" {
  command = plan

  variables {
    environments = {
      before = { subjects = ["project_path:ml/wine"], commands = ["gate", "model-latest", "model-register", "package"], bucket = "b" }
      later  = { subjects = ["project_path:ml/wine"], commands = ["endpoint-status", "gate", "model-latest", "model-register", "package"], bucket = "b" }
    }
  }

  assert {
    condition = length(setsubtract(
      [for key, policy in aws_iam_policy.command : replace("${key} ${policy.name} ${policy.description}", "before", "later") if startswith(key, "before/")],
      [for key, policy in aws_iam_policy.command : "${key} ${policy.name} ${policy.description}"],
    )) == 0
    error_message = "A command more gives another policy another name."
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
        build_role         = "wine-build"
        build_projects     = "wine-*"
        token_secret       = "ci/gitlab-of-wine"
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
    condition     = !anytrue([for policy in values(aws_iam_policy.command) : can(regex("(repository|project|role|codebuild)/example|ci/gitlab-[?]", policy.policy))])
    error_message = "A name of the sample is left."
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

run "a_build_in_codebuild_without_its_role" {
  command = plan

  variables {
    environments = {
      staging = {
        subjects           = ["project_path:ml/wine"]
        commands           = ["image-build-codebuild"]
        bucket             = "b"
        image_repositories = ["wine"]
      }
    }
  }

  expect_failures = [aws_iam_policy.command]
}

# A file of the folder that is for a role of CodeBuild is no command of a job.
run "the_policy_of_another_role" {
  command = plan

  variables {
    environments = {
      staging = { subjects = ["project_path:ml/wine"], commands = ["codebuild-role"], bucket = "b" }
    }
  }

  expect_failures = [aws_iam_policy.command]
}
