//! Creating the training job so that it exists once, whatever is retried: create means adopt.

use std::time::Duration;

use crate::cloud::{Cloud, CloudError, CloudErrorKind, TrainingJobSpec};
use crate::failure::Failure;
use crate::policy::Decision;
use crate::session::spec::tag;

/// A job whose name is taken is looked for this often before it counts as somebody else's.
const VISIBLE_TRIES: u32 = 10;
const VISIBLE_PAUSE: Duration = Duration::from_secs(1);

/// The created or adopted training job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub arn: String,
    pub instance_type: String,
}

/// Asks for each instance type in turn until the account's quota allows one.
pub async fn create(cloud: &Cloud, mut spec: TrainingJobSpec, decision: &Decision) -> anyhow::Result<Created> {
    let mut refused: Vec<String> = Vec::new();
    for instance_type in &decision.instance_types {
        spec.instance_type.clone_from(instance_type);
        match cloud.jobs.create(&spec).await {
            Ok(arn) => return Ok(Created { arn, instance_type: instance_type.clone() }),
            Err(error) if error.kind == CloudErrorKind::Exists => return adopt(cloud, &spec).await,
            Err(error) if error.kind == CloudErrorKind::Quota || error.kind == CloudErrorKind::Capacity => {
                refused.push(error.message);
            }
            Err(error) => return Err(refusal(error, &spec)),
        }
    }
    Err(Failure::system(format!("no instance type of the job can be had: {}", refused.join("; ")))
        .hint("add another type to `SAGEMAKER_INSTANCE_TYPE`, or raise the quota in Service Quotas, `Amazon SageMaker`, `for training job usage`")
        .into())
}

/// `true` when SageMaker answered the request with a refusal: no training job came of it.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    use CloudErrorKind::{Capacity, Denied, Invalid, Quota, Throttled};
    let refused = |cause: &CloudError| matches!(cause.kind, Capacity | Denied | Invalid | Quota | Throttled);
    error.chain().filter_map(|cause| cause.downcast_ref::<CloudError>()).any(refused)
}

/// The name is taken: it is ours when it carries our session's tag, as after a reply that was lost.
async fn adopt(cloud: &Cloud, spec: &TrainingJobSpec) -> anyhow::Result<Created> {
    let foreign = || Failure::system(format!("a training job {} exists already and is not of this session", spec.name));
    let mut tries = 0;
    let job = loop {
        match cloud.jobs.describe(&spec.name).await? {
            Some(job) => break job,
            // Created a moment ago and not visible yet.
            None if tries < VISIBLE_TRIES => tries += 1,
            None => return Err(foreign().into()),
        }
        tokio::time::sleep(VISIBLE_PAUSE).await;
    };
    let tags = cloud.jobs.tags(&job.arn).await?;
    if tags.get(tag::SESSION) != spec.tags.get(tag::SESSION) {
        return Err(foreign().into());
    }
    if job.status.is_terminal() {
        return Err(Failure::system(format!("the training job {} of this session has ended already", spec.name)).into());
    }
    Ok(Created { arn: job.arn, instance_type: spec.instance_type.clone() })
}

