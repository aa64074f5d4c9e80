//! Packages that are written and read back, and hostile ones.

use std::io::{Cursor, Write as _};
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use test_case::test_case;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::metadata::{FileMode, MODEL_ARCHIVE, PackageMetadata, PackagedFile, SCHEMA, canonical};
use super::reading::OpenedPackage;
use super::unpacked::UnpackedPackage;
use super::writing::{PackageWriter, Packing};
use crate::base::failure::render;

/// Metadata without files: a stable package of pipeline 7.
pub(crate) fn origin() -> PackageMetadata {
    let digest = format!("sha256:{}", "1".repeat(64));
    serde_json::from_value(json!({
        "schema": SCHEMA,
        "name": "stable-20261129T045233Z.zip",
        "kind": "stable",
        "created_at": "2026-11-29T04:52:33Z",
        "program_version": "0.1.0",
        "commit": {"id": "0123456789abcdef0123456789abcdef01234567", "created_at": "2026-11-29T04:52:33Z"},
        "model": {
            "group": "wine", "image": format!("r/i@{digest}"), "image_digest": digest, "environment": {}, "content_types": [],
            "response_types": [], "archive": {"sha256": "0".repeat(64)},
        },
        "metrics": {},
        "submodules": {},
        "files": {},
    }))
    .unwrap()
}

/// A package as the program writes it.
fn package() -> Vec<u8> {
    package_of(origin(), "# Release notes\n")
}

/// The same with other metadata and notes.
pub(crate) fn package_of(mut metadata: PackageMetadata, notes: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = PackageWriter::new(file.as_file());
    let weights = vec![7; 300_000];
    let archive = &mut metadata.model.archive;
    archive.sha256 = super::hex(&super::writing::sha256(&weights[..]).unwrap());
    (archive.bytes, archive.file) = (Some(300_000), Some(MODEL_ARCHIVE.to_owned()));
    writer.add_text("deploy/model.json", &canonical(&metadata.model).unwrap()).unwrap();
    writer.add_text("docs/RELEASE_NOTES.md", notes.as_bytes()).unwrap();
    writer.add("model/model.tar.gz", FileMode::Plain, &weights[..], 300_000, Packing::AsIs).unwrap();
    let script = vec![b'x'; 50_000];
    writer.add("source/run.sh", FileMode::Executable, &script[..], 50_000, Packing::Compressed).unwrap();
    writer.add("source/sub/link", FileMode::Link, &b"../run.sh"[..], 9, Packing::Compressed).unwrap();
    writer.finish(metadata).unwrap();
    std::fs::read(file.path()).unwrap()
}

