//! Checks of `[[rules]]` and `[prices]`. Each refusal names the rule, the key and what to change. Pure.

use std::collections::BTreeSet;

use super::values::{Checked, SECURITY_GROUPS, SUBNETS, check_ids, in_range, is_region, need, partition_of, refuse};
use crate::base::arn::Arn;
use crate::config::forms;
use crate::config::iam_patterns::name_of_plans;
use crate::config::rules::{Allowance, JobMatch, PolicyRule, is_glob};
use crate::config::settings::Settings;

pub(super) fn check_rules(settings: &Settings) -> Checked {
    for (name, price) in &settings.prices {
        let key = format!("prices.{name}");
        need(
            forms::is_instance_type(name),
            &key,
            "is not the name of an instance type",
            "write it as `\"ml.m5.large\" = 0.12`",
        )?;
        let change = "set it to the price of one instance for an hour";
        need(price.is_finite() && *price >= 0.0, &key, &format!("is {price}, which is not a price"), change)?;
    }
    let mut names = BTreeSet::new();
    for (index, rule) in settings.rules.iter().enumerate() {
        let (place, by_index) = (format!("rules.{}", rule.name), format!("rules[{index}]"));
        let key = format!("{by_index}.name");
        let is_name = !rule.name.trim().is_empty() && !rule.name.chars().any(char::is_control);
        need(is_name, &key, "is empty or holds control characters", "name the rule as in `name = \"training\"`")?;
        let change = "give each of `[[rules]]` a name of its own: refusals and the audit log show it";
        need(names.insert(rule.name.as_str()), &place, "is the name of two rules", change)
            .map_err(|refusal| refusal.moved(&place, &key))?;
        check_match(&place, &rule.jobs)
            .and_then(|()| check_allowance(&place, rule, settings))
            .map_err(|refusal| refusal.moved(&place, &by_index))?;
    }
    check_reached(settings)
}

/// Refuses a rule behind one that is for all jobs.
fn check_reached(settings: &Settings) -> Checked {
    let Some(at) = settings.rules.iter().position(|rule| is_for_all(&rule.jobs)) else { return Ok(()) };
    let (Some(before), Some(rule)) = (settings.rules.get(at), settings.rules.get(at + 1)) else { return Ok(()) };
    let place = format!("rules.{}", rule.name);
    let why = format!("is never reached: the rule `{}` before it is for all jobs", before.name);
    refuse(&place, &why, "move it before that rule; the first rule that matches decides")
        .map_err(|refusal| refusal.moved(&place, &format!("rules[{}]", at + 1)))
}

/// `true` when every job that has a project matches.
fn is_for_all(jobs: &JobMatch) -> bool {
    let JobMatch { projects, namespaces, refs, protected, fork, instances } = jobs;
    let is_any = |patterns: &[String]| patterns.is_empty() || patterns.iter().any(|pattern| pattern == "**");
    is_any(projects)
        && is_any(refs)
        && is_any(instances)
        && namespaces.is_empty()
        && protected.is_none()
        && fork.is_none()
}

