//! The git part of the stage scripts: fetch or clone, checkout, submodules, cleaning.

use super::script::Script;
use super::stages::Build;

/// Files whose presence makes the next fetch fail, or runs what a job left behind.
const STALE_FILES: [&str; 5] = ["index.lock", "shallow.lock", "HEAD.lock", "hooks/post-checkout", "config.lock"];

impl Build {
    fn strategy(&self) -> String {
        match self.variables.get("GIT_STRATEGY") {
            strategy if strategy.is_empty() => "fetch".to_owned(),
            strategy => strategy,
        }
    }

    fn with_submodules(&self) -> bool {
        matches!(self.variables.get("GIT_SUBMODULE_STRATEGY").as_str(), "normal" | "recursive")
    }

    fn clean_flags(&self) -> Vec<String> {
        match self.variables.get("GIT_CLEAN_FLAGS").as_str() {
            "" => vec!["-ffdx".to_owned()],
            "none" => Vec::new(),
            flags => flags.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// The address of the repository with and without the job token.
    fn remote(&self) -> (String, String) {
        let with = self.payload["git_info"]["repo_url"].as_str().unwrap_or_default().to_owned();
        let without = match with.split_once('@') {
            Some((_, rest)) => format!("http://{rest}"),
            None => with.clone(),
        };
        (with, without)
    }

    fn git_info(&self, key: &str) -> &str {
        self.payload["git_info"][key].as_str().unwrap_or_default()
    }

    pub(super) fn write_get_sources(&self, script: &mut Script) {
        self.write_exports(script, true);
        script.line("export GIT_TERMINAL_PROMPT=0");
        script.line("export GCM_INTERACTIVE=Never");
        let strategy = self.strategy();
        let fetches = strategy == "fetch" || strategy == "clone";
        let dir = &self.project_dir;
        if fetches {
            self.write_hook(script, "pre_get_sources_script");
        }
        script.line("export GIT_LFS_SKIP_SMUDGE=1");
        match strategy.as_str() {
            "none" => {
                script.notice("Skipping Git repository setup");
                script.command(&["mkdir", "-p", dir]);
            }
            "empty" => {
                script.notice("Skipping Git repository setup and creating an empty build directory");
                script.remove_folder(dir);
                script.command(&["mkdir", "-p", dir]);
            }
            _ => self.write_fetch(script, strategy == "clone"),
        }
        if self.variables.get("GIT_CHECKOUT") == "false" || !fetches {
            script.notice("Skipping Git checkout");
        } else {
            let sha = self.git_info("sha");
            let short = sha.get(..8).unwrap_or(sha);
            script.notice(&format!("Checking out {short} as detached HEAD (ref is {})...", self.git_info("ref")));
            script.command(&["git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", sha]);
            self.write_clean(script);
        }
        if fetches && self.with_submodules() {
            self.write_submodules(script);
        } else {
            script.notice("Skipping Git submodules setup");
        }
        if fetches {
            self.write_hook(script, "post_get_sources_script");
        }
    }

    fn write_hook(&self, script: &mut Script, name: &str) {
        for hook in self.payload["hooks"].as_array().into_iter().flatten() {
            if hook["name"] == name {
                script.user_lines(&super::stages::lines(&hook["script"]), None);
            }
        }
    }

    fn write_fetch(&self, script: &mut Script, anew: bool) {
        let dir = &self.project_dir;
        self.write_git_cleanup(script);
        let template = script.temporary("git-template");
        let (template_config, external) = (format!("{template}/config"), script.temporary(".gitlab-runner.ext.conf"));
        script.command(&["mkdir", "-p", &template]);
        for (key, value) in [
            ("init.defaultBranch", "none"),
            ("fetch.recurseSubmodules", "false"),
            ("credential.interactive", "never"),
            ("gc.autoDetach", "false"),
        ] {
            script.command(&["git", "config", "-f", &template_config, key, value]);
        }
        let (with_token, without_token) = self.remote();
        script.remove_file(&external);
        let server = format!("{}/", self.url);
        let token = self.payload["token"].as_str().unwrap_or_default();
        let server_with_token = server.replacen("http://", &format!("http://gitlab-ci-token:{token}@"), 1);
        for (with, without) in [(&with_token, &without_token), (&server_with_token, &server)] {
            script.command(&["git", "config", "-f", &external, &format!("url.{with}.insteadOf"), without]);
        }
        script.command(&["git", "config", "-f", &template_config, "include.path", &external]);
        if anew {
            script.remove_folder(dir);
        }
        let depth =
            self.variables.get("GIT_DEPTH").parse().unwrap_or(self.payload["git_info"]["depth"].as_u64().unwrap_or(0));
        if depth > 0 {
            script.notice(&format!("Fetching changes with git depth set to {depth}..."));
        } else {
            script.notice("Fetching changes...");
        }
        script.command(&["git", "init", dir, "--template", &template]);
        script.command(&["cd", dir]);
        script.if_quiet(&["git", "remote", "add", "origin", &without_token]);
        script.notice("Created fresh repository.");
        script.line("else");
        script.command(&["git", "remote", "set-url", "origin", &without_token]);
        script.command(&["git", "config", "--file", ".git/config", "--replace-all", "include.path", &external]);
        script.line("fi");
        let mut fetch = vec!["git".to_owned(), "fetch".into(), "origin".into(), "--no-recurse-submodules".into()];
        fetch.extend(super::stages::lines(&self.payload["git_info"]["refspecs"]));
        if depth > 0 {
            fetch.extend(["--depth".to_owned(), depth.to_string()]);
        }
        match self.variables.get("GIT_FETCH_EXTRA_FLAGS").as_str() {
            "" => fetch.extend(["--prune".to_owned(), "--quiet".to_owned()]),
            flags => fetch.extend(flags.split_whitespace().map(str::to_owned)),
        }
        script.command(&fetch.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn write_clean(&self, script: &mut Script) {
        let flags = self.clean_flags();
        if !flags.is_empty() {
            let mut words = vec!["git", "clean"];
            words.extend(flags.iter().map(String::as_str));
            script.command(&words);
        }
    }

    fn write_submodules(&self, script: &mut Script) {
        let recursive = self.variables.get("GIT_SUBMODULE_STRATEGY") == "recursive";
        script.notice(if recursive {
            "Updating/initializing submodules recursively..."
        } else {
            "Updating/initializing submodules..."
        });
        let option = if recursive { " --recursive" } else { "" };
        let external = script.temporary(".gitlab-runner.ext.conf");
        script.line("git submodule init");
        script.line(&format!("git submodule sync{option}"));
        script.line(&format!("git submodule foreach{option} git clean -ffdx"));
        script.line(&format!("git submodule foreach{option} git reset --hard"));
        script.line(&format!("git -c include.path=\"{external}\" submodule update --init{option}"));
        script.notice("Updated submodules");
        script.line(&format!("git submodule foreach{option} git clean -ffdx"));
        script.line(&format!("git submodule foreach --recursive git config --replace-all include.path \"{external}\""));
    }

    pub(super) fn write_clear_worktree(&self, script: &mut Script) {
        script.notice("Deleting tracked and untracked files...");
        script.line(&format!("if [ -d \"{0}\" ]; then cd \"{0}\"", self.project_dir));
        script.line("git rm -rf --ignore-unmatch --quiet .");
        script.line("git clean -ffdx -q");
        script.line("fi");
    }

    fn write_git_cleanup(&self, script: &mut Script) {
        let git = format!("{}/.git", self.project_dir);
        for file in STALE_FILES {
            script.remove_file(&format!("{git}/{file}"));
        }
        script.line(&format!(
            "if [ -d \"{git}/refs\" ]; then find \"{git}/refs\" -name '*.lock' -type f -exec rm -f {{}} +; fi"
        ));
        if self.strategy() == "none" {
            return;
        }
        for folder in [script.temporary("git-template"), git.clone()] {
            script.remove_file(&format!("{folder}/config"));
            script.remove_folder(&format!("{folder}/hooks"));
        }
        if self.with_submodules() {
            script.line(&format!(
                "if [ -d \"{git}/modules\" ]; then find \"{git}/modules\" -name config -type f -exec rm -f {{}} +; fi"
            ));
        }
    }

    pub(super) fn write_cleanup(&self, script: &mut Script) {
        self.write_exports(script, false);
        for name in ["gitlab_runner_env", "masking.db", ".gitlab-runner.ext.conf"] {
            let path = script.temporary(name);
            script.remove_file(&path);
        }
        for variable in self.variables.iter().filter(|variable| variable.file) {
            let path = script.temporary(&variable.key);
            script.remove_file(&path);
        }
        if self.variables.is_on("FF_ENABLE_JOB_CLEANUP") {
            match self.strategy().as_str() {
                "clone" | "empty" => script.remove_folder(&self.project_dir),
                "none" => script.notice("Skipping build directory cleanup step"),
                _ => {
                    script.command(&["cd", &self.project_dir]);
                    self.write_clean(script);
                    script.line("git reset --hard");
                    if self.with_submodules() {
                        let recursive = self.variables.get("GIT_SUBMODULE_STRATEGY") == "recursive";
                        let option = if recursive { " --recursive" } else { "" };
                        script
                            .line(&format!("git submodule foreach{option} git clean {}", self.clean_flags().join(" ")));
                        script.line(&format!("git submodule foreach{option} git reset --hard"));
                    }
                }
            }
        }
        self.write_git_cleanup(script);
    }
}
