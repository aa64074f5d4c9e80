//! Compares a job with the warm pools of its project. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::human::human_duration;
use crate::cloud::PoolProperties;

/// The warm pools of the project just before the training job was requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmPools {
    /// Seconds that the job's own instances stay.
    pub keep_alive: u64,
    /// `None`: the pools could not be looked up.
    pub seen: Option<Vec<PoolSeen>>,
}

/// A warm pool: the job that left its instances, and what a job must share with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSeen {
    pub job: String,
    pub properties: PoolProperties,
}

/// The fate of a pool that matches the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFate<'a> {
    /// The job that left it.
    pub left_by: &'a str,
    pub taken_by: Option<&'a str>,
}

impl WarmPools {
    /// The pools whose instances SageMaker may give to a job with these properties.
    pub fn matching<'a>(&'a self, ours: &PoolProperties) -> impl Iterator<Item = &'a PoolSeen> {
        self.seen.iter().flatten().filter(|pool| differences(&pool.properties, ours).next().is_none())
    }

    /// The line for the job's log once its container runs. `fates` are those of the matching pools, `waited` the time since the
    /// request. `None` when nothing is known.
    pub fn line(
        &self,
        own: (&str, &PoolProperties),
        fates: &[PoolFate<'_>],
        waited: Option<Duration>,
    ) -> Option<String> {
        let (name, ours) = own;
        let seen = self.seen.as_ref()?;
        if let Some(fate) = fates.iter().find(|fate| fate.taken_by == Some(name)) {
            let waited = waited.map(|waited| format!(", {} after the request", human_duration(waited)));
            return Some(format!("Warm pool of {}: reused{}", fate.left_by, waited.unwrap_or_default()));
        }
        if let Some(fate) = fates.first() {
            return Some(match fate.taken_by {
                Some(other) => format!("The warm pool of {} went to {other}", fate.left_by),
                None => format!("SageMaker did not give the warm pool of {} to this job", fate.left_by),
            });
        }
        let differing = seen.iter().map(|pool| (pool, differences(&pool.properties, ours).collect::<Vec<_>>()));
        let nearest = differing.filter(|(_, differences)| !differences.is_empty()).min_by_key(|(_, found)| found.len());
        Some(match nearest {
            Some((pool, differences)) => {
                let theirs: Vec<_> =
                    differences.iter().map(|found| format!("{} {}", found.name, found.theirs)).collect();
                let ours: Vec<_> = differences.iter().map(|found| found.ours.as_str()).collect();
                format!(
                    "No warm pool matched: {} has {}, this job {}",
                    pool.job,
                    theirs.join(" and "),
                    ours.join(" and ")
                )
            }
            None => format!(
                "The project had no warm pool; the instances stay for {} after this job",
                human_duration(Duration::from_secs(self.keep_alive))
            ),
        })
    }
}

/// A property in which two jobs differ.
struct Difference {
    name: &'static str,
    theirs: String,
    ours: String,
}

fn differences(theirs: &PoolProperties, ours: &PoolProperties) -> impl Iterator<Item = Difference> {
    let (theirs, ours) = (shown(theirs), shown(ours));
    let both = theirs.into_iter().zip(ours).filter(|(theirs, ours)| theirs != ours);
    both.map(|((name, theirs), (_, ours))| Difference { name, theirs, ours })
}

