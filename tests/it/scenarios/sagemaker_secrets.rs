//! The trail of secrets: a job with thirty of them and two of Secrets Manager, every request that AWS gets meanwhile, and what its host keeps afterwards.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::driver::sagemaker_with;
use crate::support::job::{Artifacts, Cache, Job, Variable};
use crate::support::outcome::Outcome;
use crate::support::scenario::{Scenario, With, play};
use crate::support::world::{Settings, World};

/// What a secret is part of; see [`ALLOWED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A variable, script, token or key: of this job alone.
    Job,
    /// A file of the project.
    Project,
    /// What the script makes for later stages.
    Results,
    /// A name of a path that the job selects.
    Path,
}

/// Objects that may hold secrets, by a part of their key: of what kinds, and why.
const ALLOWED: [(&str, &[Of], &str); 6] = [
    (
        "/scripts/",
        &[Of::Job, Of::Results, Of::Path],
        "the runner's script holds everything; deleted once every node has started",
    ),
    ("/orders/", &[Of::Job, Of::Path], "values to mask, and the selection of results; deleted with the scripts"),
    ("/workspace/packs/", &[Of::Job], "file variables and git's settings, deleted by `cleanup`"),
    ("/projects/", &[Of::Project], "files of the project, which later jobs of the project reuse"),
    ("/results/packs/", &[Of::Results], "what the job selects, deleted by `cleanup`"),
    ("/results/manifest/", &[Of::Path], "names of what the job selects"),
];

/// Directories that may hold secrets after the job, below the world's root.
const KEPT: [(&str, &[Of], &str); 2] = [
    ("builds", &[Of::Project, Of::Results, Of::Path], "the checkout, for the next job"),
    ("cache", &[Of::Results, Of::Path], "the job's own cache"),
];

/// Not the driver's: AWS, GitLab, and the runner with its log.
const OTHERS: [&str; 6] = ["emulator", "gitlab", "repositories", "config.toml", "runner.log", "runner"];

const SECRETS: [(&str, Of); 32] = [
    ("managed", Of::Job),
    ("managed-whole", Of::Job),
    ("masked", Of::Job),
    ("unmasked", Of::Job),
    ("masked-file", Of::Job),
    ("unmasked-file", Of::Job),
    ("raw", Of::Job),
    ("glpat-personal", Of::Job),
    ("deploy-token", Of::Job),
    ("registry-password", Of::Job),
    ("registry-config", Of::Job),
    ("ssh-key", Of::Job),
    ("kubeconfig", Of::Job),
    ("aws-secret-key", Of::Job),
    ("aws-session-token", Of::Job),
    ("url-password", Of::Job),
    ("header-token", Of::Job),
    ("npm-token", Of::Job),
    ("commit-message", Of::Job),
    ("commit-author", Of::Job),
    ("before-script", Of::Job),
    ("script", Of::Job),
    ("after-script", Of::Job),
    ("hook", Of::Job),
    ("cache-key", Of::Path),
    ("artifact-name", Of::Path),
    ("artifact-path", Of::Path),
    ("project-file", Of::Project),
    ("artifact-content", Of::Results),
    ("cache-content", Of::Results),
    ("dotenv-value", Of::Results),
    ("report-content", Of::Results),
];

/// The end of the operator's file: what jobs of the project get from Secrets Manager.
pub(super) const GRANT: &str =
    "[[secrets.allow]]\nmatch = { projects = [\"ml/churn\"], protected = true }\nids = [\"ci/*\"]";

/// A secret that nothing else resembles.
fn secret(name: &str) -> String {
    format!("{name}-{}", &blake3::hash(name.as_bytes()).to_hex()[..16])
}

