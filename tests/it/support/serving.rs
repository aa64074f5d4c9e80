//! A serving image of five files: the example's server, and a handler, over the root of this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::emulator::BUCKET;

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

/// The role of serving containers, as `--iam` takes it: they may do nothing but read models.
pub(crate) fn serving_role(name: &str) -> Value {
    let reads = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/models/*")}});
    let of_sagemaker = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}});
    json!({
        "RoleName": name,
        "RoleId": format!("AROA{}", name.to_uppercase().replace('-', "")),
        "Arn": format!("arn:aws:iam::000000000000:role/{name}"),
        "AssumeRolePolicyDocument": of_sagemaker,
        "RolePolicyList": [{"PolicyName": name, "PolicyDocument": reads}],
    })
}
