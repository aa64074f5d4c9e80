//! Classifies SageMaker's failure reasons: the job's failure or the system's, and what to change. Pure.
//!
//! The texts are free and change over the years, so they are searched for words, and an unknown text is shown
//! unchanged. A failure that a retry would only repeat is the job's, even when the operator has to mend it; one that
//! may pass is the system's.

/// Whose failure a lost training job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// The job's own limit or image: a retry would end the same way.
    User,
    System,
    /// The script's exit code, known from the training job alone.
    Script {
        code: i32,
    },
}

/// Hints: what to change.
const IMAGE: &str = "check `image:`: it needs `/bin/sh`, must be built for x86_64, and must not change the start of a container for other users than root";
const PULL: &str = "check `image:`, and the `ecr:*` permissions of the training job's role";
const MEMORY: &str = "choose an instance type with more memory in `SAGEMAKER_INSTANCE_TYPE`";
const VOLUME: &str = "raise `SAGEMAKER_VOLUME_SIZE_GB`";
const ROLE: &str = "the trust policy of the role (`job.role_arn`, or the job's `SAGEMAKER_ROLE_ARN`) must allow `sts:AssumeRole`, and with `aws.creator_role_arn` `sts:TagSession`, to `sagemaker.amazonaws.com`";
const BUCKET: &str = "the executor's objects in the bucket were gone when the job began; look at the bucket's lifecycle rules, then try again";
const STORE: &str = "check the role's `s3:*` and `kms:*` permissions on the executor's prefix of the bucket; with `aws.creator_role_arn`, that its trust policy allows `sts:TagSession`, since its policy allows only what the tags of its session name";
const CAPACITY: &str = "name several types in `SAGEMAKER_INSTANCE_TYPE`, or try again later";
const LATER: &str = "try again later";
const LOST_INSTANCE: &str = "an instance was lost, or SageMaker failed; the job may be tried again, with `SAGEMAKER_RETRIES` by SageMaker itself";
const INTERNAL: &str = "try again; when it comes back, check `image:`, because a bad image may also end so";

struct Row {
    /// Lower case; all of them must occur.
    words: &'static [&'static str],
    by: LossKind,
    means: &'static str,
    hint: &'static str,
}

const fn row(words: &'static [&'static str], by: LossKind, means: &'static str, hint: &'static str) -> Row {
    Row { words, by, means, hint }
}

const NO_IMAGE: &str = "the training image cannot be used";
const NO_START: &str = "the container of the image cannot be started";
const NO_MEMORY: &str = "the instance ran out of memory";
const NO_SPACE: &str = "the instance ran out of disk space";
const NO_INPUT: &str = "the training job could not read its input";
const TOO_OFTEN: &str = "a service was asked too often";

