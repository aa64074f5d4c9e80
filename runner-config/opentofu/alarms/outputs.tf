# Where the alarms go.

output "topic_arn" {
  description = "Topic of the alarms, for further subscriptions."
  value       = aws_sns_topic.alarms.arn
}

output "alarm_names" {
  description = "Names of the alarms. An alarm of an endpoint may stand in `endpoint.alarms.names` of the manifest."
  value       = sort(concat([for alarm in aws_cloudwatch_metric_alarm.errors : alarm.alarm_name], [for alarm in aws_cloudwatch_metric_alarm.latency : alarm.alarm_name], [for alarm in aws_cloudwatch_metric_alarm.runner : alarm.alarm_name]))
}