pub(super) fn check_match(place: &str, jobs: &JobMatch) -> Checked {
    let lists = [
        ("projects", &jobs.projects),
        ("namespaces", &jobs.namespaces),
        ("refs", &jobs.refs),
        ("instances", &jobs.instances),
    ];
    for (key, patterns) in lists {
        check_globs(&format!("{place}.match.{key}"), patterns)?;
    }
    for (key, patterns) in lists.into_iter().take(2) {
        let wrong = patterns
            .iter()
            .find(|pattern| pattern.starts_with('/') || pattern.ends_with('/') || pattern.contains("://"));
        if let Some(wrong) = wrong {
            let change = "write the path alone, as in `group/project`, without slashes at its ends";
            return refuse(
                &format!("{place}.match.{key}"),
                &format!("has `{wrong}`, which is the path of no project"),
                change,
            );
        }
    }
    if let Some(wrong) = jobs.refs.iter().find(|name| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"))
    {
        let change = "write the name of the branch or tag alone, as in `main`";
        return refuse(&format!("{place}.match.refs"), &format!("has `{wrong}`, which GitLab does not send"), change);
    }
    let of_merge_requests: Vec<_> = jobs.refs.iter().filter(|name| name.starts_with("refs/merge-requests/")).collect();
    if let [wrong] = of_merge_requests.as_slice()
        && wrong.ends_with("/head")
    {
        let why = format!("has `{wrong}`, which leaves out merged results (`/merge`) and merge trains (`/train`)");
        return refuse(&format!("{place}.match.refs"), &why, "write `refs/merge-requests/**`");
    }
    if let Some(wrong) = jobs.instances.iter().find(|name| name.contains('/')) {
        let change = "write the host alone, as in `gitlab.example.com` or `gitlab.example.com:8443`";
        return refuse(&format!("{place}.match.instances"), &format!("has `{wrong}`, which is not a host"), change);
    }
    Ok(())
}

pub(super) fn check_globs(key: &str, patterns: &[String]) -> Checked {
    for pattern in patterns {
        let is_pattern = !pattern.is_empty() && is_glob(pattern);
        let change = "use `*` for any characters but slashes, `**` for whole parts of a path, `?` for one character";
        need(is_pattern, key, &format!("has `{pattern}`, which is no pattern"), change)?;
    }
    Ok(())
}

/// Refuses patterns that no URI of these schemes matches, or that end in a slash, which the compared URIs do not.
fn check_uris(key: &str, patterns: Option<&[String]>, schemes: &[&str]) -> Checked {
    let is_uri = |pattern: &str| pattern.starts_with('*') || schemes.iter().any(|scheme| pattern.starts_with(scheme));
    for pattern in patterns.unwrap_or_default() {
        let change = "write patterns such as `s3://<bucket>/<folder>/**`, with the folder alone for it and all below";
        need(is_uri(pattern), key, &format!("has `{pattern}`, which is the URI of no data"), change)?;
        need(!pattern.ends_with('/'), key, &format!("has `{pattern}`, which ends with a slash"), change)?;
    }
    Ok(())
}

/// Refuses patterns of the executor's own bucket that also stand for its own objects.
fn check_own_place(key: &str, patterns: Option<&[String]>, settings: &Settings) -> Checked {
    let own = settings.own_place();
    let Some(wrong) = patterns.unwrap_or_default().iter().find(|pattern| own.is_named_by(pattern)) else {
        return Ok(());
    };
    let why = format!(
        "has `{wrong}`, which also stands for the executor's own objects in `s3://{}/{}`",
        own.bucket, own.prefix
    );
    refuse(key, &why, &format!("write folders beside them, as in `s3://{}/data/**`", own.bucket))
}

fn check_allowance(place: &str, rule: &PolicyRule, settings: &Settings) -> Checked {
    let allow = &rule.allow;
    let key = |name: &str| format!("{place}.allow.{name}");
    check_lists(place, allow)?;
    check_own_place(&key("inputs"), allow.inputs.as_deref(), settings)?;
    check_own_place(&key("model_outputs"), allow.model_outputs.as_deref(), settings)?;
    for plan in allow.training_plans.iter().flatten() {
        let why = format!("has `{plan}`, which is not a pattern of the ARNs of training plans");
        let change = "write it as in `arn:aws:sagemaker:<region>:<account>:training-plan/*`; wildcards may stand for the name, `*` also for \
                      region and account";
        need(name_of_plans(plan).is_some(), &key("training_plans"), &why, change)?;
    }
    let counts = [
        ("max_instance_count", allow.max_instance_count, forms::INSTANCES),
        ("max_volume_size_gb", allow.max_volume_size_gb, forms::VOLUME_GB),
        ("max_jobs", allow.max_jobs, u32::MAX),
    ];
    for (name, value, most) in counts {
        value.map_or(Ok(()), |value| in_range(&key(name), value, 1, most))?;
    }
    let times = [
        ("max_runtime_seconds", allow.max_runtime_seconds, 1, forms::MAX_RUNTIME),
        ("max_retries", allow.max_retries.map(u64::from), 0, forms::RETRIES.into()),
        ("max_keep_alive_seconds", allow.max_keep_alive_seconds, 0, forms::KEEP_ALIVE),
        ("max_queue_timeout_seconds", allow.max_queue_timeout_seconds, 0, forms::QUEUE_TIMEOUT),
        ("max_pending_seconds", allow.max_pending_seconds, 0, *forms::MAX_PENDING.end()),
        ("max_keep_on_failure_seconds", allow.max_keep_on_failure_seconds, 0, forms::KEEP_ON_FAILURE),
    ];
    for (name, value, least, most) in times {
        value.map_or(Ok(()), |value| in_range(&key(name), value, least, most))?;
    }
    if let Some(most) = allow.max_cost {
        let change = format!("set `{}` to the largest cost of one job, in the unit of `[prices]`", key("max_cost"));
        need(most.is_finite() && most > 0.0, &key("max_cost"), &format!("is {most}"), &change)?;
        let change =
            "add `[prices]` with the price of one instance for an hour of each type, as in `\"ml.m5.large\" = 0.12`";
        need(!settings.prices.is_empty(), &key("max_cost"), "needs the prices of the instance types", change)?;
    }
    for role in allow.roles.iter().flatten() {
        let change = format!("write `{}` as in `arn:aws:iam::<account>:role/<name>`", key("roles"));
        need(
            forms::is_role_arn(role),
            &key("roles"),
            &format!("has `{role}`, which is not the ARN of an IAM role"),
            &change,
        )?;
        let partition = Arn::parse(role).map(|arn| arn.partition).unwrap_or_default();
        let wanted = settings.aws.region.as_deref().and_then(partition_of);
        let why = format!("has `{role}`, which is not of the partition of `aws.region`");
        need(
            wanted.is_none_or(|wanted| wanted == partition),
            &key("roles"),
            &why,
            "name roles of the account that `aws.region` is used with",
        )?;
    }
    for region in allow.regions.iter().flatten() {
        let why = format!("has `{region}`, which is not the name of a region");
        need(is_region(region), &key("regions"), &why, "write names such as `eu-west-1`")?;
    }
    Ok(())
}

fn check_lists(place: &str, allow: &Allowance) -> Checked {
    let key = |name: &str| format!("{place}.allow.{name}");
    let lists = [
        ("instance_types", &allow.instance_types),
        ("roles", &allow.roles),
        ("images", &allow.images),
        ("regions", &allow.regions),
        ("subnets", &allow.subnets),
        ("security_group_ids", &allow.security_group_ids),
    ];
    for (name, list) in lists {
        let is_empty = list.as_ref().is_some_and(Vec::is_empty);
        need(
            !is_empty,
            &key(name),
            "is empty, so no job could run",
            &format!("list the allowed values in `{}`, or remove it", key(name)),
        )?;
    }
    let globs = [
        ("instance_types", &allow.instance_types),
        ("images", &allow.images),
        ("environment", &allow.environment),
        ("training_plans", &allow.training_plans),
        ("inputs", &allow.inputs),
        ("model_outputs", &allow.model_outputs),
    ];
    for (name, list) in globs {
        check_globs(&key(name), list.as_deref().unwrap_or_default())?;
    }
    check_uris(&key("inputs"), allow.inputs.as_deref(), &["s3://", "efs://", "fsx://"])?;
    check_uris(&key("model_outputs"), allow.model_outputs.as_deref(), &["s3://"])?;
    let is_type = |pattern: &&String| !pattern.starts_with("ml.") && !pattern.starts_with('*');
    if let Some(wrong) = allow.instance_types.iter().flatten().find(is_type) {
        let why = format!("has `{wrong}`, and the names of SageMaker's instance types begin with `ml.`");
        return refuse(&key("instance_types"), &why, "write names or patterns such as `ml.g5.*`");
    }
    need(
        allow.subnets.is_some() == allow.security_group_ids.is_some(),
        &key("subnets"),
        "and `security_group_ids` belong together",
        "set both or none",
    )?;
    check_ids(&key("subnets"), allow.subnets.as_deref().unwrap_or_default(), "subnet-", SUBNETS)?;
    let groups = allow.security_group_ids.as_deref().unwrap_or_default();
    check_ids(&key("security_group_ids"), groups, "sg-", SECURITY_GROUPS)
}
