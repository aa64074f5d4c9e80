//! Decides the groups of instances of different types.

use super::bounds::JobBounds;
use super::matching::matches;
use super::refusal::{asked, listed};
use crate::base::failure::Failure;
use crate::cloud::InstanceGroup;
use crate::config::forms::{GROUPS, INSTANCES, is_group_name, is_instance_type};
use crate::config::job_variables::JobVariables;

const VARIABLE: &str = "SAGEMAKER_INSTANCE_GROUPS";
const FORM: &str = "`data=ml.c5.2xlarge x 2, train=ml.g5.xlarge x 1`";

/// The job's groups; none for a job whose instances are of one type.
pub(super) fn groups(wishes: &JobVariables, bounds: &JobBounds) -> Result<Vec<InstanceGroup>, Failure> {
    let mut groups: Vec<InstanceGroup> = Vec::new();
    for text in &wishes.instance_groups {
        let group = parse(text).ok_or_else(|| {
            Failure::user(format!("`{VARIABLE}` has a part that is no group of instances")).hint(format!(
                "write each group as name, type and number, as in {FORM}; a name has letters, digits, `-` and `_`"
            ))
        })?;
        if groups.iter().any(|other| other.name == group.name) {
            return Err(Failure::user(format!("`{VARIABLE}` names the group `{}` twice", group.name))
                .hint(format!("give each group in `{VARIABLE}` a name of its own")));
        }
        groups.push(group);
    }
    if groups.is_empty() {
        return Ok(groups);
    }
    if groups.len() > GROUPS {
        return Err(Failure::user(format!("`{VARIABLE}` has {} groups; SageMaker takes {GROUPS}", groups.len()))
            .hint(format!("keep at most {GROUPS} groups in `{VARIABLE}`")));
    }
    let others = [
        ("SAGEMAKER_INSTANCE_TYPE", !wishes.instance_types.is_empty(), "each group has its own type"),
        ("SAGEMAKER_INSTANCE_COUNT", wishes.instance_count.is_some(), "each group has its own number"),
        ("SAGEMAKER_KEEP_ALIVE", wishes.keep_alive.is_some_and(|time| !time.is_zero()), "groups have no warm pool"),
        ("SAGEMAKER_TRAINING_PLAN", wishes.training_plan.is_some(), "a training plan has one type"),
    ];
    if let Some((other, _, why)) = others.iter().find(|(_, is_set, _)| *is_set) {
        return Err(Failure::user(format!("`{VARIABLE}` and `{other}` cannot go together: {why}"))
            .hint(format!("remove `{other}` or `{VARIABLE}`")));
    }
    check(&groups, bounds)?;
    Ok(groups)
}

fn check(groups: &[InstanceGroup], bounds: &JobBounds) -> Result<(), Failure> {
    let is_allowed = |name: &str| bounds.instance_types.iter().any(|pattern| matches(pattern, name));
    if let Some(group) = groups.iter().find(|group| !is_allowed(&group.instance_type)) {
        let (value, allowed) = (format!("`{}`", group.instance_type), listed(&bounds.instance_types));
        return Err(asked(bounds, VARIABLE, &value, &allowed, "instance_types"));
    }
    let (count, most) = (count(groups), bounds.instance_count.most);
    if count <= most {
        return Ok(());
    }
    let (value, allowed) = (format!("{count} instances"), format!("at most {most}"));
    Err(asked(bounds, VARIABLE, &value, &allowed, "max_instance_count"))
}

/// The number of instances of all groups.
pub(super) fn count(groups: &[InstanceGroup]) -> u32 {
    groups.iter().map(|group| group.count).sum()
}

/// `name=type x number`.
fn parse(text: &str) -> Option<InstanceGroup> {
    let (name, instances) = text.split_once('=')?;
    let (instance_type, count) = instances.rsplit_once(" x ").unwrap_or((instances, "1"));
    let (name, instance_type) = (name.trim(), instance_type.trim());
    let count = count.trim().parse().ok().filter(|count| (1..=INSTANCES).contains(count))?;
    let is_group = is_group_name(name) && is_instance_type(instance_type);
    is_group.then(|| InstanceGroup { name: name.to_owned(), instance_type: instance_type.to_owned(), count })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("data=ml.c5.2xlarge x 2" => Some(("data".into(), "ml.c5.2xlarge".into(), 2)); "all parts")]
    #[test_case("a_1 = ml.c5.xlarge" => Some(("a_1".into(), "ml.c5.xlarge".into(), 1)); "one instance")]
    #[test_case("data=ml.c5.2xlarge x 0" => None; "no instance")]
    #[test_case("data=ml.c5.2xlarge x 101" => None; "too many")]
    #[test_case("data=c5.2xlarge x 1" => None; "no type")]
    #[test_case("=ml.c5.2xlarge" => None; "no name")]
    #[test_case("a b=ml.c5.2xlarge" => None; "no plain name")]
    #[test_case("ml.c5.2xlarge x 2" => None; "a type alone")]
    fn a_group_has_a_name_a_type_and_a_number(text: &str) -> Option<(String, String, u32)> {
        parse(text).map(|group| (group.name, group.instance_type, group.count))
    }
}