/// The first row that matches counts.
const ROWS: &[Row] = &[
    row(&["more memory"], LossKind::User, NO_MEMORY, MEMORY),
    row(&["out of memory"], LossKind::User, NO_MEMORY, MEMORY),
    row(&["outofmemory"], LossKind::User, NO_MEMORY, MEMORY),
    row(&["oomkilled"], LossKind::User, NO_MEMORY, MEMORY),
    row(&["no space left on device"], LossKind::User, NO_SPACE, VOLUME),
    row(&["cannotstartcontainer"], LossKind::User, NO_START, IMAGE),
    row(&["cannot start container"], LossKind::User, NO_START, IMAGE),
    row(&["oci runtime"], LossKind::User, NO_START, IMAGE),
    row(&["runc create failed"], LossKind::User, NO_START, IMAGE),
    row(&["container process caused"], LossKind::User, NO_START, IMAGE),
    row(&["exec user process"], LossKind::User, NO_START, IMAGE),
    row(&["exec format error"], LossKind::User, NO_START, IMAGE),
    row(&["executable file not found"], LossKind::User, NO_START, IMAGE),
    row(&["/bin/sh", "no such file"], LossKind::User, NO_START, IMAGE),
    row(&["/bin/sh", "permission denied"], LossKind::User, NO_START, IMAGE),
    // A registry or service that throttles; the image or input is not at fault.
    row(&["toomanyrequests"], LossKind::System, TOO_OFTEN, LATER),
    row(&["too many requests"], LossKind::System, TOO_OFTEN, LATER),
    row(&["rate exceeded"], LossKind::System, TOO_OFTEN, LATER),
    row(&["throttl"], LossKind::System, TOO_OFTEN, LATER),
    row(&["pull", "container"], LossKind::User, NO_IMAGE, PULL),
    row(&["pull", "image"], LossKind::User, NO_IMAGE, PULL),
    row(&["cannotpullcontainer"], LossKind::User, NO_IMAGE, PULL),
    row(&["unable to download", "image"], LossKind::User, NO_IMAGE, PULL),
    row(&["failed to download", "image"], LossKind::User, NO_IMAGE, PULL),
    row(&["manifest", "not found"], LossKind::User, NO_IMAGE, PULL),
    row(&["no matching manifest"], LossKind::User, NO_IMAGE, IMAGE),
    row(&["manifest unknown"], LossKind::User, NO_IMAGE, PULL),
    row(&["repository", "does not exist"], LossKind::User, NO_IMAGE, PULL),
    row(&["image", "does not exist"], LossKind::User, NO_IMAGE, PULL),
    row(&["assume", "role"], LossKind::System, "SageMaker may not act for the training job's role", ROLE),
    row(&["no s3 objects found"], LossKind::System, "the training job found no input", BUCKET),
    row(&["data download failed"], LossKind::System, NO_INPUT, STORE),
    row(&["failed to download data"], LossKind::System, NO_INPUT, STORE),
    row(&["artifact upload failed"], LossKind::System, "the training job could not store its output", STORE),
    row(&["capacityerror"], LossKind::System, "there is no free instance", CAPACITY),
    row(&["insufficient", "capacity"], LossKind::System, "there is no free instance", CAPACITY),
    row(&["unable to provision"], LossKind::System, "there is no free instance", CAPACITY),
    row(&["internalservererror"], LossKind::System, "SageMaker failed", INTERNAL),
    row(&["clienterror", "image"], LossKind::User, NO_IMAGE, PULL),
    row(&["clienterror", ".dkr.ecr."], LossKind::User, NO_IMAGE, PULL),
    // For a client error without a row of its own: it would be the same the next time.
    row(&["clienterror"], LossKind::User, "SageMaker refuses the training job", "change what it names"),
];

/// Classification of a failed training job: the text to print, and whose failure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) reason: String,
    pub(super) by: LossKind,
}

/// Classifies the `FailureReason` of a training job whose script's exit is unknown. `was_ready`: its agent had reported
/// ready.
pub(super) fn diagnose(why: &str, was_ready: bool) -> Diagnosis {
    let text = why.to_lowercase();
    let is_containers = text.trim_start().starts_with("algorithmerror");
    let code = exit_code(&text);
    let is_known = code == Some(KILLED) || text.contains(SCRIPT_EXITED);
    // The text of an `AlgorithmError` is mostly the container's own: few words in it are SageMaker's.
    let may_count =
        |row: &&Row| !is_containers || (!is_known && (row.means == NO_MEMORY || (row.means == NO_START && !was_ready)));
    let row = ROWS.iter().filter(may_count).find(|row| row.words.iter().all(|word| text.contains(word)));
    match row {
        Some(row) => {
            // An image whose container has run is not at fault.
            let hint = if was_ready && row.hint == INTERNAL { LOST_INSTANCE } else { row.hint };
            Diagnosis { reason: format!("{}: {why}; {hint}", row.means), by: row.by }
        }
        None => of_container(why, code, was_ready),
    }
}

/// Cause of a failure that another training job may be spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Capacity,
    Internal,
}

/// Returns `None` for a failure of the container, and for one that would come again.
pub(super) fn retryable_cause(why: &str) -> Option<Cause> {
    let text = why.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if why.split(':').next().unwrap_or_default().trim() == CONTAINERS {
        None
    } else if has(&["capacity", "maxpendingtime"]) {
        Some(Cause::Capacity)
    } else {
        let is_internal = has(&["internalservererror", "internalerror", "internalfailure", "internal error"]);
        is_internal.then_some(Cause::Internal)
    }
}

/// `true` when the container was started and failed by itself.
pub(super) fn container_ran(why: &str) -> bool {
    why.starts_with(CONTAINERS) && !why.contains("CannotStartContainer")
}

