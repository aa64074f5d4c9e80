//! Table of environment variables by their effect on the runner's host: decides who may set which one for a host stage.
//!
//! A job's variables reach the host stages because the runner's scripts export them; so do lines of `GITLAB_ENV`, which
//! a container writes. Pure: reads no environment.

/// Who may set a variable for a host stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only the operator: it finds, loads or controls programs. The job's value reaches only its container.
    Container,
    /// The job, if the path in its value exists on the host.
    JobPath,
    /// The job, but no container: git, its credentials and the runner's helper read it.
    Job,
    /// The job and its container.
    Anyone,
}

use Reach::{Anyone, Container, Job, JobPath};

/// The first pattern that matches decides. `*` stands for any characters; a pattern that starts with it ignores case.
const TABLE: &[(&str, Reach)] = &[
    // Search paths and directories of programs.
    ("PATH", Container),
    ("HOME", Container),
    ("TMPDIR", Container),
    ("TMP", Job),
    ("TEMP", Job),
    ("SHELL", Container),
    ("XDG_CONFIG_HOME", Container),
    ("XDG_CONFIG_DIRS", Container),
    ("XDG_RUNTIME_DIR", Container),
    ("XDG_*", Job),
    // Variables of the stage's shell. Setting some of them is an error that would end the stage.
    ("ENV", Container),
    ("BASH*", Container),
    ("SHELLOPTS", Container),
    ("POSIXLY_CORRECT", Container),
    ("PROMPT_COMMAND", Container),
    ("PS4", Container),
    ("IFS", Container),
    ("CDPATH", Container),
    ("GLOBIGNORE", Container),
    ("EXECIGNORE", Container),
    ("FUNCNEST", Container),
    ("TMOUT", Container),
    ("UID", Container),
    ("EUID", Container),
    ("PPID", Container),
    // Numeric variables of the shell: it evaluates a value assigned to them, and a subscript in it, `a[$(id)]`, runs a
    // command.
    ("RANDOM", Container),
    ("SRANDOM", Container),
    ("SECONDS", Container),
    ("EPOCHSECONDS", Container),
    ("EPOCHREALTIME", Container),
    ("LINENO", Container),
    ("HISTCMD", Container),
    ("OPTIND", Container),
    // The loader and the C library.
    ("LD_*", Container),
    ("DYLD_*", Container),
    ("GCONV_PATH", Container),
    ("GETCONF_DIR", Container),
    ("GLIBC_TUNABLES", Container),
    ("MALLOC_*", Container),
    ("LOCPATH", Container),
    ("NLSPATH", Container),
    ("TZDIR", Container),
    ("HOSTALIASES", Container),
    ("LOCALDOMAIN", Container),
    ("RES_OPTIONS", Container),
    ("RESOLV_*", Container),
    ("LANG", Container),
    ("LANGUAGE", Container),
    ("LC_*", Container),
    // Languages: git's own scripts, hooks and filters; the runner's helper is a Go program. Version variables and the
    // like (`PYTHON_VERSION`) often occur in paths of `artifacts` and `cache`, which the helper expands, and control
    // nothing.
    ("PYTHONUSERBASE", Job),
    ("PYTHONPYCACHEPREFIX", Job),
    ("PYTHON_*", Job),
    ("PYTHON*", Container),
    ("PERL_*", Job),
    ("PERL*", Container),
    ("RUBY_*", Job),
    ("RUBY*", Container),
    ("LUA_INIT*", Container),
    ("LUA_PATH*", Container),
    ("LUA_CPATH*", Container),
    ("NODE_OPTIONS", Container),
    ("NODE_PATH", Container),
    ("NODE_REPL_*", Container),
    ("NODE_EXTRA_CA_CERTS", Container),
    ("NODE_*", Job),
    ("JAVA_TOOL_OPTIONS", Container),
    ("_JAVA_OPTIONS", Container),
    ("JDK_JAVA_OPTIONS", Container),
    ("GODEBUG", Container),
    ("GOGC", Container),
    ("GOMEMLIMIT", Container),
    ("GOMAXPROCS", Container),
    ("GOTRACEBACK", Container),
    ("GOCOVERDIR", Container),
    ("GORACE", Container),
    ("GOENV", Job),
    ("GOFLAGS", Job),
    ("GOPATH", Job),
    ("GOPROXY", Job),
    ("GOROOT", Job),
    ("GOTOOLCHAIN", Job),
    ("JAVA_*", Job),
    // Tools that read options or program names from the environment.
    ("TAR_OPTIONS", Container),
    ("GREP_OPTIONS", Container),
    ("GZIP", Container),
    ("OPENSSL_VERSION", Job),
    ("OPENSSL_*", Container),
    ("GNUTLS_*", Container),
    ("P11_KIT_*", Container),
    // Files to which git's TLS and QUIC library would write keys and logs.
    ("SSLKEYLOGFILE", Container),
    ("QLOGDIR", Container),
    ("TERMINFO*", Container),
    ("TERMCAP", Container),
    // Certificates: a file variable of the job exists on the host, a path into the image does not.
    ("SSL_CERT_FILE", JobPath),
    ("SSL_CERT_DIR", JobPath),
    ("GIT_SSL_CAINFO", JobPath),
    ("GIT_SSL_CAPATH", JobPath),
    ("CURL_CA_BUNDLE", JobPath),
    ("GIT_EXEC_PATH", JobPath),
    ("SSL_*", Job),
    ("CURL_*", Job),
    // git, its credentials and its network access.
    ("GIT_*", Job),
    ("GCM_*", Job),
    ("SSH_*", Job),
    ("GNUPGHOME", Job),
    ("GPG_*", Job),
    ("KRB5*", Job),
    ("NETRC", Job),
    ("*_PROXY", Job),
    ("EDITOR", Job),
    ("VISUAL", Job),
    ("PAGER", Job),
    ("MANPAGER", Job),
    ("LESS", Job),
    ("LESSOPEN", Job),
    ("LESSCLOSE", Job),
    ("BROWSER", Job),
    ("DISPLAY", Job),
    ("DBUS_*", Job),
    // The runner, its helper, clouds that may hold the cache, and this executor.
    ("CI", Job),
    ("CI_*", Job),
    ("GITLAB_*", Job),
    ("GLR_*", Job),
    ("RUNNER_*", Job),
    ("CUSTOM_ENV_*", Job),
    ("SAGEMAKER_EXECUTOR_*", Job),
    ("FF_*", Job),
    ("CACHE_*", Job),
    ("ARTIFACT_*", Job),
    ("ARCHIVER_*", Job),
    ("FASTZIP_*", Job),
    ("TRANSFER_METER_FREQUENCY", Job),
    ("CPU_PROFILE", Job),
    ("LOG_LEVEL", Job),
    ("LOG_FORMAT", Job),
    ("AWS_*", Job),
    ("AZURE_*", Job),
    ("GOOGLE_*", Job),
    ("CLOUDSDK_*", Job),
    ("GCE_METADATA_*", Job),
    ("STORAGE_EMULATOR_HOST", Job),
    ("IDENTITY_*", Job),
    ("IMDS_ENDPOINT", Job),
    ("MSI_*", Job),
];

