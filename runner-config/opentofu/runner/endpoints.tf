# Endpoints of AWS's services in the network, made or found, and the security groups around them.

locals {
  makes_endpoints = local.own_vpc ? true : var.network.endpoints
  service_prefix  = "${data.aws_partition.current.reverse_dns_prefix}.${local.region}"
  # S3's gateway has no other name in China.
  s3_service = "com.amazonaws.${local.region}.s3"
  interfaces = toset(["ecr.api", "ecr.dkr", "kms", "logs", "sagemaker.api", "secretsmanager", "ssm", "sts"])

  given_subnets   = local.own_vpc ? toset([]) : toset(concat(var.network.host_subnet_ids, var.network.training_subnet_ids))
  route_table_ids = local.own_vpc ? [aws_route_table.host[0].id, aws_route_table.training[0].id] : distinct([for table in data.aws_route_table.given : table.id])

  s3_endpoint_id = local.makes_endpoints ? aws_vpc_endpoint.s3[0].id : data.aws_vpc_endpoint.s3[0].id
  s3_prefix_list = local.makes_endpoints ? aws_vpc_endpoint.s3[0].prefix_list_id : data.aws_vpc_endpoint.s3[0].prefix_list_id

  # The caller's endpoints share one group, or the caller adds the rules for the others.
  endpoint_security_group_id = local.makes_endpoints ? aws_security_group.endpoints[0].id : sort(data.aws_vpc_endpoint.interfaces["sagemaker.api"].security_group_ids)[0]
}

data "aws_route_table" "given" {
  for_each = local.given_subnets

  subnet_id = each.key
}

resource "aws_vpc_endpoint" "s3" {
  count = local.makes_endpoints ? 1 : 0

  vpc_id            = local.vpc_id
  service_name      = local.s3_service
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.route_table_ids
  tags              = merge(var.tags, { Name = "${var.name}-s3" })
}

resource "aws_vpc_endpoint" "interfaces" {
  for_each = local.makes_endpoints ? local.interfaces : toset([])

  vpc_id              = local.vpc_id
  service_name        = "${local.service_prefix}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = local.host_subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  tags                = merge(var.tags, { Name = "${var.name}-${each.key}" })
}

# The caller's endpoints, checked: a job that cannot reach one of them waits until it fails.

data "aws_vpc_endpoint" "s3" {
  count = local.makes_endpoints ? 0 : 1

  vpc_id       = var.network.vpc_id
  service_name = local.s3_service

  lifecycle {
    postcondition {
      condition     = length(setsubtract(local.route_table_ids, self.route_table_ids)) == 0
      error_message = "A subnet has no way to S3: associate the endpoint ${self.id} with these route tables, or set network.endpoints = true: ${join(", ", setsubtract(local.route_table_ids, self.route_table_ids))}."
    }
  }
}

data "aws_vpc_endpoint" "interfaces" {
  for_each = local.makes_endpoints ? toset([]) : local.interfaces

  vpc_id       = var.network.vpc_id
  service_name = "${local.service_prefix}.${each.key}"

  lifecycle {
    postcondition {
      condition     = self.private_dns_enabled
      error_message = "The endpoint ${self.id} (${each.key}) has no private DNS names, so that the host would not find it: switch them on, or set network.endpoints = true."
    }
  }
}

resource "aws_security_group" "host" {
  name        = "${var.name}-host"
  description = "Runner host: nothing comes in"
  vpc_id      = local.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-host" })
}

resource "aws_security_group" "training" {
  name        = "${var.name}-training"
  description = "Training jobs: nothing comes in, and nothing goes out but to the endpoints"
  vpc_id      = local.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-training" })
}

resource "aws_security_group" "endpoints" {
  count = local.makes_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Endpoints: HTTPS from the runner host and the training jobs"
  vpc_id      = local.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-endpoints" })
}

locals {
  training_security_group_id = aws_security_group.training.id
  groups                     = { host = aws_security_group.host.id, training = aws_security_group.training.id }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.makes_endpoints ? local.groups : {}

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "HTTPS from ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each = local.groups

  security_group_id            = each.value
  description                  = "HTTPS to the endpoints"
  referenced_security_group_id = local.endpoint_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = local.groups

  security_group_id = each.value
  description       = "HTTPS to S3"
  prefix_list_id    = local.s3_prefix_list
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "host" {
  for_each = { for pair in setproduct(var.egress.cidrs, var.egress.ports) : "${pair[0]}:${pair[1]}" => { cidr = pair[0], port = pair[1] } }

  security_group_id = aws_security_group.host.id
  description       = "GitLab, and the addresses of the binaries"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

# Instances of one training job speak to each other at ports of their framework's choice.

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  count = var.several_nodes ? 1 : 0

  security_group_id            = aws_security_group.training.id
  description                  = "Instances of one training job"
  referenced_security_group_id = aws_security_group.training.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "nodes" {
  count = var.several_nodes ? 1 : 0

  security_group_id            = aws_security_group.training.id
  description                  = "Instances of one training job"
  referenced_security_group_id = aws_security_group.training.id
  ip_protocol                  = "-1"
}
