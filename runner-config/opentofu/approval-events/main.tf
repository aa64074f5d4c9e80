# An approval of a model version starts a pipeline: EventBridge calls the trigger of a GitLab project. No function, and no token here.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

resource "aws_cloudwatch_event_rule" "approval" {
  name        = "${var.name}-approval"
  description = "A version of ${join(", ", var.model_groups)} was approved"
  tags        = var.tags

  event_pattern = jsonencode({
    source      = ["aws.sagemaker"]
    detail-type = ["SageMaker Model Package State Change"]
    detail = {
      ModelPackageGroupName = var.model_groups
      ModelApprovalStatus   = ["Approved"]
      # Later changes of an approved version have its status, too: of its metadata, for instance.
      UpdatedModelPackageFields = ["ModelApprovalStatus"]
    }
  })
}

resource "aws_cloudwatch_event_api_destination" "pipeline" {
  name                             = "${var.name}-pipeline"
  description                      = "Starts the pipeline of project ${var.project_id}"
  invocation_endpoint              = "${var.gitlab_url}/api/v4/projects/${var.project_id}/trigger/pipeline"
  http_method                      = "POST"
  invocation_rate_limit_per_second = 1
  connection_arn                   = var.connection_arn
}

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "EventsAssumeTheRole"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role" "events" {
  name               = "${var.name}-approval-events"
  description        = "EventBridge calls the trigger of the project ${var.project_id}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = var.tags
}

data "aws_iam_policy_document" "call" {
  statement {
    sid       = "CallTheTrigger"
    actions   = ["events:InvokeApiDestination"]
    resources = [aws_cloudwatch_event_api_destination.pipeline.arn]
  }
}

resource "aws_iam_role_policy" "events" {
  name   = "call-the-trigger"
  role   = aws_iam_role.events.id
  policy = data.aws_iam_policy_document.call.json
}

# Events that GitLab did not take in a day.
resource "aws_sqs_queue" "lost" {
  name                      = "${var.name}-approval-lost"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

data "aws_iam_policy_document" "lost" {
  statement {
    sid       = "TheRuleSends"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.lost.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.approval.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "lost" {
  queue_url = aws_sqs_queue.lost.url
  policy    = data.aws_iam_policy_document.lost.json
}

resource "aws_cloudwatch_event_target" "pipeline" {
  rule      = aws_cloudwatch_event_rule.approval.name
  target_id = "pipeline"
  arn       = aws_cloudwatch_event_api_destination.pipeline.arn
  role_arn  = aws_iam_role.events.arn

  input_transformer {
    input_paths = {
      arn   = "$.detail.ModelPackageArn"
      group = "$.detail.ModelPackageGroupName"
    }
    # EventBridge puts quotes around texts by itself where there are none.
    input_template = <<-TEMPLATE
      {"ref": ${jsonencode(var.ref)}, "variables": {"MODEL_PACKAGE_ARN": "<arn>", "MODEL_GROUP": "<group>"}}
    TEMPLATE
  }

  retry_policy {
    maximum_event_age_in_seconds = 86400
    maximum_retry_attempts       = 185
  }

  dead_letter_config {
    arn = aws_sqs_queue.lost.arn
  }

  depends_on = [aws_sqs_queue_policy.lost]
}
