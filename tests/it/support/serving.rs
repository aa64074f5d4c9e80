//! A serving image of five files: the example's server, and a handler, over the root of this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const SERVE: &str = include_str!("../../../docs/examples/serve");

/// Writes the files of an image that serves with this handler, and returns the value of `--image`.
pub(crate) fn serving_image(folder: &Path, name: &str, python: &Path, handler: &str) -> String {
    let programs = folder.join("usr/local/bin");
    std::fs::create_dir_all(&programs).unwrap();
    let serve = SERVE.replacen("/usr/bin/env python3", &python.display().to_string(), 1);
    assert!(serve.starts_with("#!/"), "{serve}");
    for (file, text) in [("serve", serve.as_str()), ("inference_handler.py", handler)] {
        let file = programs.join(file);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{name}=overlay:{}", folder.display())
}
