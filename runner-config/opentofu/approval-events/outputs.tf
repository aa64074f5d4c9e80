# Where to look for lost events.

output "rule_arn" {
  description = "ARN of the rule."
  value       = aws_cloudwatch_event_rule.approval.arn
}

output "lost_queue_url" {
  description = "Queue of the approvals that started no pipeline within a day."
  value       = aws_sqs_queue.lost.url
}
