//! The merge request that a note is for, from the job's variables. Pure.

use crate::config::env::Environment;

/// The number of the merge request in the job's own project: that of the pipeline, else the open one of the branch.
///
/// # Errors
/// Says why there is none.
pub(super) fn of_job(env: &Environment) -> Result<u64, String> {
    if let Some(number) = env.get("CI_MERGE_REQUEST_IID") {
        // The pipeline of a fork runs in the fork, which has no such merge request.
        let (own, project) = (env.get("CI_PROJECT_ID"), env.get("CI_MERGE_REQUEST_PROJECT_ID"));
        if project.is_some() && project != own {
            return Err("the merge request is one of another project".to_owned());
        }
        return number.parse().map_err(|_| "`CI_MERGE_REQUEST_IID` is no number".to_owned());
    }
    let Some(open) = env.get("CI_OPEN_MERGE_REQUESTS") else {
        return Err("the pipeline is not one of a merge request, and its branch has no open one".to_owned());
    };
    // `group/project!1,group/fork!2`
    let own = env.get("CI_PROJECT_PATH");
    let of_project =
        open.split(',').filter_map(|one| one.trim().rsplit_once('!')).filter(|(project, _)| Some(*project) == own);
    let numbers = of_project.filter_map(|(_, number)| number.parse().ok());
    numbers.max().ok_or_else(|| "the open merge requests of the branch are of other projects".to_owned())
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(&[("CI_MERGE_REQUEST_IID", "5")] => Ok(5); "of the pipeline")]
    #[test_case(&[("CI_MERGE_REQUEST_IID", "5"), ("CI_MERGE_REQUEST_PROJECT_ID", "42"), ("CI_PROJECT_ID", "42")] => Ok(5); "of this project")]
    #[test_case(&[("CI_MERGE_REQUEST_IID", "5"), ("CI_MERGE_REQUEST_PROJECT_ID", "42"), ("CI_PROJECT_ID", "7")] => Err("the merge request is one of another project".to_owned()); "of a fork")]
    #[test_case(&[("CI_OPEN_MERGE_REQUESTS", "up/p!9,g/p!3,g/p!4"), ("CI_PROJECT_PATH", "g/p")] => Ok(4); "the newest open one")]
    #[test_case(&[("CI_OPEN_MERGE_REQUESTS", "up/p!9,!,x"), ("CI_PROJECT_PATH", "g/p")] => Err("the open merge requests of the branch are of other projects".to_owned()); "of others")]
    #[test_case(&[] => Err("the pipeline is not one of a merge request, and its branch has no open one".to_owned()); "none")]
    #[test_case(&[("CI_MERGE_REQUEST_IID", "../5")] => Err("`CI_MERGE_REQUEST_IID` is no number".to_owned()); "no number")]
    fn a_job_is_about(variables: &[(&str, &str)]) -> Result<u64, String> {
        of_job(&Environment::from_pairs(variables.iter().map(|(name, value)| (name.into(), value.into()))))
    }
}
