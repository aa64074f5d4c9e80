//! Decides the values that are read from a job's output.

use crate::base::failure::Failure;
use crate::base::metric::MetricDefinition;
use crate::config::job_variables::JobVariables;

pub(super) fn metrics(wishes: &JobVariables) -> Result<Vec<MetricDefinition>, Failure> {
    MetricDefinition::parse_all(wishes.metrics.as_deref().unwrap_or_default())
        .map_err(|unusable| Failure::user(format!("`SAGEMAKER_METRICS` {}", unusable.why)).hint(unusable.change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_metric_is_refused_with_the_variable() {
        let refused = metrics(&JobVariables { metrics: Some("loss".to_owned()), ..JobVariables::default() });
        let text = crate::base::failure::render(&refused.unwrap_err().into());
        insta::assert_snapshot!(text, @r"
        error: `SAGEMAKER_METRICS` has a line without `=`
          hint: write a line for each metric as in `loss=loss: ([-+.\w]+)`
        ");
    }
}
