//! Looks for the data of a job's input channels before the training job is created, which costs money and minutes.

use crate::base::failure::Failure;
use crate::cloud::{ChannelSource, CloudError, CloudErrorKind, InputData, InputPrefix};
use crate::config::policy::JobInput;

/// Refuses a channel whose bucket is not there, in another region or without an object. File systems are not looked at.
pub async fn check(data: &dyn InputData, inputs: &[JobInput]) -> Result<(), Failure> {
    for input in inputs {
        let ChannelSource::S3 { uri, .. } = &input.channel.source else { continue };
        let Some((bucket, prefix)) = uri.strip_prefix("s3://").and_then(|place| place.split_once('/')) else {
            continue;
        };
        let found = data.find(bucket, prefix).await.map_err(|error| unknown(&input.set_by, uri, error))?;
        refusal(&input.set_by, bucket, uri, found)?;
    }
    Ok(())
}

fn refusal(set_by: &str, bucket: &str, uri: &str, found: InputPrefix) -> Result<(), Failure> {
    let folder = "to a folder that holds data, as in `s3://<bucket>/<folder>`";
    match found {
        InputPrefix::Found => Ok(()),
        InputPrefix::Empty => Err(Failure::user(format!("`{set_by}`: there is no object below {uri}"))
            .hint(format!("set `{set_by}` {folder}; a single object is read as the folder it is in"))),
        InputPrefix::NoBucket => {
            Err(Failure::user(format!("`{set_by}`: there is no bucket {bucket}"))
                .hint(format!("set `{set_by}` {folder}")))
        }
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
    use crate::cloud::testing::Memory;
    use crate::cloud::{Channel, ChannelMode};

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
        check(&*memory.objects, &[folder("churn/")]).await.unwrap();
        for wrong in [folder("chur/"), input("s3://nowhere/churn/")] {
            let failure = check(&*memory.objects, &[folder("churn/"), wrong]).await.unwrap_err();
            assert_eq!(failure.kind, Kind::User);
            assert!(render(&failure.into()).contains("`SAGEMAKER_INPUT_TRAIN`: there is no "));
        }
    }

    #[test]
    fn a_bucket_of_another_region_is_told_with_both() {
        let found = InputPrefix::OtherRegion { bucket: "us-east-1".to_owned(), jobs: "eu-west-1".to_owned() };
        let text = render(&refusal("SAGEMAKER_INPUT_TRAIN", "b", "s3://b/x/", found).unwrap_err().into());
        assert!(text.contains("region `us-east-1`") && text.contains("runs in `eu-west-1`"), "{text}");
    }
}
