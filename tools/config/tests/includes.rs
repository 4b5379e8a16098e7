//! `include`: globs, relative paths, and everything that can be wrong with a file.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tandem_config::{Config, Section, Sources, Stage};

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
        assert_eq!(error.stage, Stage::Syntax, "{error}");
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
    let error = Config::load(Some(&folder.0.join("main.conf"))).unwrap_err();
    assert_eq!(error.stage, Stage::File);
    let error = error.to_string();
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

/// LINSTOR's `include "/var/lib/linstor.d/*.res"` is there before its folder.
#[test]
fn a_missing_folder_before_a_wildcard_is_told_of() {
    let main = ("main.conf", b"include \"absent/*.res\"; include \"d/*.res\";".as_slice());
    let folder = Folder::new("missing-folder", &[main, ("d/other", b"}")]);
    let warnings = Config::load(Some(&folder.0.join("main.conf"))).unwrap().warnings;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let warning = warning.to_string();
    assert!(warning.contains("there is no folder") && warning.contains("main.conf:1:9"), "{warning}");
}

/// As by drbdadm, by whatever path.
#[test]
fn each_file_is_read_once() {
    let folder = Folder::new(
        "once",
        &[
            (
                "main.conf",
                b"include \"d/*.res\"; include \"d/../d/r.res\"; include \"main.conf\"; include link;",
            ),
            (
                "d/r.res",
                &[resource("r", 1), b"include \"../main.conf\"; include \"./r.res\";".to_vec()].concat(),
            ),
        ],
    );
    std::os::unix::fs::symlink(folder.0.join("d/r.res"), folder.0.join("link")).unwrap();
    assert_eq!(folder.names(), ["r"]);
}

#[test]
fn a_file_that_is_excluded_is_not_included_and_one_more_is_read_behind() {
    let folder = Folder::new(
        "sources",
        &[
            ("main.conf", b"include \"d/*.res\";"),
            ("d/a.res", &resource("a", 1)),
            ("d/b.res", b"resource b { broken"),
            ("b [new].res", &resource("b", 2)),
        ],
    );
    let paths = ["main.conf", "b [new].res", "d/../d/b.res"].map(|name| folder.0.join(name));
    let sources = Sources { more: Some(&paths[1]), excluded: Some(&paths[2]), ..Sources::file(&paths[0]) };
    let names: Vec<String> =
        Config::load_all(sources).unwrap().resources.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "b"]);
}

/// LINSTOR gives every resource a template.
#[test]
fn a_template_holds_in_place_of_common() {
    let with_template = |name, minor, more: &str| {
        let text = String::from_utf8(resource(name, minor)).unwrap();
        text.replacen('{', &format!("{{ template-file \"t/common.conf\"; {more}"), 1).into_bytes()
    };
    let main = [
        b"common { net { timeout 51; ko-count 5; } }\n".to_vec(),
        with_template("r1", 1, "net { ping-int 9; }"),
        with_template("r2", 2, "net { timeout 33; }"),
        resource("r3", 3),
    ];
    let template = b"common { net { timeout 45; protocol A; } handlers { split-brain /x; } }";
    let folder = Folder::new("template", &[("main.conf", &main.concat()), ("t/common.conf", template)]);
    let config = Config::load(Some(&folder.0.join("main.conf"))).unwrap();
    let net = |place: usize| {
        let resource = &config.resources[place];
        let number = |name| resource.settings.effective(Section::Net, name).unwrap().to_string();
        (number("protocol"), number("timeout"), number("ko-count"), resource.handlers().count())
    };
    let [one, two, three] = [0, 1, 2].map(net);
    assert_eq!(one, ("A".into(), "45".into(), "7".into(), 1));
    assert_eq!(two, ("A".into(), "33".into(), "7".into(), 1));
    assert_eq!(three, ("C".into(), "51".into(), "5".into(), 0));
    let dumped = config.dump("a");
    assert_eq!(dumped.matches("template-file").count(), 2, "{dumped}");
    assert!(!dumped.contains("timeout          45"), "{dumped}");
    assert_eq!(Config::parse(Path::new("elsewhere/dump"), &dumped).unwrap(), config, "{dumped}");
    assert!(config.dump_xml("x").contains("<template file=\"/"), "{}", config.dump_xml("x"));
}

#[test]
fn a_template_is_a_common_section() {
    for (template, part) in [
        (b"common { net { timeot 45; } }".as_slice(), "t.conf:1:16"),
        (b"resource x { }", "`resource` is not allowed in a template"),
        (b"", "expected `common { ... }` in `t.conf`"),
        (b"common {", "found the end of the file"),
    ] {
        let r = [resource("r", 1), resource("s", 2)].concat();
        let r = String::from_utf8(r).unwrap().replace("{ device", "{ template-file t.conf; device");
        let folder = Folder::new("bad-template", &[("main.conf", r.as_bytes()), ("t.conf", template)]);
        let error = Config::load(Some(&folder.0.join("main.conf"))).unwrap_err().to_string();
        assert!(error.contains(part), "{part}\n{error}");
    }
    let r =
        String::from_utf8(resource("r", 1)).unwrap().replace("{ device", "{ template-file t.conf; device");
    let error = Folder::new("no-template", &[("main.conf", r.as_bytes())]).error();
    assert!(error.contains("t.conf`: No such file") && error.contains("main.conf:1:28"), "{error}");
}

#[test]
fn includes_that_multiply_are_not_multiplied() {
    let files: Vec<(String, Vec<u8>)> = (0..12)
        .map(|level| (format!("f{level}"), format!("include f{};", level + 1).repeat(3).into_bytes()))
        .chain([("f12".to_owned(), resource("r", 1)), ("main.conf".to_owned(), b"include f0;".to_vec())])
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    assert_eq!(Folder::new("multiply", &files).names(), ["r"]);
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
fn only_comments_may_be_no_utf8() {
    let folder = Folder::new("utf8", &[("main.conf", b"# f\xfcr uns\ncommon { }\n")]);
    assert!(folder.names().is_empty());
    for (text, place) in [
        (b"# \xff\ncommon { handlers { split-brain \"x \xfc\"; } }".as_slice(), "main.conf:2:36"),
        (b"common { handlers { split-brain x\xfc; } }", "main.conf:1:34"),
        (b"\xff common { }", "main.conf:1:1"),
    ] {
        let error = Folder::new("not-utf8", &[("main.conf", text)]).error();
        assert!(error.contains("expected UTF-8 text") && error.contains(place), "{error}");
        assert_eq!(error.matches("error:").count(), 1, "{error}");
    }
}

#[test]
fn huge_files_are_refused_and_the_limit_itself_is_not() {
    let limit = 8 << 20;
    let folder = Folder::new("huge", &[("main.conf", &vec![b'#'; limit + 1])]);
    let error = Config::load(Some(&folder.0.join("main.conf"))).unwrap_err().to_string();
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
