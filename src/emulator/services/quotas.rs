//! Service Quotas: the account's quotas of instances, as the command line gives them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::model::Model;
use crate::partition::partition;
use crate::protocol::{Answer, ApiError, text};
use crate::service::{JsonService, Operation};
use crate::shared::Shared;

/// Uses of instances by the prefix of their quota's name.
const USES: [(&str, &str); 3] = [
    ("endpoint:", "for endpoint usage"),
    ("spot:", "for spot training job usage"),
    ("warm-pool:", "for training warm pool usage"),
];

#[derive(Debug)]
pub(crate) struct ServiceQuotas(pub(crate) Arc<Shared>);

impl JsonService for ServiceQuotas {
    const SIGNING_NAME: &'static str = "servicequotas";
    const OPERATIONS: &'static [(&'static str, Operation<Self>)] =
        &[("GetServiceQuota", get), ("ListServiceQuotas", list)];
    const INVALID: &'static str = "IllegalArgumentException";

    fn model() -> &'static Model {
        Model::quotas()
    }
}

impl ServiceQuotas {
    /// The quotas of a request's service, in the order of their names.
    fn of(&self, request: &Value, caller: &Caller) -> Result<Vec<Value>, ApiError> {
        if text(request, "ServiceCode") != Some("sagemaker") {
            return Err(ApiError::new(
                "NoSuchResourceException",
                "The request failed because the service does not exist.",
            ));
        }
        let quotas = self.0.config.instance_quotas.iter().enumerate().map(|(number, (key, value))| {
            let known = USES.iter().find_map(|(prefix, usage)| Some((key.strip_prefix(prefix)?, *usage)));
            let (instance_type, usage) = known.unwrap_or((key, "for training job usage"));
            let code = format!("L-{number:08X}");
            json!({
                "ServiceCode": "sagemaker",
                "ServiceName": "Amazon SageMaker",
                "QuotaArn": format!(
                    "arn:{}:servicequotas:{}:{}:sagemaker/{code}",
                    partition(&caller.region),
                    caller.region,
                    caller.account
                ),
                "QuotaCode": code,
                "QuotaName": format!("{instance_type} {usage}"),
                "Value": value,
                "Unit": "None",
                "Adjustable": true,
                "GlobalQuota": false,
            })
        });
        Ok(quotas.collect())
    }
}

fn get(quotas: &Arc<ServiceQuotas>, request: &Value, caller: &Caller) -> Answer {
    let code = text(request, "QuotaCode");
    let found = quotas.of(request, caller)?.into_iter().find(|quota| text(quota, "QuotaCode") == code);
    let absent = || ApiError::new("NoSuchResourceException", "The request failed because the quota does not exist.");
    found.map(|quota| Some(json!({"Quota": quota}))).ok_or_else(absent)
}

fn list(quotas: &Arc<ServiceQuotas>, request: &Value, caller: &Caller) -> Answer {
    let all = quotas.of(request, caller)?;
    let start = text(request, "NextToken").map_or(Ok(0), str::parse::<usize>);
    let start = start.map_err(|_| ApiError::new("InvalidPaginationTokenException", "Invalid pagination token."))?;
    let most = request["MaxResults"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(100);
    let page: Vec<_> = all.iter().skip(start).take(most).collect();
    let next = (start + page.len() < all.len()).then(|| (start + page.len()).to_string());
    Ok(Some(json!({"Quotas": page, "NextToken": next})))
}
