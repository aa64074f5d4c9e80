# Alarms of endpoints and of the runner host to a topic, logs that expire, and a dashboard. The alarms that guard a deployment are made by
# `endpoint deploy`, NAME-5xx and NAME-latency; those here have other names, so that neither changes the other's.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
}

data "aws_iam_policy_document" "key" {
  statement {
    sid       = "AccountManagesTheKey"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${local.account}:root"]
    }
  }

  # The key of AWS for SNS does not let alarms publish.
  statement {
    sid       = "AlarmsPublish"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_kms_key" "topic" {
  description             = "Alarms of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = var.tags
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.topic.arn
  tags              = var.tags
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsOfTheAccountPublish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.topic.json
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = var.emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = var.endpoints

  alarm_name          = "${var.name}-watch-${each.key}-errors"
  alarm_description   = "More than ${each.value.errors_5xx} answers of ${each.key} with status 5xx in five minutes"
  namespace           = "AWS/SageMaker"
  metric_name         = "Invocation5XXErrors"
  dimensions          = { EndpointName = each.key, VariantName = each.value.variant }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.errors_5xx
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "latency" {
  for_each = var.endpoints

  alarm_name          = "${var.name}-watch-${each.key}-latency"
  alarm_description   = "p95 of the latency of ${each.key} above ${each.value.latency_p95_ms} ms for 15 minutes"
  namespace           = "AWS/SageMaker"
  metric_name         = "ModelLatency"
  dimensions          = { EndpointName = each.key, VariantName = each.value.variant }
  extended_statistic  = "p95"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  # The metric is in microseconds.
  threshold          = each.value.latency_p95_ms * 1000
  treat_missing_data = "notBreaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
  tags               = var.tags
}

resource "aws_cloudwatch_metric_alarm" "runner" {
  count = var.watches_runner ? 1 : 0

  alarm_name          = "${var.name}-watch-runner"
  alarm_description   = "The group ${var.runner_group} has no healthy runner host"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { AutoScalingGroupName = var.runner_group }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  # Without an instance there is no value.
  treat_missing_data = "breaching"
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
  tags               = var.tags
}

resource "aws_cloudwatch_log_group" "endpoints" {
  for_each = { for name, endpoint in var.endpoints : name => endpoint if endpoint.log_group }

  name              = "/aws/sagemaker/Endpoints/${each.key}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

locals {
  charts = [
    for name, endpoint in var.endpoints : [
      for chart in [
        { title = "Calls and errors", metrics = ["Invocations", "Invocation4XXErrors", "Invocation5XXErrors"], stat = "Sum" },
        { title = "Latency p95 (microseconds)", metrics = ["ModelLatency", "OverheadLatency"], stat = "p95" },
        ] : {
        title  = "${name}: ${chart.title}"
        region = data.aws_region.current.id
        view   = "timeSeries"
        stat   = chart.stat
        period = 300
        metrics = [
          for metric in chart.metrics : ["AWS/SageMaker", metric, "EndpointName", name, "VariantName", endpoint.variant]
        ]
      }
    ]
  ]
  alarm_arns = concat(
    [for alarm in aws_cloudwatch_metric_alarm.errors : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.latency : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.runner : alarm.arn],
  )
}

resource "aws_cloudwatch_dashboard" "models" {
  count = length(var.endpoints) > 0 || var.watches_runner ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = concat(
      [{ type = "alarm", x = 0, y = 0, width = 24, height = 3, properties = { title = "Alarms", alarms = local.alarm_arns } }],
      [for number, chart in flatten(local.charts) : { type = "metric", x = number % 2 * 12, y = 3 + floor(number / 2) * 6, width = 12, height = 6, properties = chart }],
    )
  })
}
