//! Looks for the data of a job's input channels before the training job is created, which costs money and minutes.

use crate::base::failure::Failure;
use crate::cloud::{ChannelMode, ChannelSource, CloudError, CloudErrorKind, InputData, InputPrefix};
use crate::config::policy::JobInput;

/// Refuses a channel whose bucket is not there, in another region or without an object. A channel that names one object gets its key
/// in place of a folder's. File systems are not looked at.
pub async fn check(data: &dyn InputData, inputs: &mut [JobInput]) -> Result<(), Failure> {
    for JobInput { set_by, channel } in inputs {
        let ChannelSource::S3 { uri, .. } = &mut channel.source else { continue };
        let Some((bucket, prefix)) = uri.strip_prefix("s3://").and_then(|place| place.split_once('/')) else {
            continue;
        };
        let look = async |prefix: &str| data.find(bucket, prefix).await.map_err(|error| unknown(set_by, uri, error));
        let found = look(prefix).await?;
        let key = prefix.trim_end_matches('/');
        if found == InputPrefix::Empty && !key.is_empty() && look(key).await? == InputPrefix::Object {
            if channel.mode == ChannelMode::FastFile {
                return Err(Failure::user(format!("`{set_by}` is one object, and `FastFile` reads folders alone"))
                    .hint(format!("remove `mode=FastFile` from `{set_by}`, or set it to the folder of the object")));
            }
            *uri = format!("s3://{bucket}/{key}");
            continue;
        }
        refusal(set_by, bucket, uri, found)?;
    }
    Ok(())
}

/// Refuses a model output whose bucket is not there or in another region.
pub async fn check_output(data: &dyn InputData, set_by: &str, uri: &str) -> Result<(), Failure> {
    let Some((bucket, _)) = uri.strip_prefix("s3://").and_then(|place| place.split_once('/')) else { return Ok(()) };
    let found = data.find_bucket(bucket, None).await.map_err(|error| {
        Failure::system(format!("`{set_by}`: failed to look for the bucket {bucket}")).caused_by(error)
    })?;
    refusal(set_by, bucket, uri, found)
}

fn refusal(set_by: &str, bucket: &str, uri: &str, found: InputPrefix) -> Result<(), Failure> {
    let folder = "to a folder that holds data, as in `s3://<bucket>/<folder>`";
    match found {
        // The training job's role decides, and not that of this host.
        InputPrefix::Found | InputPrefix::Object | InputPrefix::Unreadable | InputPrefix::OtherOwner => Ok(()),
        InputPrefix::Empty => Err(Failure::user(format!("`{set_by}`: there is no object below {uri}"))
            .hint(format!("set `{set_by}` {folder}, or to one object"))),
        InputPrefix::NoBucket => Err(Failure::user(format!("`{set_by}`: there is no bucket {bucket}"))
            .hint(format!("set `{set_by}` to a folder of a bucket that is there, as in `s3://<bucket>/<folder>`"))),
        InputPrefix::OtherRegion { bucket: there, jobs: here } => Err(Failure::user(format!(
            "`{set_by}`: the bucket {bucket} is in the region `{there}`, and the training job runs in `{here}`"
        ))
        .hint(format!(
            "set `{set_by}` to a folder in a bucket of `{here}`, or select a runner of `{there}` by `tags:`"
        ))),
    }
}

fn unknown(set_by: &str, uri: &str, error: CloudError) -> Failure {
    let failure = Failure::system(format!("`{set_by}`: failed to look for data below {uri}"));
    let failure = match error.kind {
        CloudErrorKind::Denied => failure.hint(
            "allow the runner host's role `s3:ListBucket` on the bucket; `sagemaker-executor policy iam` writes it for the patterns of \
             `allow.inputs`",
        ),
        _ => failure,
    };
    failure.caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::failure::{Kind, render};
    use crate::cloud::Channel;
    use crate::cloud::testing::Memory;

    fn input(uri: &str) -> JobInput {
        let source = ChannelSource::S3 { uri: uri.to_owned(), is_sharded: false };
        let channel = Channel { name: "train".to_owned(), source, mode: ChannelMode::File, content_type: None };
        JobInput { set_by: "SAGEMAKER_INPUT_TRAIN".to_owned(), channel }
    }

    #[tokio::test]
    async fn a_channel_needs_a_bucket_and_an_object() {
        let memory = Memory::new();
        memory.objects.insert("churn/part-0", "x");
        let folder = |key: &str| input(&crate::cloud::ObjectStore::uri(&*memory.objects, key));
        check(&*memory.objects, &mut [folder("churn/")]).await.unwrap();
        for wrong in [folder("chur/"), input("s3://nowhere/churn/")] {
            let failure = check(&*memory.objects, &mut [folder("churn/"), wrong]).await.unwrap_err();
            assert_eq!(failure.kind, Kind::User);
            assert!(render(&failure.into()).contains("`SAGEMAKER_INPUT_TRAIN`: there is no "));
        }
    }

    #[tokio::test]
    async fn a_channel_may_be_one_object() {
        let memory = Memory::new();
        memory.objects.insert("churn/model.tar.gz", "x");
        memory.objects.insert("churn/part", "x");
        memory.objects.insert("churn/part-0", "x");
        let at = |key: &str| input(&crate::cloud::ObjectStore::uri(&*memory.objects, key));
        let mut inputs = [at("churn/model.tar.gz/")];
        check(&*memory.objects, &mut inputs).await.unwrap();
        assert_eq!(inputs, [at("churn/model.tar.gz")]);
        let mut streamed = at("churn/model.tar.gz/");
        streamed.channel.mode = ChannelMode::FastFile;
        // Without a folder's slash SageMaker would read all keys that begin so.
        for (wrong, word) in [(streamed, "`FastFile` reads folders alone"), (at("churn/part/"), "no object below")] {
            let failure = check(&*memory.objects, &mut [wrong]).await.unwrap_err();
            assert!(render(&failure.into()).contains(word));
        }
    }

    #[tokio::test]
    async fn a_model_output_needs_a_bucket() {
        let memory = Memory::new();
        let here = crate::cloud::ObjectStore::uri(&*memory.objects, "models/");
        check_output(&*memory.objects, "SAGEMAKER_MODEL_OUTPUT", &here).await.unwrap();
        let failure = check_output(&*memory.objects, "SAGEMAKER_MODEL_OUTPUT", "s3://nowhere/m/").await.unwrap_err();
        assert_eq!(failure.kind, Kind::User);
        assert!(render(&failure.into()).contains("`SAGEMAKER_MODEL_OUTPUT`: there is no bucket nowhere"));
    }

    #[test]
    fn a_bucket_of_another_region_is_told_with_both() {
        let found = InputPrefix::OtherRegion { bucket: "us-east-1".to_owned(), jobs: "eu-west-1".to_owned() };
        let text = render(&refusal("SAGEMAKER_INPUT_TRAIN", "b", "s3://b/x/", found).unwrap_err().into());
        assert!(text.contains("region `us-east-1`") && text.contains("runs in `eu-west-1`"), "{text}");
    }
}
