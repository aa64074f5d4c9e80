//! The calls that the platform makes in the session of a job's execution role: objects of channels and results, the image, network
//! interfaces, logs and metrics.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::location::S3Location;
use super::state::JobHandle;
use crate::authorization::{Identity, NeededAction, RoleSession, s3_arn};
use crate::caller::Caller;
use crate::partition::partition;
use crate::protocol::text;
use crate::services::logs::JOB_GROUP;
use crate::services::s3::bucket_policy;
use crate::shared::Shared;
use crate::store::{Precondition, Store, Stored};

/// Actions on a network interface; its creation also takes the subnet and the security groups.
const CREATE_INTERFACE: &str = "CreateNetworkInterface";
const INTERFACE: &[&str] =
    &["CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission"];
/// Actions that have no resource.
const NETWORK: &[&str] =
    &["DescribeDhcpOptions", "DescribeNetworkInterfaces", "DescribeSecurityGroups", "DescribeSubnets", "DescribeVpcs"];
const IMAGE: &[&str] = &["BatchCheckLayerAvailability", "GetDownloadUrlForLayer", "BatchGetImage"];

/// The store as a role sees it.
#[derive(Clone)]
pub(crate) struct PlatformStore {
    store: Arc<Store>,
    /// `None` may do everything.
    role: Option<(Arc<Shared>, Caller)>,
}

impl PlatformStore {
    pub(crate) fn new(store: &Arc<Store>, shared: &Arc<Shared>, role: &RoleSession, region: &str) -> Self {
        let caller = caller(shared, role, region);
        Self { store: Arc::clone(store), role: Some((Arc::clone(shared), caller)) }
    }

    /// The objects below a prefix, when the role may list and read them.
    pub(super) fn objects(&self, from: &S3Location) -> anyhow::Result<Vec<(String, Arc<Stored>)>> {
        self.check_list(from)?;
        let objects = self.store.list(&from.bucket, &from.key, None, None, usize::MAX)?.objects;
        objects.iter().try_for_each(|(key, _)| self.check("s3:GetObject", &from.bucket, key))?;
        Ok(objects.into_iter().collect())
    }

    pub(crate) fn object(&self, bucket: &str, key: &str) -> anyhow::Result<Arc<Stored>> {
        self.check("s3:GetObject", bucket, key)?;
        Ok(self.store.get(bucket, key, None)?)
    }

    pub(crate) fn put_file(&self, bucket: &str, key: &str, path: &Path) -> anyhow::Result<()> {
        self.check("s3:PutObject", bucket, key)?;
        Ok(self.store.put_file(bucket, key, path)?)
    }

    pub(super) fn delete(&self, bucket: &str, key: &str) -> anyhow::Result<()> {
        self.check("s3:DeleteObject", bucket, key)?;
        self.store.delete(bucket, key, &Precondition::None)?;
        Ok(())
    }

    /// Whether objects are below a prefix, as far as the role may see.
    pub(super) fn has_objects(&self, place: &S3Location) -> bool {
        let page = self.store.list(&place.bucket, &place.key, None, None, 1);
        self.check_list(place).is_ok() && page.is_ok_and(|page| !page.objects.is_empty())
    }

    /// The ARN of a bucket, or of an object as `BUCKET/KEY`.
    fn s3_arn(&self, path: &str) -> String {
        s3_arn(self.role.as_ref().map_or("", |(_, caller)| &caller.region), path)
    }

    fn check_list(&self, place: &S3Location) -> anyhow::Result<()> {
        let list = NeededAction::new("s3:ListBucket", self.s3_arn(&place.bucket));
        self.check_needed(&list.key("s3:prefix", [place.key.as_str()]), &place.bucket)
    }

    fn check(&self, action: &str, bucket: &str, key: &str) -> anyhow::Result<()> {
        self.check_needed(&NeededAction::new(action, self.s3_arn(&format!("{bucket}/{key}"))), bucket)
    }

    fn check_needed(&self, needed: &NeededAction, bucket: &str) -> anyhow::Result<()> {
        let Some((shared, caller)) = &self.role else { return Ok(()) };
        let location = self.store.settings(bucket).ok().and_then(|settings| settings.location);
        if let Some(region) = location.filter(|region| *region != caller.region) {
            anyhow::bail!(
                "PermanentRedirect: the bucket {bucket} is in the region {region}, and the job in {}",
                caller.region
            );
        }
        let policy = bucket_policy(&self.store, bucket).map_err(anyhow::Error::msg)?;
        let needed = needed.clone().owned_by(&shared.config.account);
        shared.authority.allows(caller, &needed, policy.as_ref()).map_err(anyhow::Error::msg)
    }
}

