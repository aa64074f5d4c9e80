//! Names of everything in the operator's account that the policies are about.

use super::wall::Wall;
use crate::base::arn::Arn;
use crate::base::failure::Failure;
use crate::config::iam_patterns::OwnPlace;
use crate::config::settings::Settings;

/// The log group of all training jobs; SageMaker sets its name.
const LOG_GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// Input of each document.
pub(super) struct Account<'a> {
    pub partition: &'a str,
    pub region: &'a str,
    /// Twelve digits.
    pub id: &'a str,
    pub host_role: &'a str,
    /// The role that alone creates training jobs; `None`: the host's own.
    pub creator_role: Option<&'a str>,
    pub settings: &'a Settings,
    pub wall: &'a Wall,
    /// ARNs of the keys.
    pub storage_key: Option<String>,
    pub volume_key: Option<String>,
    pub input_keys: Vec<String>,
    pub model_keys: Vec<String>,
    pub secret_keys: Vec<String>,
}

impl<'a> Account<'a> {
    /// Refuses a file that leaves a name open which the policies must hold.
    pub(super) fn of(settings: &'a Settings, wall: &'a Wall) -> Result<Self, Failure> {
        let Some(role) = wall.roles.first() else {
            return Err(Failure::system("the operator's file names no IAM role of the training jobs")
                .hint("set `job.role_arn`, or `allow.roles` in each of the `rules`"));
        };
        let Some(region) = settings.aws.region.as_deref() else {
            return Err(Failure::system("the operator's file names no region")
                .hint("set `aws.region`: the policies hold it in the names of jobs and logs"));
        };
        let Some(host_role) = settings.iam.host_role_arn.as_deref() else {
            return Err(Failure::system("the operator's file does not name the role of the runner hosts").hint(
                "set `iam.host_role_arn`: the bucket's policy lets that role alone write the agent and read `hosts/`",
            ));
        };
        let creator_role = settings.aws.creator_role_arn.as_deref();
        let Arn { partition, account: id, .. } = parsed(role)?;
        for other in wall.roles.iter().map(String::as_str).chain([host_role]).chain(creator_role) {
            let arn = parsed(other)?;
            if (arn.partition, arn.account) != (partition, id) {
                return Err(Failure::system(format!("the roles `{role}` and `{other}` are of different accounts"))
                    .hint("name roles of one account in `job.role_arn`, `allow.roles`, `aws.creator_role_arn` and `iam.host_role_arn`"));
            }
        }
        let mut account = Self {
            partition,
            region,
            id,
            host_role,
            creator_role,
            settings,
            wall,
            storage_key: None,
            volume_key: None,
            input_keys: Vec::new(),
            model_keys: Vec::new(),
            secret_keys: Vec::new(),
        };
        account.storage_key = account.key("storage.kms_key_id", settings.storage.kms_key_id.as_deref())?;
        account.volume_key = account.key("job.volume_kms_key_id", settings.job.volume_kms_key_id.as_deref())?;
        account.input_keys = account.keys("iam.input_kms_key_ids", &settings.iam.input_kms_key_ids)?;
        account.model_keys = account.keys("iam.model_kms_key_ids", &settings.iam.model_kms_key_ids)?;
        account.secret_keys = account.keys("iam.secret_kms_key_ids", &settings.iam.secret_kms_key_ids)?;
        Ok(account)
    }

    /// The ARN of a key; an alias has none that a policy could name.
    fn key(&self, setting: &str, key: Option<&str>) -> Result<Option<String>, Failure> {
        let Some(key) = key else { return Ok(None) };
        if key.starts_with("alias/") || key.contains(":alias/") {
            return Err(Failure::system(format!("`{setting}` names a KMS key by its alias"))
                .hint(format!("set `{setting}` to the key's id or ARN: a policy of IAM cannot name an alias")));
        }
        Ok(Some(match Arn::parse(key) {
            Some(_) => key.to_owned(),
            None => format!("arn:{}:kms:{}:{}:key/{key}", self.partition, self.region, self.id),
        }))
    }

    fn keys(&self, setting: &str, keys: &[String]) -> Result<Vec<String>, Failure> {
        keys.iter().filter_map(|key| self.key(setting, Some(key)).transpose()).collect()
    }

    pub(super) fn bucket(&self) -> String {
        format!("arn:{}:s3:::{}", self.partition, self.settings.storage.bucket)
    }

    /// The executor's own objects.
    pub(super) fn own_place(&self) -> OwnPlace<'a> {
        self.settings.own_place()
    }

    /// Key below the prefix of the operator's file.
    pub(super) fn key_in_bucket(&self, key: &str) -> String {
        format!("{}/{key}", self.settings.storage.prefix)
    }

    pub(super) fn object(&self, key: &str) -> String {
        format!("{}/{}", self.bucket(), self.key_in_bucket(key))
    }

    pub(super) fn training_job(&self, name: &str) -> String {
        format!("arn:{}:sagemaker:{}:{}:training-job/{name}", self.partition, self.region, self.id)
    }

    pub(super) fn training_plan(&self, name: &str) -> String {
        format!("arn:{}:sagemaker:{}:{}:training-plan/{name}", self.partition, self.region, self.id)
    }

    /// The common part of the ARNs of secrets.
    pub(super) fn secrets(&self) -> String {
        format!("arn:{}:secretsmanager:{}:{}:secret:", self.partition, self.region, self.id)
    }

    /// The log group, in both forms that CloudWatch's actions take.
    pub(super) fn log_group(&self) -> [String; 2] {
        let group = self.logs();
        [group.clone(), format!("{group}:*")]
    }

    pub(super) fn log_stream(&self, name: &str) -> String {
        format!("{}:log-stream:{name}", self.logs())
    }

    fn logs(&self) -> String {
        format!("arn:{}:logs:{}:{}:log-group:{LOG_GROUP}", self.partition, self.region, self.id)
    }

    /// Resource of EC2 in the account.
    pub(super) fn ec2(&self, resource: &str) -> String {
        format!("arn:{}:ec2:{}:{}:{resource}", self.partition, self.region, self.id)
    }

    /// The principal that stands for the account: its administrators.
    pub(super) fn root(&self) -> String {
        format!("arn:{}:iam::{}:root", self.partition, self.id)
    }

    /// Values of `kms:ViaService`. For China both domains: which of them KMS compares with is not verified.
    pub(super) fn via(&self, services: &[&str]) -> Vec<String> {
        let domains: &[&str] =
            if self.partition == "aws-cn" { &["amazonaws.com.cn", "amazonaws.com"] } else { &["amazonaws.com"] };
        let name = |service| move |domain| format!("{service}.{}.{domain}", self.region);
        services.iter().flat_map(|service| domains.iter().map(name(*service))).collect()
    }
}

fn parsed(role: &str) -> Result<Arn<'_>, Failure> {
    Arn::parse(role).ok_or_else(|| Failure::system(format!("`{role}` is not the ARN of a role")))
}