fn job(world: &World) -> Job {
    let repository = world.repository("ml/churn");
    let sha = repository.commit("main", &[("settings.ini", &secret("project-file"))]);
    let plain = |key: &str, name: &str| Variable::new(key, &secret(name));
    let cached = Cache::new(&secret("cache-key"), ["kept/"]);
    let mut artifacts = Artifacts::paths(["out/"]).when("always");
    artifacts.name = secret("artifact-name");
    Job::new()
        .sources(&repository, "main", &sha)
        .set("SAGEMAKER_SECRET_MANAGED", "ci/trail#password")
        .set("SAGEMAKER_SECRET_WHOLE", "ci/whole")
        .variable(plain("MASKED", "masked").masked())
        .variable(plain("UNMASKED", "unmasked"))
        .variable(plain("MASKED_FILE", "masked-file").masked().file())
        .variable(plain("FILE", "unmasked-file").file())
        .variable(plain("RAW", "raw").raw())
        .variable(plain("PERSONAL_TOKEN", "glpat-personal").masked())
        .variable(plain("CI_DEPLOY_PASSWORD", "deploy-token").masked())
        .variable(plain("CI_REGISTRY_PASSWORD", "registry-password").masked())
        .variable(plain("DOCKER_AUTH_CONFIG", "registry-config"))
        .variable(plain("SSH_PRIVATE_KEY", "ssh-key").file())
        .variable(plain("KUBECONFIG", "kubeconfig").file())
        .variable(plain("AWS_SECRET_ACCESS_KEY", "aws-secret-key").masked())
        .variable(plain("AWS_SESSION_TOKEN", "aws-session-token").masked())
        .variable(Variable::new("PIP_INDEX_URL", &format!("https://ci:{}@pypi.example.com", secret("url-password"))))
        .variable(Variable::new("HEADER", &format!("Authorization: Bearer {}", secret("header-token"))))
        .variable(plain("NPM_TOKEN", "npm-token"))
        .variable(plain("CI_COMMIT_MESSAGE", "commit-message"))
        .variable(plain("CI_COMMIT_AUTHOR", "commit-author"))
        .hook("pre_get_sources_script", [&*format!(": {}", secret("hook"))])
        .script([&*script()])
        .after_script([&*format!("true\necho \"after <$MANAGED>\"\n: {}", secret("after-script"))])
        .artifacts(artifacts)
        .artifacts(Artifacts::dotenv("v.env"))
        .artifacts(Artifacts::paths(["report.xml"]))
        .cache(cached)
}

/// Of several lines: the runner prints the first one of them alone.
fn script() -> String {
    [
        "true".to_owned(),
        format!(": {}", secret("before-script")),
        format!("secret={}", secret("script")),
        "echo \"<$MASKED> $(cat $MASKED_FILE) $PERSONAL_TOKEN $CI_JOB_TOKEN $CI_REPOSITORY_URL\"; mkdir out kept"
            .to_owned(),
        format!("echo {} > out/{}", secret("artifact-content"), secret("artifact-path")),
        format!("echo {} > kept/x; echo V={} > v.env", secret("cache-content"), secret("dotenv-value")),
        "echo \"managed <$MANAGED> $WHOLE end\"".to_owned(),
        // The command line of `grep` itself has neither.
        "if grep -qsF -f <(printenv MANAGED WHOLE) /proc/[0-9]*/cmdline; then echo 'in the'' list of processes'; fi"
            .to_owned(),
        format!("echo {} > report.xml", secret("report-content")),
    ]
    .join("\n")
}

/// The bytes, and the content of each part of them that zstd compressed.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut all = bytes.to_vec();
    for at in (0..bytes.len().saturating_sub(MAGIC.len())).filter(|at| bytes[*at..].starts_with(&MAGIC)) {
        if let Ok(frame) = zstd::stream::read::Decoder::new(&bytes[at..]) {
            // What follows is no frame: an error at its end.
            let _ = frame.single_frame().take(64 << 20).read_to_end(&mut all);
        }
    }
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Secrets of the kinds in `bytes` that are not allowed there.
fn found(bytes: &[u8], secrets: &[(String, Of)], allowed: &[Of]) -> Vec<String> {
    let bytes = unpacked(bytes);
    let is_found = |(text, of): &&(String, Of)| !allowed.contains(of) && contains(&bytes, text);
    secrets.iter().filter(is_found).map(|(text, of)| format!("{text} ({of:?})")).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => all.push(entry.path()),
            _ => {}
        }
    }
    all
}