/// Classifies a failure of a container that ran, or could not be started.
fn of_container(why: &str, code: Option<i32>, was_ready: bool) -> Diagnosis {
    let failed = |by, hint: &str| {
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        Diagnosis { reason: format!("the training job failed: {why}{hint}"), by }
    };
    match code {
        // The agent's own text: it exits with the script's code.
        Some(code) if code != 0 && why.contains(&format!("{SCRIPT_EXITED}{code}")) => {
            failed(LossKind::Script { code }, ended_by_signal(code).unwrap_or_default().as_str())
        }
        Some(code @ KILLED) => {
            let signal = ended_by_signal(code).unwrap_or_default();
            Diagnosis { reason: format!("the container was {signal}: {why}"), by: LossKind::Script { code } }
        }
        // The start script failed, or the shell could not run it. The agent itself never exits with these codes.
        Some(2 | 126 | 127 | 132 | 134 | 135 | 136 | 139) if !was_ready => failed(LossKind::User, IMAGE),
        _ => failed(LossKind::System, ""),
    }
}

/// SageMaker's prefix for a failure of the container.
const CONTAINERS: &str = "AlgorithmError";
/// The agent's text before the script's code.
const SCRIPT_EXITED: &str = "the job's script exited with code ";
const KILLED: i32 = 137;

/// Parses the last `exit code: 1`, `Exit Code: 1` or `ExitCode 1`; `text` is in lower case.
fn exit_code(text: &str) -> Option<i32> {
    let after = |words: &str| text.rfind(words).map(|at| at + words.len());
    let rest = text.get(after("exit code").max(after("exitcode"))?..)?;
    let rest = rest.trim_start_matches([':', '=', ' ']);
    let digits = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    rest.get(..digits)?.parse().ok()
}

/// Describes an exit code that stands for a signal, in words that follow "was" or stand alone.
pub fn ended_by_signal(code: i32) -> Option<String> {
    let (name, remark) = match code {
        132 => ("SIGILL", "a program is built for another processor"),
        134 => ("SIGABRT", "a program gave up"),
        135 => ("SIGBUS", "a program met a fault of memory; `/dev/shm` or a disk may be full"),
        136 => ("SIGFPE", "a program divided by zero"),
        KILLED => ("SIGKILL", "most often out of memory"),
        139 => ("SIGSEGV", "a program crashed"),
        143 => ("SIGTERM", "somebody ended it"),
        _ => return None,
    };
    Some(format!("killed with {name} ({code}), {remark}"))
}