#[cfg(test)]
impl PlatformStore {
    /// May do everything.
    pub(super) fn unlimited(store: Store) -> Self {
        Self { store: Arc::new(store), role: None }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }
}

impl JobHandle {
    /// Whether the role may create what the job needs in its subnets; without roles of the account every role may.
    pub(super) fn may_connect(&self) -> Result<(), String> {
        let Some(vpc) = self.request.get("VpcConfig").filter(|_| !self.training.shared.authority.accounts().is_empty())
        else {
            return Ok(());
        };
        let (region, account) = (&self.region, &self.config().account);
        let check = |action: &str, resource: &str| {
            let arn = format!("arn:{}:ec2:{region}:{account}:{resource}", partition(region));
            self.check_role(&NeededAction::new(format!("ec2:{action}"), if resource == "*" { "*" } else { &arn }))
        };
        let names = |list: &str| vpc[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        let interface = "network-interface/eni-1";
        let subnets = names("Subnets").map(|id| format!("subnet/{id}"));
        let groups = names("SecurityGroupIds").map(|id| format!("security-group/{id}"));
        subnets.chain(groups).try_for_each(|place| check(CREATE_INTERFACE, &place))?;
        [CREATE_INTERFACE].iter().chain(INTERFACE).try_for_each(|action| check(action, interface))?;
        NETWORK.iter().try_for_each(|action| check(action, "*"))
    }

    /// Whether the role may pull the image; one that is not in ECR needs no permission.
    pub(super) fn may_pull(&self) -> Result<(), String> {
        let Some((registry, image)) = self.image_name().split_once('/') else { return Ok(()) };
        let parts: Vec<_> = registry.split('.').collect();
        let [account, "dkr", "ecr", region, ..] = parts.as_slice() else { return Ok(()) };
        let repository = image.split(['@', ':']).next().unwrap_or_default();
        let arn = format!("arn:{}:ecr:{region}:{account}:repository/{repository}", partition(region));
        self.check_role(&NeededAction::new("ecr:GetAuthorizationToken", "*"))?;
        IMAGE.iter().try_for_each(|action| self.check_role(&NeededAction::new(format!("ecr:{action}"), &arn)))
    }

    /// Whether the role lets the log agent write a stream, and send metrics. At AWS a job without them runs unseen.
    pub(super) fn may_log(&self, stream: &str) -> bool {
        let group = format!(
            "arn:{}:logs:{}:{}:log-group:{JOB_GROUP}",
            partition(&self.region),
            self.region,
            self.config().account
        );
        let of_group = NeededAction::new("logs:DescribeLogStreams", format!("{group}:log-stream:"));
        let create = NeededAction::new("logs:CreateLogGroup", format!("{group}:log-stream:"));
        let metrics = NeededAction::new("cloudwatch:PutMetricData", "*");
        // Neither stops the agent when the group exists.
        for needed in [of_group, create, metrics.key("cloudwatch:namespace", [JOB_GROUP])] {
            drop(self.check_role(&needed));
        }
        let stream = format!("{group}:log-stream:{stream}");
        ["logs:CreateLogStream", "logs:PutLogEvents"]
            .into_iter()
            .all(|action| self.check_role(&NeededAction::new(action, &stream)).is_ok())
    }

    fn check_role(&self, needed: &NeededAction) -> Result<(), String> {
        let shared = &self.training.shared;
        shared.authority.allows(&caller(shared, &self.role, &self.region), needed, None)
    }

    pub(super) fn role_store(&self) -> PlatformStore {
        PlatformStore::new(&self.training.store, &self.training.shared, &self.role, &self.region)
    }
}

/// The role's session as the caller of the platform's requests.
fn caller(shared: &Shared, role: &RoleSession, region: &str) -> Caller {
    let identity = Identity::Session(role.clone());
    let account = identity.account().unwrap_or(&shared.config.account).to_owned();
    Caller { identity: Arc::new(identity), account, region: region.to_owned() }
}

/// The places of a request's channels.
pub(super) fn channel_uris(request: &Value) -> impl Iterator<Item = &str> {
    let channels = request.get("InputDataConfig").and_then(Value::as_array).into_iter().flatten();
    channels.filter_map(|channel| text(channel.pointer("/DataSource/S3DataSource")?, "S3Uri"))
}
