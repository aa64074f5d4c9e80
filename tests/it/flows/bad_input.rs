//! A pipeline whose training lacks something: one error names what to change, and nothing is published by half.

use super::event::Event;
use super::example::{changed, project};
use super::schedule::JobState;
use super::site::{NAME, Site};
use super::training::commit;
use super::{play, show};

/// Nothing was registered, published or deployed.
#[track_caller]
fn nothing_came_of_it(site: &Site) {
    assert_eq!((site.versions(NAME).len(), site.endpoints().len()), (0, 0));
    assert_eq!((site.api.files().len(), site.api.releases().len(), site.api.tags().len()), (0, 0, 0));
    let packages = site.emulator().objects().into_iter().filter(|key| key.starts_with(NAME)).collect::<Vec<_>>();
    assert_eq!(packages, Vec::<String>::new());
}

/// A training that leaves its metrics and no model.
fn without_a_model(site: &Site) {
    let files = project("candidate-to-stable", NAME);
    commit(site, "main", &files);
    let call = "write_model(arguments.model, model, names, len(rows[0]))";
    let no_model = changed(&files, "training_script.py", call, "print(\"The model stays here\")");
    let tests = ("tests/unit/test_training.py".to_owned(), "def test_nothing():\n    pass\n".to_owned());
    let change: Vec<_> = no_model.into_iter().chain([tests]).collect();
    let sha = commit(site, "main", &change);
    let mut pipeline = site.pipeline(&Event::Push { branch: "main" }, &sha);
    pipeline.run();
    show::pipeline(&pipeline);
    assert_eq!(pipeline.in_state(JobState::Failed), ["stable-register"], "{}", pipeline.told());
    pipeline.job("stable-register").outcome.failed("script_failure", Some(1)).shows("`model.path`");
    assert_eq!(pipeline.schedule.state("stable-package"), JobState::Skipped, "{}", pipeline.told());
    nothing_came_of_it(site);
}

#[test]
fn a_training_without_a_model_publishes_nothing() {
    play("a_training_without_a_model_publishes_nothing", without_a_model);
}
