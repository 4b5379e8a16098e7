//! `include`: globs, relative paths, and everything that can be wrong with a file.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tandem_config::{Config, Stage};

/// A folder of files that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Self {
        let root = std::env::temp_dir().join(format!("tandem-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let folder = Self(root);
        for (path, content) in files {
            let path = folder.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn names(&self) -> Vec<String> {
        let config = Config::load(Some(&self.0.join("main.conf"))).unwrap_or_else(|error| panic!("{error}"));
        config.resources.into_iter().map(|resource| resource.name).collect()
    }

    fn error(&self) -> String {
        let error = Config::load(Some(&self.0.join("main.conf"))).unwrap_err();
        assert_eq!(error.stage, Stage::Syntax);
        error.to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn resource(name: &str, minor: u32) -> Vec<u8> {
    format!(
        "resource {name} {{ device minor {minor}; disk /dev/vg/{name}; meta-disk internal;\n\
         on a {{ address 10.0.0.1:{port}; }} on b {{ address 10.0.0.2:{port}; }} }}\n",
        port = 7000 + minor
    )
    .into_bytes()
}

#[test]
fn globs_are_relative_to_the_including_file_and_sorted() {
    let folder = Folder::new(
        "globs",
        &[
            (
                "main.conf",
                b"include \"d/global_common.conf\"; include \"d/*.res\"; include \"none/../d/?.more\";",
            ),
            (
                "d/global_common.conf",
                b"common { protocol A; } include \"deep/*/r.res\"; include \"deep/*.none\";",
            ),
            ("d/deep/y/r.res", &resource("deep_y", 1)),
            ("d/deep/x/r.res", &resource("deep_x", 2)),
            ("d/deep/empty/other", b"}"),
            ("d/deep/file", b"}"),
            ("d/b.res", &resource("b", 3)),
            ("d/a.res", &resource("a", 4)),
            ("d/.hidden.res", b"}"),
            ("d/c.res.bak", b"}"),
            ("d/1.more", &resource("more", 5)),
            ("none/x", b""),
        ],
    );
    assert_eq!(folder.names(), ["deep_x", "deep_y", "a", "b", "more"]);
}

#[test]
fn definitions_know_their_file_and_line() {
    let folder = Folder::new("source", &[("main.conf", b"include r.res;"), ("r.res", &resource("r", 1))]);
    let config = Config::load(Some(&folder.0.join("main.conf"))).unwrap();
    assert_eq!(config.resources[0].source, (folder.0.join("r.res"), 1));
    assert!(config.dump("a").contains(&format!("# defined at {}:1\n", folder.0.join("r.res").display())));
}

#[test]
fn a_missing_main_file_is_named() {
    let folder = Folder::new("missing-main", &[]);
    let error = folder.error();
    assert!(
        error.contains("cannot read") && error.contains("main.conf") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn a_missing_included_file_is_shown_where_it_is_named() {
    let folder = Folder::new("missing", &[("main.conf", b"# x\ninclude \"absent.conf\";")]);
    let error = folder.error();
    assert!(error.contains("absent.conf`: No such file"), "{error}");
    assert!(error.contains("main.conf:2:9"), "{error}");
}

#[test]
fn a_missing_folder_before_a_wildcard_is_an_error() {
    let folder = Folder::new("missing-folder", &[("main.conf", b"include \"absent/*.res\";")]);
    let error = folder.error();
    assert!(error.contains("absent`: No such file"), "{error}");
}

#[test]
fn cycles_are_refused_with_the_chain() {
    let folder = Folder::new(
        "cycle",
        &[("main.conf", b"include \"b.conf\";"), ("b.conf", b"\n  include \"./main.conf\";")],
    );
    let error = folder.error();
    assert!(error.contains("it includes itself"), "{error}");
    assert!(error.contains("b.conf:2:11"), "{error}");
    assert_eq!(error.matches("main.conf ->").count(), 1, "{error}");
}

#[test]
fn includes_that_multiply_are_stopped() {
    let files: Vec<(String, Vec<u8>)> = (0..12)
        .map(|level| (format!("f{level}"), format!("include f{};", level + 1).repeat(3).into_bytes()))
        .chain([("f12".to_owned(), Vec::new()), ("main.conf".to_owned(), b"include f0;".to_vec())])
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let error = Folder::new("multiply", &files).error();
    assert!(error.contains("more than 16384 files are included"), "{error}");
}

#[test]
fn deep_includes_are_stopped() {
    let files: Vec<(String, Vec<u8>)> = (0..30)
        .map(|level| (format!("f{level}"), format!("include f{};", level + 1).into_bytes()))
        .chain([("main.conf".to_owned(), b"include f0;".to_vec())])
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let error = Folder::new("deep", &files).error();
    assert!(error.contains("nested deeper than 16 levels"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let folder = Folder::new("utf8", &[("main.conf", b"# one\n# two \xff\n")]);
    let error = folder.error();
    assert!(error.contains("line 2 is not UTF-8 text (byte 12 of the file)"), "{error}");
}

#[test]
fn huge_files_are_refused_and_the_limit_itself_is_not() {
    let limit = 8 << 20;
    let folder = Folder::new("huge", &[("main.conf", &vec![b'#'; limit + 1])]);
    let error = folder.error();
    assert!(error.contains("it is larger than 8192 KiB"), "{error}");
    let folder = Folder::new("large", &[("main.conf", &vec![b'#'; limit])]);
    assert!(folder.names().is_empty());
}

#[test]
fn a_folder_is_no_file() {
    let folder = Folder::new("folder", &[("main.conf", b"include \"d\";"), ("d/x", b"")]);
    let error = folder.error();
    assert!(error.contains("Is a directory"), "{error}");
}

#[test]
fn errors_of_several_files_are_reported_together() {
    let folder = Folder::new(
        "several",
        &[("main.conf", b"include \"*.res\";"), ("a.res", b"resource a { ;"), ("b.res", b"\n}")],
    );
    let error = folder.error();
    for part in ["a.res:1:14", "found the end of the file", "b.res:2:1", "found `}`"] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

/// What is shipped takes in the resources beside it, and is good without any.
#[test]
fn the_shipped_configuration_is_good() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let [main, common] =
        ["tandem.conf", "tandem.d/global_common.conf"].map(|f| fs::read(shipped.join(f)).unwrap());
    let files: [(&str, &[u8]); 2] = [("main.conf", &main), ("tandem.d/global_common.conf", &common)];
    assert_eq!(Folder::new("shipped-alone", &files).names(), [""; 0]);
    let r0 = resource("r0", 0);
    let folder = Folder::new("shipped", &[&files[..], &[("tandem.d/r0.res", &r0)]].concat());
    assert_eq!(folder.names(), ["r0"]);
}