/// Whose mistake a refused request is, and what to change.
fn refusal(error: CloudError, spec: &TrainingJobSpec) -> anyhow::Error {
    let text = format!("failed to create the training job {}", spec.name);
    let failure = match error.kind {
        CloudErrorKind::Denied => Failure::system(text).hint(format!(
            "allow the runner host's role `{}`, and `iam:PassRole` for `{}`",
            error.action, spec.role_arn
        )),
        CloudErrorKind::Invalid if error.message.contains("nstanceType") => Failure::user(text)
            .hint("set `SAGEMAKER_INSTANCE_TYPE` to a type that SageMaker training offers in this region"),
        CloudErrorKind::Invalid if error.message.contains("mage") => {
            Failure::user(text).hint("check the job's `image:`")
        }
        CloudErrorKind::Invalid if error.message.contains("ole") => {
            Failure::system(text).hint("check `job.role_arn` and that the role trusts `sagemaker.amazonaws.com`")
        }
        _ => Failure::system(text),
    };
    failure.caused_by(error).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cloud::faulty::{Fault, Faulty, When};
    use crate::cloud::memory::{Memory, example_spec};
    use crate::cloud::{Cloud, JobStatus};
    use crate::failure::{Kind, kind_of, render};

    const NAME: &str = "gitlab-1-2-abcdef12";

    fn decision(types: &[&str]) -> Decision {
        Decision {
            image: "i".into(),
            instance_types: types.iter().map(|name| (*name).to_owned()).collect(),
            instance_count: 1,
            volume_size_gb: 1,
            max_runtime: 1,
            role_arn: "r".into(),
            environment: std::collections::BTreeMap::new(),
        }
    }

    fn faulty(memory: &Memory, fault: Fault) -> Cloud {
        Cloud { jobs: Arc::new(Faulty::new(memory.jobs.clone(), [fault])), ..memory.cloud() }
    }

    #[tokio::test]
    async fn a_job_whose_reply_was_lost_is_adopted() {
        let memory = Memory::new();
        let cloud = memory.cloud();
        let first = create(&cloud, example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap();
        let second = create(&cloud, example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(memory.jobs.names(), [NAME]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_somebody_else_or_an_ended_one_is_not_adopted() {
        let memory = Memory::new();
        let mut foreign = example_spec(NAME);
        foreign.tags.insert(tag::SESSION.into(), "other".into());
        memory.cloud().jobs.create(&foreign).await.unwrap();
        let error = create(&memory.cloud(), example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap_err();
        assert!(render(&error).contains("not of this session"));

        let memory = Memory::new();
        create(&memory.cloud(), example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap();
        memory.jobs.set_status(NAME, JobStatus::Stopped, "Stopped");
        let error = create(&memory.cloud(), example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap_err();
        assert!(render(&error).contains("ended already"));
    }

    #[tokio::test]
    async fn the_next_type_is_asked_for_when_the_quota_refuses_one() {
        let memory = Memory::new();
        let cloud = faulty(&memory, Fault::new("create", 1, When::Before, CloudErrorKind::Quota));
        let created = create(&cloud, example_spec(NAME), &decision(&["ml.a.b", "ml.c.d"])).await.unwrap();
        assert_eq!(created.instance_type, "ml.c.d");
        assert_eq!(memory.jobs.spec(NAME).unwrap().instance_type, "ml.c.d");

        let memory = Memory::new();
        let cloud = faulty(&memory, Fault::new("create", 1, When::Before, CloudErrorKind::Quota).forever());
        let error = create(&cloud, example_spec(NAME), &decision(&["ml.a.b", "ml.c.d"])).await.unwrap_err();
        assert_eq!(kind_of(&error), Kind::System);
        assert!(render(&error).contains("`SAGEMAKER_INSTANCE_TYPE`"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_not_visible_yet_is_adopted_all_the_same() {
        let memory = Memory::new();
        create(&memory.cloud(), example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap();
        let late = Hidden { jobs: memory.jobs.clone(), left: std::sync::Mutex::new(3) };
        let cloud = Cloud { jobs: Arc::new(late), ..memory.cloud() };
        assert!(create(&cloud, example_spec(NAME), &decision(&["ml.a.b"])).await.is_ok());
    }

    /// Shows a job only after some looks.
    struct Hidden {
        jobs: Arc<crate::cloud::memory::MemoryJobs>,
        left: std::sync::Mutex<u32>,
    }

    #[async_trait::async_trait]
    impl crate::cloud::TrainingJobs for Hidden {
        async fn create(&self, spec: &TrainingJobSpec) -> Result<String, CloudError> {
            self.jobs.create(spec).await
        }
        async fn describe(&self, name: &str) -> Result<Option<crate::cloud::TrainingJob>, CloudError> {
            let hidden = {
                let mut left = self.left.lock().unwrap();
                *left = left.saturating_sub(1);
                *left > 0
            };
            if hidden { Ok(None) } else { self.jobs.describe(name).await }
        }
        async fn tags(&self, arn: &str) -> Result<std::collections::BTreeMap<String, String>, CloudError> {
            self.jobs.tags(arn).await
        }
        async fn stop(&self, name: &str) -> Result<(), CloudError> {
            self.jobs.stop(name).await
        }
        async fn list(&self, name_contains: &str) -> Result<Vec<crate::cloud::TrainingJobSummary>, CloudError> {
            self.jobs.list(name_contains).await
        }
    }

    #[test]
    fn a_call_that_broke_off_is_no_refusal() {
        let error = |kind| {
            let error = CloudError { kind, operation: "create".into(), message: String::new(), action: "" };
            anyhow::Error::from(Failure::system("x").caused_by(error))
        };
        assert!(is_refusal(&error(CloudErrorKind::Invalid)) && is_refusal(&error(CloudErrorKind::Quota)));
        assert!(!is_refusal(&error(CloudErrorKind::Transient)) && !is_refusal(&error(CloudErrorKind::Other)));
    }

    #[tokio::test]
    async fn a_denied_call_names_the_permission() {
        let memory = Memory::new();
        let cloud = faulty(&memory, Fault::new("create", 1, When::Before, CloudErrorKind::Denied));
        let error = create(&cloud, example_spec(NAME), &decision(&["ml.a.b"])).await.unwrap_err();
        assert_eq!(kind_of(&error), Kind::System);
        assert!(render(&error).contains("`iam:PassRole`"));
    }
}
