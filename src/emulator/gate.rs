//! Handles each authentic request before its service: counts it, applies the fault plan, keeps the quotas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use s3s::Body;

use super::faults::{CallFault, DropPoint, FaultPlan};
use super::protocol::{ApiError, Reply};
use super::quirks::Quotas;
use super::service::{ApiCall, Service, read};
use super::services::Services;
use super::shared::Shared;
use super::store::Store;

/// The services, with the checks that each request passes first.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) services: Services,
    quotas: Quotas,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Gate {
    pub(crate) fn new(shared: &Arc<Shared>, store: Arc<Store>) -> Self {
        let quotas = Quotas::new(&shared.config.quotas);
        quotas.change(&shared.config.faults.quotas);
        Self { shared: Arc::clone(shared), services: Services::new(shared, store), quotas, counts: Mutex::default() }
    }

    /// Replaces the fault plan; its counts begin at zero.
    pub(crate) fn set_faults(&self, plan: FaultPlan) {
        self.quotas.change(&plan.quotas);
        self.shared.faults.set(plan);
    }

    /// Number of requests by operation, refused ones included.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    /// Hands a call to its service, or refuses it; an error drops the connection without an answer.
    pub(crate) async fn pass(&self, service: &Arc<dyn Service>, call: ApiCall) -> anyhow::Result<Reply> {
        let operation = call.operation.clone();
        *self.counts.lock().entry(operation.clone()).or_default() += 1;
        let fault = self.shared.faults.call(&operation, call.request.uri().path());
        if let Some(fault) = &fault {
            if fault.accepted {
                return self.accepted(Arc::clone(service), call, fault.delay_ms).await;
            }
            if let Some(error) = self.trouble(fault, &operation).await? {
                return Ok(service.refuse(error));
            }
        }
        let reply = if self.shared.config.quirks.throttling && !self.quotas.admit(&operation, Instant::now()) {
            service.refuse(ApiError::throttled())
        } else {
            service.call(call).await?
        };
        if fault.is_some_and(|fault| fault.drop == Some(DropPoint::After)) {
            bail!("dropped the connection after {operation}, as the fault plan says");
        }
        Ok(reply)
    }

    /// Runs an operation after its delay, even if the caller no longer waits for the answer.
    async fn accepted(&self, service: Arc<dyn Service>, mut call: ApiCall, delay_ms: u64) -> anyhow::Result<Reply> {
        let body = read(std::mem::take(call.request.body_mut())).await?;
        *call.request.body_mut() = Body::from(body);
        let shutdown = self.shared.shutdown.clone();
        let answer = self.shared.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(delay_ms)) => {}
                () = shutdown.cancelled() => {}
            }
            service.call(call).await
        });
        answer.await.context("failed to wait for the operation")?
    }

    /// Applies a fault before the operation: delays it, drops the connection, or answers with an error.
    async fn trouble(&self, fault: &CallFault, operation: &str) -> anyhow::Result<Option<ApiError>> {
        if fault.delay_ms > 0 {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(fault.delay_ms)) => {}
                () = self.shared.faults.replaced() => {}
            }
        }
        if fault.drop == Some(DropPoint::Before) {
            bail!("dropped the connection before {operation}, as the fault plan says");
        }
        Ok(fault.error.as_ref().map(|code| {
            let message = fault.message.clone().unwrap_or_else(|| "Injected by the fault plan".to_owned());
            ApiError { code: code.clone(), message, status: fault.status.unwrap_or(400) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmulatorConfig;

    #[test]
    fn a_plan_eats_from_a_quota_until_the_next_one() {
        let start = Instant::now();
        let others_take_nine = r#"{"quotas": {"FilterLogEvents": 1}}"#;
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmulatorConfig::new(folder.path());
        config.faults = serde_json::from_str(others_take_nine).unwrap();
        let store = Arc::new(Store::open(folder.path().to_owned()).unwrap());
        let gate = Gate::new(&Arc::new(Shared::new(config, String::new()).unwrap()), store);
        let admitted = || (0..20).filter(|_| gate.quotas.admit("FilterLogEvents", start)).count();
        assert_eq!(admitted(), 1);
        gate.set_faults(FaultPlan::default());
        assert_eq!(admitted(), 10);
        gate.set_faults(serde_json::from_str(r#"{"quotas": {"FilterLogEvents": 0}}"#).unwrap());
        assert_eq!(admitted(), 20);
    }
}
