# The runner host: an autoscaling group that keeps one instance, which sets itself up when it starts.

locals {
  # config.toml as the project ships it: its head once, and its block for each runner. The host puts the tokens in.
  shipped_config = split("[[runners]]", file("${path.module}/../../config.toml"))
  config_head    = replace(local.shipped_config[0], "/(?m)^concurrent = .*$/", "concurrent = ${var.concurrent}")
  config_blocks = [
    for name, runner in var.runners : join("", ["\n[[runners]]", replace(replace(replace(replace(
      local.shipped_config[1],
      "name = \"sagemaker\"", "name = \"${name}\""),
      "https://gitlab.example.com", var.gitlab_url),
      "glrt-REPLACE_ME", "@TOKEN:${name}@"),
      "output_limit = 16384", "output_limit = ${runner.output_limit}",
    )])
  ]
  runner_config = join("", concat([trimspace(local.config_head), "\n"], local.config_blocks))

  # The operator's file as the project ships it, with the values of this account. A key that is commented out there becomes active here.
  made_operator_file = replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
    file("${path.module}/../../sagemaker-executor.toml"),
    "/(?m)^region = \"[^\"]*\"$/", "region = \"${local.region}\""),
    "/(?m)^# creator_role_arn = .*$/", "creator_role_arn = \"${local.role_arns.creator}\""),
    "/(?m)^# host_role_arn = .*$/", "host_role_arn = \"${local.role_arns.host}\""),
    "/(?m)^role_arn = .*$/", "role_arn = \"${local.role_arns.training}\""),
    "/(?m)^bucket = .*$/", "bucket = \"${var.bucket}\""),
    "/(?m)^prefix = .*$/", "prefix = \"${var.bucket_prefix}\""),
    "/(?m)^# kms_key_id = .*$/", "kms_key_id = \"${aws_kms_key.storage.arn}\""),
    "/(?m)^vpc_endpoint_ids = .*$/", "vpc_endpoint_ids = ${jsonencode([local.s3_endpoint_id])}"),
    "/(?m)^subnets = .*$/", "subnets = ${jsonencode(local.training_subnet_ids)}"),
    "/(?m)^security_group_ids = .*$/", "security_group_ids = ${jsonencode([local.training_security_group_id])}"),
    "/(?m)^instance_types = .*$/", "instance_types = ${jsonencode(var.instance_types)}"),
    "/(?m)^instance_type = .*$/", "instance_type = \"${replace(var.instance_types[0], "*", "large")}\""),
    "/(?m)^# images = .*$/", "images = ${jsonencode([for name in var.image_repositories : "${local.registry}/${name}"])}"),
    "/(?m)^max_runtime_seconds = .*$/", "max_runtime_seconds = ${var.max_runtime_seconds}",
  )
  operator_file = var.operator_file == null ? local.made_operator_file : var.operator_file
  registry      = "${local.account}.dkr.ecr.${local.region}.${data.aws_partition.current.dns_suffix}"

  set_up = templatefile("${path.module}/set-up.sh.tftpl", {
    region        = local.region
    executor      = var.executor
    gitlab_runner = var.gitlab_runner
    tokens        = join("\n", [for name, runner in var.runners : "${name} ${runner.token_arn}"])
    files = {
      "/etc/sagemaker-executor/sagemaker-executor.toml"           = local.operator_file
      "/etc/gitlab-runner/config.toml.in"                         = local.runner_config
      "/etc/systemd/system/gitlab-runner.service"                 = file("${path.module}/gitlab-runner.service")
      "/etc/systemd/system/sagemaker-executor-sweep.service"      = file("${path.module}/../../systemd/sagemaker-executor-sweep.service")
      "/etc/systemd/system/sagemaker-executor-sweep.timer"        = file("${path.module}/../../systemd/sagemaker-executor-sweep.timer")
      "/usr/local/libexec/sagemaker-executor/write-runner-config" = file("${path.module}/write-runner-config.sh")
    }
  })
  user_data = base64gzip(local.set_up)
}

resource "aws_launch_template" "host" {
  name          = "${var.name}-host"
  description   = "Runner host of sagemaker-executor"
  image_id      = var.ami_id
  instance_type = var.instance_type
  user_data     = local.user_data
  # A changed file makes a new version, and the group replaces its instance by it.
  update_default_version = true
  tags                   = var.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.host.arn
  }

  vpc_security_group_ids = [aws_security_group.host.id]

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = var.root_volume.device

    ebs {
      volume_size           = var.root_volume.size_gb
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = "${var.name}-host" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, { Name = "${var.name}-host" })
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data) <= 21800
      error_message = "The set-up of the host has ${length(local.user_data)} characters of base64, and EC2 takes 16 KB: give a shorter operator_file, without its comments."
    }

    precondition {
      condition     = (var.operator_file == null) == (var.policies == null)
      error_message = "`operator_file` and `policies` belong together: give both, or none."
    }

    precondition {
      condition     = alltrue([for url in [var.executor.url, var.gitlab_runner.url] : startswith(url, "https://") || startswith(url, "s3://${coalesce(var.download_bucket, "-")}/")])
      error_message = "An address of `executor` or `gitlab_runner` is in S3: name its bucket in `download_bucket`, so that the host may read it."
    }
  }
}

resource "aws_autoscaling_group" "host" {
  name                      = "${var.name}-host"
  min_size                  = 1
  max_size                  = 1
  desired_capacity          = 1
  vpc_zone_identifier       = local.host_subnet_ids
  health_check_type         = "EC2"
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.host.id
    version = aws_launch_template.host.latest_version
  }

  # The old instance ends first: the state of its jobs is on its disk, and the group has room for one. Sessions that it leaves are ended by the sweep of the next one.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 0
    }
  }

  dynamic "tag" {
    for_each = merge(var.tags, { Name = "${var.name}-host" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  # The host needs all of these when it starts.
  depends_on = [
    aws_iam_role_policy.host,
    aws_iam_role_policy.start,
    aws_route.host,
    aws_vpc_endpoint.interfaces,
    aws_vpc_security_group_egress_rule.endpoints,
    aws_vpc_security_group_egress_rule.host,
    aws_vpc_security_group_egress_rule.s3,
    aws_vpc_security_group_ingress_rule.endpoints,
  ]
}