fn leaves_no_trail(world: &World, outcome: &Outcome) {
    outcome
        .succeeded()
        .shows("<[MASKED]> [MASKED] ")
        .shows("managed <[MASKED]> [MASKED] end")
        .shows("after <[MASKED]>");
    outcome.hides("in the list of processes").hides(&secret("managed")).hides(&secret("managed-whole"));
    let mut secrets: Vec<(String, Of)> = SECRETS.iter().map(|(name, of)| (secret(name), *of)).collect();
    secrets.push((world.gitlab.question(outcome.id, |record| record.token.clone()), Of::Job));
    let (_, key) = world.emulator.as_ref().unwrap().environment().pop().unwrap();
    // The driver's own key, allowed nowhere.
    let own = [(key, Of::Job)];
    let requests = world.proxy.as_ref().unwrap().kept();
    let mut leaks = Vec::new();
    let mut seen = [false; ALLOWED.len()];
    for request in &requests {
        let line = String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned();
        let place = ALLOWED.iter().position(|(part, ..)| line.starts_with("PUT ") && line.contains(part));
        let allowed = place.map_or(&[][..], |place| ALLOWED[place].1);
        let all: Vec<_> = secrets.iter().map(|(text, _)| (text.clone(), Of::Job)).collect();
        if let Some(place) = place {
            seen[place] |= !found(request, &all, &[]).is_empty();
        }
        for leak in [found(request, &secrets, allowed), found(request, &own, &[])].concat() {
            leaks.push(format!("{line}: {leak}"));
        }
    }
    assert!(leaks.is_empty(), "in requests:\n{}", leaks.join("\n"));
    let needless: Vec<_> = ALLOWED.iter().zip(seen).filter(|(_, seen)| !seen).map(|(row, _)| row.0).collect();
    assert!(needless.is_empty(), "no secret was seen in {needless:?}: {} requests", requests.len());
    let left = world.emulator.as_ref().unwrap().objects();
    assert!(left.iter().all(|key| !key.contains("/sessions/")), "{left:?}");
    let root = world.dirs.root();
    for path in files(root) {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let top = name.split('/').next().unwrap_or_default();
        if OTHERS.contains(&top) {
            continue;
        }
        let allowed = KEPT.iter().find(|(dir, ..)| *dir == top).map_or(&[][..], |(_, allowed, _)| allowed);
        let bytes = std::fs::read(&path).unwrap();
        let in_name = found(name.as_bytes(), &secrets, allowed);
        for leak in [in_name, found(&bytes, &secrets, allowed), found(&bytes, &own, &[])].concat() {
            leaks.push(format!("{name}: {leak}"));
        }
    }
    assert!(leaks.is_empty(), "on the host's disk:\n{}", leaks.join("\n"));
}

fn trail(with: With) {
    let row = Scenario {
        name: "the_trail_of_secrets",
        needs: &["git", "tar"],
        settings: || Settings { kept_requests: true, ..Settings::default() },
        play: |world| {
            let emulator = world.emulator.as_ref().unwrap();
            let password = json!({"user": "ci", "password": secret("managed")}).to_string();
            for (name, text) in [("ci/trail", password), ("ci/whole", secret("managed-whole"))] {
                emulator.call("secretsmanager.CreateSecret", &json!({"Name": name, "SecretString": text}));
            }
            vec![world.run(&job(world))]
        },
        expect: |world, outcomes| leaves_no_trail(world, &outcomes[0]),
    };
    play(&row, with, sagemaker_with(&[], GRANT));
}

#[test]
fn the_trail_of_secrets_real() {
    trail(With::RealRunner);
}

#[test]
fn the_trail_of_secrets_double() {
    trail(With::RunnerDouble);
}
