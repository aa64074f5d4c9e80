# The network: a VPC of the module's own, or the caller's; endpoints for the services; security groups.
#
# host subnets ── NAT gateway ── GitLab            (only with `internet`)
#      └──────────┐
#                 ├── endpoints: S3 by route, the others by interfaces in the host subnets
#      ┌──────────┘
# training subnets                                 (no way out but the endpoints)

data "aws_availability_zones" "available" {
  count = var.network == null && length(var.availability_zones) == 0 ? 1 : 0

  state = "available"
}

locals {
  own_vpc = var.network == null
  zones   = length(var.availability_zones) > 0 ? var.availability_zones : try(slice(data.aws_availability_zones.available[0].names, 0, min(2, length(data.aws_availability_zones.available[0].names))), [])
  # The zone and its number, which gives the range of addresses.
  zone_numbers = local.own_vpc ? { for number, zone in local.zones : zone => number } : {}

  vpc_id              = local.own_vpc ? aws_vpc.own[0].id : var.network.vpc_id
  host_subnet_ids     = local.own_vpc ? [for zone in local.zones : aws_subnet.host[zone].id] : var.network.host_subnet_ids
  training_subnet_ids = local.own_vpc ? [for zone in local.zones : aws_subnet.training[zone].id] : var.network.training_subnet_ids
}

resource "aws_vpc" "own" {
  count = local.own_vpc ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = var.name })
}

# Nothing uses the VPC's default group, and nobody who does reaches anything.
resource "aws_default_security_group" "own" {
  count = local.own_vpc ? 1 : 0

  vpc_id = aws_vpc.own[0].id
  tags   = merge(var.tags, { Name = "${var.name}-default-unused" })
}

resource "aws_subnet" "host" {
  for_each = local.zone_numbers

  vpc_id            = aws_vpc.own[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, each.value)
  tags              = merge(var.tags, { Name = "${var.name}-host-${each.key}" })
}

resource "aws_subnet" "training" {
  for_each = local.zone_numbers

  vpc_id            = aws_vpc.own[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, 8 + each.value)
  tags              = merge(var.tags, { Name = "${var.name}-training-${each.key}" })
}

resource "aws_route_table" "host" {
  count = local.own_vpc ? 1 : 0

  vpc_id = aws_vpc.own[0].id
  tags   = merge(var.tags, { Name = "${var.name}-host" })
}

resource "aws_route_table" "training" {
  count = local.own_vpc ? 1 : 0

  vpc_id = aws_vpc.own[0].id
  tags   = merge(var.tags, { Name = "${var.name}-training" })
}

resource "aws_route_table_association" "host" {
  for_each = local.zone_numbers

  subnet_id      = aws_subnet.host[each.key].id
  route_table_id = aws_route_table.host[0].id
}

resource "aws_route_table_association" "training" {
  for_each = local.zone_numbers

  subnet_id      = aws_subnet.training[each.key].id
  route_table_id = aws_route_table.training[0].id
}

# The way of the host to GitLab.

locals {
  with_nat = local.own_vpc && var.internet
}

resource "aws_subnet" "public" {
  count = local.with_nat ? 1 : 0

  vpc_id            = aws_vpc.own[0].id
  availability_zone = local.zones[0]
  cidr_block        = cidrsubnet(var.vpc_cidr, 8, 255)
  tags              = merge(var.tags, { Name = "${var.name}-nat" })

  lifecycle {
    precondition {
      condition     = length(local.zones) > 0
      error_message = "The region shows no availability zone: set availability_zones."
    }
  }
}

resource "aws_internet_gateway" "own" {
  count = local.with_nat ? 1 : 0

  vpc_id = aws_vpc.own[0].id
  tags   = merge(var.tags, { Name = var.name })
}

resource "aws_route_table" "public" {
  count = local.with_nat ? 1 : 0

  vpc_id = aws_vpc.own[0].id
  tags   = merge(var.tags, { Name = "${var.name}-nat" })
}

resource "aws_route" "public" {
  count = local.with_nat ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.own[0].id
}

resource "aws_route_table_association" "public" {
  count = local.with_nat ? 1 : 0

  subnet_id      = aws_subnet.public[0].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  count = local.with_nat ? 1 : 0

  domain = "vpc"
  tags   = merge(var.tags, { Name = "${var.name}-nat" })
}

resource "aws_nat_gateway" "own" {
  count = local.with_nat ? 1 : 0

  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id
  tags          = merge(var.tags, { Name = var.name })

  depends_on = [aws_route.public]
}

resource "aws_route" "host" {
  count = local.with_nat ? 1 : 0

  route_table_id         = aws_route_table.host[0].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.own[0].id
}