/// Each property with its value, in the order of "Matching training jobs" of SageMaker's developer guide.
fn shown(properties: &PoolProperties) -> [(&'static str, String); 10] {
    let listed = |ids: &[String]| if ids.is_empty() { "none".to_owned() } else { ids.join(",") };
    let switch = |is_on: bool| if is_on { "on" } else { "off" }.to_owned();
    [
        ("instance type", properties.instance_type.clone()),
        ("instance count", properties.instance_count.to_string()),
        ("volume size", format!("{} GB", properties.volume_size_gb)),
        ("role", properties.role_arn.clone()),
        ("volume key", properties.volume_kms_key_id.clone().unwrap_or_else(|| "none".to_owned())),
        ("subnets", listed(&properties.subnets)),
        ("security groups", listed(&properties.security_group_ids)),
        ("encryption between its instances", switch(properties.encrypts_traffic)),
        ("network isolation", switch(properties.is_isolated)),
        // A creator's session has another tag then.
        ("checkpoints", switch(properties.has_checkpoints)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "gitlab-1-3-abcdef12";

    fn properties(volume_size_gb: u32) -> PoolProperties {
        PoolProperties {
            role_arn: "role".to_owned(),
            instance_type: "ml.m5.large".to_owned(),
            instance_count: 1,
            volume_size_gb,
            ..PoolProperties::default()
        }
    }

    fn pools(sizes: &[u32]) -> WarmPools {
        let pool = |(number, size): (usize, &u32)| PoolSeen {
            job: format!("gitlab-1-{}-00000000", number + 1),
            properties: properties(*size),
        };
        WarmPools { keep_alive: 600, seen: Some(sizes.iter().enumerate().map(pool).collect()) }
    }

    fn line(pools: &WarmPools, taken_by: Option<&str>) -> Option<String> {
        let ours = properties(100);
        let fates: Vec<_> = pools.matching(&ours).map(|pool| PoolFate { left_by: &pool.job, taken_by }).collect();
        pools.line((NAME, &ours), &fates, Some(Duration::from_secs(4)))
    }

    #[test]
    fn a_matching_pool_was_reused_or_went_elsewhere() {
        let seen = pools(&[50, 100]);
        let reused = "Warm pool of gitlab-1-2-00000000: reused, 4 s after the request";
        assert_eq!(line(&seen, Some(NAME)).as_deref(), Some(reused));
        let other = "The warm pool of gitlab-1-2-00000000 went to gitlab-1-9-00000000";
        assert_eq!(line(&seen, Some("gitlab-1-9-00000000")).as_deref(), Some(other));
        let denied = "SageMaker did not give the warm pool of gitlab-1-2-00000000 to this job";
        assert_eq!(line(&seen, None).as_deref(), Some(denied));
    }

    #[test]
    fn without_a_match_the_nearest_pool_is_told_with_what_differs() {
        let mut seen = pools(&[20, 50]);
        seen.seen.as_mut().unwrap()[0].properties.role_arn = "another".to_owned();
        let size = "No warm pool matched: gitlab-1-2-00000000 has volume size 50 GB, this job 100 GB";
        assert_eq!(line(&seen, None).as_deref(), Some(size));
        seen.seen.as_mut().unwrap().pop();
        let both = "No warm pool matched: gitlab-1-1-00000000 has volume size 20 GB and role another, this job 100 GB and role";
        assert_eq!(line(&seen, None).as_deref(), Some(both));
        let none = "The project had no warm pool; the instances stay for 10 min after this job";
        assert_eq!(line(&pools(&[]), None).as_deref(), Some(none));
        assert_eq!(line(&WarmPools { seen: None, ..pools(&[]) }, None), None);
    }

    #[test]
    fn each_property_of_sagemakers_list_counts() {
        let ours = properties(100);
        let changes: [fn(&mut PoolProperties); 10] = [
            |one| one.role_arn.push('x'),
            |one| one.instance_type.push('x'),
            |one| one.instance_count = 2,
            |one| one.volume_size_gb = 1,
            |one| one.volume_kms_key_id = Some("key".to_owned()),
            |one| one.subnets.push("subnet".to_owned()),
            |one| one.security_group_ids.push("sg".to_owned()),
            |one| one.encrypts_traffic = true,
            |one| one.is_isolated = true,
            |one| one.has_checkpoints = true,
        ];
        for change in changes {
            let mut theirs = ours.clone();
            change(&mut theirs);
            assert_eq!(differences(&theirs, &ours).count(), 1, "{theirs:?}");
        }
        assert_eq!(differences(&ours, &ours).count(), 0);
    }
}
