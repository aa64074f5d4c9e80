//! With the sandbox, a project has one path on every host and slot, and its tree comes back as it is.

use std::io::Write as _;
use std::net::TcpListener;

use crate::support::driver::{sagemaker, sandboxed};
use crate::support::job::{Artifacts, Cache, Job};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

const PROJECT: &str = "/tmp/builds/ml/churn";

fn scenario(name: &'static str, play: fn(&World) -> Vec<Outcome>, expect: fn(&World, &[Outcome])) -> Scenario {
    Scenario { name, needs: &["git", "unzip", "tar"], settings: Settings::default, play, expect }
}

fn commit(world: &World) -> Job {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("a.txt", "a")]);
    Job::new().sources(&repository, "main", &sha)
}

/// A server that answers its first two clients when both are there.
fn meeting_of_two() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let clients: Vec<_> = listener.incoming().take(2).collect();
        for client in clients {
            client.unwrap().write_all(b"go\n").unwrap();
        }
    });
    port
}

/// Two jobs at once, whose slots differ.
#[test]
fn the_path_is_the_same_on_every_slot_and_no_link_leads_to_it() {
    let at_once = |world: &World| {
        let port = meeting_of_two();
        let meet = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r _ <&3");
        let job = commit(world)
            .hook("post_get_sources_script", ["echo host $PWD"])
            .script([&meet, "echo container $PWD; echo real $(pwd -P); ls -A /tmp/builds/ml | tr '\\n' ' '; echo"]);
        std::thread::scope(|threads| {
            let other = threads.spawn(|| world.run(&job).id);
            let ids = [world.run(&job).id, other.join().unwrap()];
            ids.map(|id| world.outcome(id)).to_vec()
        })
    };
    let expect = |world: &World, outcomes: &[Outcome]| {
        for outcome in outcomes {
            let outcome = outcome.succeeded();
            for place in ["host", "container", "real"] {
                outcome.shows(&format!("\n{place} {PROJECT}\n"));
            }
            outcome.shows("\nchurn churn.tmp \n");
        }
        let kept = |slot: &str| world.dirs.builds().join("231-protected").join(slot).join("ml/churn/a.txt");
        assert!(kept("0").exists() && kept("1").exists());
    };
    play(&scenario("one path", at_once, expect), With::RealRunner, sandboxed());
}

#[test]
fn links_that_lead_out_and_nested_repositories_come_back_as_they_are() {
    let leave = |world: &World| {
        let job = commit(world).cache(Cache::new("k", ["out"]));
        let left = job
            .clone()
            .script([
                "mkdir -p out && ln -s /usr/bin/env out/program && ln -s ../../../../etc out/etc && ln -s $PWD/a.txt out/a",
                "git init -q out/nested && echo x > out/nested/x",
            ])
            .artifacts(Artifacts::paths(["out"]));
        let again = job.script(["readlink out/program out/etc out/a; git -C out/nested status --short"]);
        vec![world.run(&left), world.run(&again)]
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        let names = outcomes[0].succeeded().hides("left out").artifact("archive").files();
        for name in ["out/nested/.git/HEAD", "out/nested/x"] {
            assert!(names.contains_key(name), "{name}: {:?}", names.keys());
        }
        outcomes[1].succeeded().shows(&format!("\n/usr/bin/env\n../../../../etc\n{PROJECT}/a.txt\n?? x\n"));
    };
    play(&scenario("a faithful tree", leave, expect), With::RealRunner, sandboxed());
}

#[test]
fn a_script_that_empties_tmp_removes_the_project_and_the_agent_goes_on() {
    let empty = |world: &World| {
        let job = commit(world);
        let emptied = job.clone().script(["rm -rf /tmp/*; echo emptied"]).after_script(["true"]);
        vec![world.run(&emptied), world.run(&job.script(["cat a.txt"]))]
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded().shows("\nemptied\n").shows("the script starts in `/`");
        outcomes[1].succeeded().shows("\na\n");
    };
    play(&scenario("an emptied tmp", empty, expect), With::RealRunner, sandboxed());
}

/// Neither its caches nor its directory.
#[test]
fn protected_refs_read_nothing_that_others_left() {
    let plant = |world: &World| {
        let job = commit(world)
            .cache(Cache::new("k", ["kept"]))
            .hook("pre_get_sources_script", ["find $CI_PROJECT_DIR -name 'planted*' 2>/dev/null || true"]);
        let planted =
            job.clone().script(["mkdir -p kept; echo x > kept/planted"]).artifacts(Artifacts::paths(["kept"]));
        let look = job.script(["ls kept 2>&1 || true"]);
        vec![world.run(&planted.unprotected()), world.run(&look), world.run(&look.clone().unprotected())]
    };
    let expect = |_: &World, outcomes: &[Outcome]| {
        outcomes[0].succeeded();
        outcomes[1].succeeded().hides("\nplanted").hides("/planted");
        outcomes[2].succeeded().shows("\nplanted\n");
    };
    for driver in [sandboxed(), sagemaker()] {
        play(&scenario("caches apart", plant, expect), With::RealRunner, driver);
    }
}