/// A zip file with entries of any kind, and a `metadata.json` that lists them.
fn zip(entries: &[(&str, &str, FileMode)], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut metadata = serde_json::to_value(origin()).unwrap();
    let text = |value: &Value| String::from_utf8(canonical(value).unwrap()).unwrap();
    let [model, archive] = [&metadata["model"], &metadata["model"]["archive"]].map(text);
    let claimed =
        [("deploy/model.json", &*model, FileMode::Plain), ("model/reference.json", &*archive, FileMode::Plain)];
    for (name, content, mode) in entries.iter().chain(&claimed) {
        let options = SimpleFileOptions::default().unix_permissions(mode.unix() & 0o777);
        if *mode == FileMode::Link {
            zip.add_symlink(*name, *content, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        let sha256 = super::hex(&super::writing::sha256(content.as_bytes()).unwrap());
        metadata["files"][*name] = json!({"sha256": sha256, "bytes": content.len(), "mode": mode});
    }
    change(&mut metadata);
    zip.start_file("metadata.json", SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
    zip.write_all(metadata.to_string().as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

fn verified(bytes: &[u8]) -> anyhow::Result<OpenedPackage> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let mut package = OpenedPackage::open(file.path())?;
    package.verify()?;
    Ok(package)
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let text = render(&verified(bytes).map(|_| ()).unwrap_err());
    assert!(text.contains(" cannot be used: ") && text.contains(why), "{text}");
    assert!(text.contains("`PACKAGE_SHA256`"), "{text}");
}

/// Replaces every text in the bytes by another one of the same length.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn a_package_is_read_as_it_was_written() {
    let bytes = package();
    assert_eq!(package(), bytes, "the same content gives the same bytes");
    let mut opened = verified(&bytes).unwrap();
    let modes: Vec<_> = opened.metadata.files.values().map(|file| file.mode).collect();
    assert_eq!(modes, [FileMode::Plain, FileMode::Plain, FileMode::Plain, FileMode::Executable, FileMode::Link]);
    let mut content = Vec::new();
    opened.copy("deploy/model.json", &mut content).unwrap();
    assert_eq!(content, canonical(&opened.metadata.model).unwrap());
    assert!(opened.copy("deploy/other", &mut content).is_err());
}

#[test]
fn a_package_without_a_manifest_or_of_another_hash_is_not_deployed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.zip");
    let read = |bytes: &[u8], expected: &[(String, String)]| {
        std::fs::write(&file, bytes).unwrap();
        UnpackedPackage::read(&file, "x.zip", expected)
    };
    let refused = |bytes: &[u8], expected: &[(String, String)]| render(&read(bytes, expected).map(drop).unwrap_err());
    let text = refused(&zip(&[], |_| {}), &[]);
    assert!(text.contains("the package x.zip cannot be deployed: it has no deploy/manifest.json"), "{text}");
    let manifest = [("deploy/manifest.json", "{}", FileMode::Plain), ("deploy/deploy/a.json", "[]", FileMode::Plain)];
    let good = zip(&manifest, |_| {});
    let unpacked = read(&good, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(unpacked.folder().join("deploy/a.json")).unwrap(), "[]");
    let other = [("`--package-sha256`".to_owned(), "0".repeat(64))];
    let text = refused(&good, &other);
    assert!(text.contains(&format!("{}, and `--package-sha256` says 000", unpacked.sha256())), "{text}");
    assert!(super::unpacked::check_size("x.zip", (5 << 30) + 1).is_err());
}

#[test]
fn the_key_of_a_stored_package_has_its_hash() {
    let hash = "a".repeat(64);
    assert_eq!(super::hash_of_key(&format!("b/pre/{}", super::key(&hash, "x.zip"))), Some(hash.as_str()));
    for key in [format!("b/other/{hash}/x.zip"), format!("b/packages/{hash}"), "b/packages/a/x.zip".to_owned()] {
        assert_eq!(super::hash_of_key(&key), None, "{key}");
    }
}

#[test_case("../x", "has `.` or `..`"; "above the folder")]
#[test_case("source/../../x", "has `.` or `..`"; "above, from a folder")]
#[test_case("/etc/passwd", "has an empty part"; "absolute")]
#[test_case("source\\..\\x", "has a backslash"; "with a backslash")]
#[test_case("other/x", "is no file of a package"; "another folder")]
#[test_case("source/", "has an empty part"; "a folder")]
fn a_name_is_refused(name: &str, why: &str) {
    refused(&zip(&[(name, "x", FileMode::Plain)], |_| {}), why);
}

#[test_case("source/l", "../x"; "above the folder")]
#[test_case("source/l", "/etc/passwd"; "absolute")]
#[test_case("deploy/l", "model.json"; "in another folder than source")]
fn a_link_is_refused(name: &str, target: &str) {
    refused(&zip(&[(name, target, FileMode::Link)], |_| {}), "is a link that leaves `source/`");
}

#[test]
fn a_link_that_leaves_by_way_of_another_is_refused() {
    let links = [("source/a/l", "..", FileMode::Link), ("source/x", "a/l/../evil", FileMode::Link)];
    refused(&zip(&links, |_| {}), "source/x is a link that leaves `source/`");
    let below = [("source/d", "a", FileMode::Link), ("source/d/f", "x", FileMode::Plain)];
    refused(&zip(&below, |_| {}), "source/d/f lies below a link or a file");
    assert!(verified(&zip(&links[..1], |_| {})).is_ok());
}

#[test]
fn names_that_are_one_where_case_is_ignored_are_refused() {
    let files = ["source/README", "source/readme"].map(|name| (name, "x", FileMode::Plain));
    refused(&zip(&files, |_| {}), "source/README and source/readme are one name on systems that ignore case");
    assert!(verified(&zip(&files[..1], |_| {})).is_ok());
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let with = |change: fn(&mut Value)| zip(&[], change);
    assert!(verified(&with(|_| {})).is_ok());
    let another = "metadata.json has another name than kind, commit and time give";
    refused(&with(|metadata| metadata["name"] = json!("../../../etc/x.zip")), another);
    refused(&with(|metadata| metadata["name"] = json!("\u{1b}[2K")), another);
    refused(&with(|metadata| metadata["created_at"] = json!("2026-11-29T04:52:34Z")), another);
    refused(&with(|metadata| metadata["merge_request"] = json!("\n1")), "no number of a merge request");
    refused(&with(|metadata| metadata["commit"]["id"] = json!("\u{1b}]0;x\u{7}")), "no id of a commit");
    let image = format!("x\u{1b}[31m@sha256:{}", "1".repeat(64));
    let mut changed = zip(&[], |metadata| metadata["model"]["image"] = json!(image));
    refused(&changed, "an image without its digest");
    refused(&with(|metadata| metadata["model"]["image_digest"] = json!("sha256:2")), "an image without its digest");
    let model = "names another model than the one in the package";
    refused(&with(|metadata| metadata["model"]["archive"]["sha256"] = json!("2".repeat(64))), model);
    refused(&with(|metadata| metadata["model"]["archive"]["file"] = json!(MODEL_ARCHIVE)), model);
    changed = zip(&[(MODEL_ARCHIVE, "another", FileMode::Plain)], |_| {});
    refused(&changed, model);
    refused(&with(|metadata| metadata["model"]["group"] = json!("other")), "deploy/model.json is not the model");
}

#[test]
fn the_hash_of_a_model_elsewhere_has_one_text() {
    let checked = |sha256: String| {
        let mut metadata = origin();
        metadata.model.archive.sha256 = sha256;
        let [model, reference] = [canonical(&metadata.model), canonical(&metadata.model.archive)].map(Result::unwrap);
        for (name, content) in [("deploy/model.json", model), ("model/reference.json", reference)] {
            let sha256 = super::hex(&super::writing::sha256(&content[..]).unwrap());
            let file = PackagedFile { sha256, bytes: content.len() as u64, mode: FileMode::Plain };
            metadata.files.insert(name.to_owned(), file);
        }
        super::claims::check(&metadata)
    };
    checked("a".repeat(64)).unwrap();
    for other in ["A".repeat(64), "a".repeat(63), "g".repeat(64)] {
        assert!(checked(other).unwrap_err().to_string().contains("names another model"));
    }
}

#[test]
fn files_and_metadata_that_differ_are_refused() {
    let file = ("source/a", "text", FileMode::Plain);
    let with = |change: fn(&mut Value)| zip(&[file], change);
    assert!(verified(&with(|_| {})).is_ok());
    refused(
        &with(|metadata| drop(metadata["files"].as_object_mut().unwrap().remove("source/a"))),
        "metadata.json does not name source/a",
    );
    refused(
        &with(|metadata| metadata["files"]["source/a"]["bytes"] = json!(3)),
        "source/a is not the file that metadata.json names",
    );
    refused(&with(|metadata| metadata["files"]["source/a"]["mode"] = json!("executable")), "source/a is not the file");
    refused(&with(|metadata| metadata["files"]["source/a"]["sha256"] = json!("0")), "source/a is not the file");
    refused(
        &with(|metadata| metadata["files"]["source/b"] = metadata["files"]["source/a"].clone()),
        "it has no source/b",
    );
    refused(
        &with(|metadata| metadata["schema"] = json!("sagemaker-executor/package/2")),
        "use another version of this program",
    );
    refused(&with(|metadata| metadata["commit"] = json!(1)), "metadata.json is not of its form");
}

#[test]
fn a_zip_file_of_another_form_is_refused() {
    let two = zip(&[("source/a", "1", FileMode::Plain), ("source/b", "2", FileMode::Plain)], |_| {});
    refused(&replaced(&two, "source/b", "source/a"), "two of its files have one name");
    let good = package();
    refused(&[b"#!/bin/sh\n", &good[..]].concat(), "");
    refused(&[&good[..], b"more"].concat(), "it is no zip file, or was cut or added to");
    refused(&good[..good.len() - 30], "it is no zip file, or was cut or added to");
    refused(b"", "it is no zip file");
    let mut long = good.clone();
    let at = long.len() - 10;
    long[at..at + 4].copy_from_slice(&(100_u32 << 20).to_le_bytes());
    refused(&long, "its list of files is too large");
    // The content of a stored file.
    let at = good.iter().position(|byte| *byte == 7).unwrap();
    let mut changed = good.clone();
    changed[at + 200_000] = 8;
    refused(&changed, "model/model.tar.gz cannot be read");
    let failure = OpenedPackage::open(Path::new("/absent.zip")).unwrap_err();
    assert!(failure.to_string().starts_with("the package /absent.zip cannot be used: "), "{failure}");
}

/// The sizes of a bomb are small in the list and in the metadata, and its content is not.
#[test]
fn a_bomb_is_read_no_further_than_it_says() {
    let text = "a".repeat(10 << 20);
    let bomb =
        zip(&[("source/a", &text, FileMode::Plain)], |metadata| metadata["files"]["source/a"]["bytes"] = json!(4));
    let from = (10_u32 << 20).to_le_bytes();
    let mut bytes = bomb.clone();
    for at in (0..bytes.len() - 4).filter(|at| bomb[*at..].starts_with(&from)) {
        bytes[at..at + 4].copy_from_slice(&4_u32.to_le_bytes());
    }
    refused(&bytes, "source/a");
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let mut writer = PackageWriter::new(&file);
    for bytes in [2, 4] {
        let error = writer.add("source/a", FileMode::Plain, &b"abc"[..], bytes, Packing::Compressed).unwrap_err();
        assert_eq!(error.to_string(), "source/a changed while it was packed");
        writer = PackageWriter::new(&file);
    }
    writer.add_text("source/a", b"").unwrap();
    let twice = writer.add_text("source/a", b"").unwrap_err();
    assert_eq!(twice.to_string(), "the package would have two files of the name source/a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A package with another byte is refused, or its files are the same.
    #[test]
    fn a_changed_byte_changes_no_file(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let good = package();
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(opened) = verified(&bytes) {
            prop_assert_eq!(opened.metadata.files, verified(&good).unwrap().metadata.files);
        }
    }
}