/// Hint for an exit code, if there is one.
pub fn advice(code: i32) -> Option<&'static str> {
    (code == KILLED).then_some(MEMORY)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    const USER: LossKind = LossKind::User;
    const SYSTEM: LossKind = LossKind::System;

    #[test_case(
        "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type.",
        SYSTEM,
        "`SAGEMAKER_INSTANCE_TYPE`"
    )]
    #[test_case("InternalServerError: We encountered an internal error. Please try again.", SYSTEM, "`image:`")]
    #[test_case(
        "ClientError: Please use an instance type with more memory, or reduce the size of training data processed on an instance.",
        USER,
        "`SAGEMAKER_INSTANCE_TYPE`"
    )]
    #[test_case(
        "ClientError: Artifact upload failed:ClientError: Out of Memory. Please use a larger instance",
        USER,
        "`SAGEMAKER_INSTANCE_TYPE`"
    )]
    #[test_case(
        "ClientError: Artifact upload failed:Error 7: The credentials received have been rejected",
        SYSTEM,
        "`s3:*`"
    )]
    #[test_case("ClientError: Data download failed:NoSuchKey", SYSTEM, "`s3:*`")]
    #[test_case("ClientError: No S3 objects found under S3 URL \"s3://b/p\"", SYSTEM, "lifecycle")]
    #[test_case(
        "ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are incorrect.",
        USER,
        "`ecr:*`"
    )]
    #[test_case(
        "ClientError: Unable to download training image 1.dkr.ecr.eu-west-1.amazonaws.com/x:y",
        USER,
        "`image:`"
    )]
    #[test_case("ClientError: Failed to pull image: manifest unknown", USER, "`image:`")]
    #[test_case("CannotPullContainerError: pull access denied", USER, "`image:`")]
    #[test_case(
        "ClientError: SageMaker was unable to assume the role 'arn:aws:iam::1:role/x'",
        SYSTEM,
        "`sts:AssumeRole`"
    )]
    #[test_case(
        "AlgorithmError: CannotStartContainerError. Please make sure the container can be run",
        USER,
        "`/bin/sh`"
    )]
    #[test_case(
        "AlgorithmError: CannotStartContainerError: OCI runtime create failed, exit code: 127",
        USER,
        "`/bin/sh`"
    )]
    #[test_case("ClientError: Failed to pull image: toomanyrequests: Rate exceeded", SYSTEM, "later")]
    #[test_case("ThrottlingException: Rate exceeded", SYSTEM, "later")]
    #[test_case(
        "ClientError: Please ensure that the role may read 1.dkr.ecr.eu-west-1.amazonaws.com/x:y",
        USER,
        "`ecr:*`"
    )]
    #[test_case("ClientError: Access denied for the training image", USER, "`ecr:*`")]
    #[test_case("ClientError: Unable to provision requested ML compute capacity", SYSTEM, "`SAGEMAKER_INSTANCE_TYPE`")]
    #[test_case("InsufficientInstanceCapacity: none in this zone", SYSTEM, "`SAGEMAKER_INSTANCE_TYPE`")]
    #[test_case("ClientError: Failed to download data. Access denied", SYSTEM, "`s3:*`")]
    #[test_case("no matching manifest for linux/amd64 in the manifest list entries", USER, "x86_64")]
    #[test_case(
        "AlgorithmError: standard_init_linux.go:228: exec user process caused: no such file or directory, exit code: 1",
        USER,
        "`/bin/sh`"
    )]
    #[test_case("ClientError: something new", USER, "something new")]
    #[test_case("SomethingElse: something new", SYSTEM, "something new")]
    #[test_case("no reason given", SYSTEM, "the training job failed: no reason given")]
    fn the_platforms_words_have_a_class_and_a_hint(why: &str, by: LossKind, words: &str) {
        let verdict = diagnose(why, false);
        assert!(verdict.by == by && verdict.reason.contains(words) && verdict.reason.contains(why), "{verdict:?}");
    }

    #[test_case("AlgorithmError: , exit code: 126", false, USER, "`image:`")]
    #[test_case("AlgorithmError: Exit Code: 127", false, USER, "`image:`")]
    #[test_case(
        "AlgorithmError: failed to start the agent: the image has no `chmod`, exit code: 126",
        false,
        USER,
        "no `chmod`"
    )]
    #[test_case("AlgorithmError: error: failed to look for orders, exit code: 1", false, SYSTEM, "look for orders")]
    #[test_case("AlgorithmError: , exit code: 1", true, SYSTEM, "exit code: 1")]
    #[test_case("AlgorithmError: , exit code: 126", true, SYSTEM, "exit code: 126")]
    #[test_case("AlgorithmError: , exit code: 137", true, LossKind::Script { code: 137 }, "killed with SIGKILL (137), most often out of memory")]
    #[test_case("AlgorithmError: ExitCode 137", true, LossKind::Script { code: 137 }, "out of memory")]
    #[test_case("AlgorithmError: Container ended with exit code 137.", true, LossKind::Script { code: 137 }, "out of memory")]
    #[test_case("AlgorithmError: OutOfMemoryError: killed, exit code: 137", true, LossKind::Script { code: 137 }, "out of memory")]
    #[test_case("AlgorithmError: Exit Code: 137", false, LossKind::Script { code: 137 }, "out of memory")]
    #[test_case("InternalServerError: We encountered an internal error", true, SYSTEM, "`SAGEMAKER_RETRIES`")]
    #[test_case("AlgorithmError: the job's script exited with code 5, exit code: 5", true, LossKind::Script { code: 5 }, "code 5")]
    #[test_case("AlgorithmError: the job's script exited with code 139, exit code: 139", true, LossKind::Script { code: 139 }, "SIGSEGV")]
    #[test_case(
        "AlgorithmError: cannot pull the image, says the script, exit code: 1",
        true,
        SYSTEM,
        "says the script"
    )]
    #[test_case("AlgorithmError: Container ran out of memory, exit code: 1", true, USER, "`SAGEMAKER_INSTANCE_TYPE`")]
    #[test_case("AlgorithmError: exec: \"/bin/sh\": stat /bin/sh: no such file or directory", false, USER, "`/bin/sh`")]
    #[test_case("ClientError: CannotStartContainerError: exec: \"/bin/sh\" not found", false, USER, "`/bin/sh`")]
    #[test_case("AlgorithmError: exit code: nothing", true, SYSTEM, "nothing")]
    fn a_container_is_judged_by_its_code(why: &str, was_ready: bool, by: LossKind, words: &str) {
        let verdict = diagnose(why, was_ready);
        assert!(verdict.by == by && verdict.reason.contains(words) && verdict.reason.contains(why), "{verdict:?}");
    }
}
