//! Notes which of the preferred instance types SageMaker selected.

use crate::cloud::TrainingJob;
use crate::config::accelerators;
use crate::session::Session;
use crate::session::event::SessionEvent;

/// Notes the selection once it is known, and returns the line that tells it.
pub(super) fn note(session: &mut Session<'_>, job: &TrainingJob) -> anyhow::Result<Option<String>> {
    let selected = &job.pool.instance_type;
    if selected.is_empty() || session.state.request().preferred_types.is_empty() {
        return Ok(None);
    }
    let line = line(selected, &session.state.request().preferred_types);
    session.apply(SessionEvent::TypeSelected(selected))?;
    Ok(Some(line))
}

/// SageMaker takes the first type that it can give, and does not say why it cannot give the ones before.
fn line(selected: &str, preferred: &[String]) -> String {
    let passed: Vec<&str> = preferred.iter().map(String::as_str).take_while(|name| *name != selected).collect();
    let selected = accelerators::with_words(selected);
    if passed.is_empty() {
        return format!("SageMaker selected {selected}");
    }
    format!("SageMaker selected {selected}: no quota or no capacity for {}", passed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_before_the_selected_one_are_told() {
        let preferred = ["a", "ml.g5.xlarge", "c"].map(str::to_owned);
        assert_eq!(line("a", &preferred), "SageMaker selected a");
        assert_eq!(
            line("ml.g5.xlarge", &preferred),
            "SageMaker selected ml.g5.xlarge (1 A10G GPU): no quota or no capacity for a"
        );
        assert_eq!(line("c", &preferred), "SageMaker selected c: no quota or no capacity for a, ml.g5.xlarge");
    }
}