/// Returns who may set this variable for a host stage.
pub fn reach(name: &str) -> Reach {
    let fits = |pattern: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.to_ascii_uppercase().ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    };
    TABLE.iter().find(|(pattern, _)| fits(pattern)).map_or(Anyone, |(_, reach)| *reach)
}

/// The table in order, for code that generates it in another language.
pub fn table() -> impl Iterator<Item = (&'static str, Reach)> {
    TABLE.iter().copied()
}

/// `true` for text that a shell accepts as the name of a variable.
pub fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_programs_is_the_containers_and_what_git_needs_is_the_jobs() {
        for name in [
            "PATH",
            "LD_PRELOAD",
            "BASH_FUNC_x",
            "BASHPID",
            "LC_ALL",
            "PYTHONPATH",
            "GODEBUG",
            "NODE_OPTIONS",
            "ENV",
            "UID",
            "RANDOM",
            "OPTIND",
            "SSLKEYLOGFILE",
        ] {
            assert_eq!(reach(name), Container, "{name}");
        }
        for name in [
            "GIT_SSH_COMMAND",
            "http_proxy",
            "HTTPS_PROXY",
            "All_Proxy",
            "CI",
            "CI_X",
            "GOPATH",
            "XDG_CACHE_HOME",
            "FF_X",
            "PYTHONUSERBASE",
            "PYTHON_VERSION",
            "NODE_ENV",
            "RUBY_VERSION",
            "PERL_VERSION",
            "STORAGE_EMULATOR_HOST",
            "SSH_AUTH_SOCK",
            "KRB5CCNAME",
            "AWS_PROFILE",
            "CACHE_X",
            "SAGEMAKER_EXECUTOR_SESSION",
        ] {
            assert_eq!(reach(name), Job, "{name}");
        }
        assert_eq!(reach("SSL_CERT_FILE"), JobPath);
        for name in [
            "PATHX",
            "path",
            "MODEL",
            "CIRCLE",
            "HOMEDIR",
            "SAGEMAKER_INSTANCE_TYPE",
            "proxy",
            "ENVIRONMENT",
            "JDK_VERSION",
            "GOAL",
            "LESSON",
        ] {
            assert_eq!(reach(name), Anyone, "{name}");
        }
    }

    #[test]
    fn only_plain_names_are_names() {
        assert!(["A", "_", "a1_B"].iter().all(|name| is_name(name)));
        assert!(["", "1a", "a-b", "a b", "é", "a[0]", "-p", "a%%"].iter().all(|name| !is_name(name)));
    }
}
