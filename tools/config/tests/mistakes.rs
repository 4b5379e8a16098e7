//! Mistakes as they are made: the caret is at the right place, the advice is right, every mistake is named, and nothing else.

use std::path::Path;

use tandem_config::{Config, ConfigError};

fn refuse(text: &str) -> ConfigError {
    let config = match Config::parse(Path::new("t.conf"), text) {
        Ok(config) => config,
        Err(error) => return error,
    };
    let obstacle = config.resources.iter().find_map(|resource| resource.runnable().err());
    obstacle.unwrap_or_else(|| panic!("accepted:\n{text}\n{config:?}"))
}

/// A resource that is good except for what stands in its sixth line.
fn with(line: &str) -> String {
    format!(
        "\nresource r0 {{\n  device minor 1;\n  disk /dev/sdb1;\n  meta-disk internal;\n  {line}\n  \
         on alpha {{ address 10.0.0.1:7789; }}\n  on bravo {{ address 10.0.0.2:7789; }}\n}}\n"
    )
}

/// The good resource with one thing that is not.
fn instead_of(good: &str, bad: &str) -> String {
    assert!(with("").contains(good), "{good}");
    with("").replacen(good, bad, 1)
}

/// The first part of each is the place; there are as many errors as lists.
fn check(text: &str, expected: &[&[&str]]) {
    let error = refuse(text);
    assert_eq!(error.errors.len(), expected.len(), "{text}\n{error}");
    for (found, parts) in error.errors.iter().zip(expected) {
        let shown = found.to_string();
        for (index, part) in parts.iter().enumerate() {
            let part = if index == 0 { format!(" --> t.conf:{part}\n") } else { (*part).to_owned() };
            assert!(shown.contains(&part), "{part:?} for\n{text}\n{shown}");
        }
    }
}

#[test]
fn a_forgotten_semicolon_is_shown_where_it_is_missing_and_nothing_follows_from_it() {
    for (good, bad, place, behind) in [
        ("device minor 1;", "device minor 1", "3:17", "behind `1`, found `disk`"),
        ("disk /dev/sdb1;", "disk /dev/sdb1", "4:17", "behind `/dev/sdb1`, found `meta-disk`"),
        ("internal;", "internal", "5:21", "behind `internal`, found `on`"),
        (
            "10.0.0.1:7789; }",
            "10.0.0.1:7789\n    disk /dev/x; }",
            "7:35",
            "behind `10.0.0.1:7789`, found `disk`",
        ),
        ("10.0.0.1:7789; }", "10.0.0.1:7789\n    node-id 0; }", "7:35", "found `node-id`"),
    ] {
        check(&instead_of(good, bad), &[&[place, behind, "`;` is missing here"]]);
    }
    check(&with("net { ping-int 5\n timeout 9; }"), &[&["6:19", "behind `5`, found `timeout`"]]);
    check(&with("connection { host alpha; host bravo }"), &[&["6:38", "expected `;`, found `}`"]]);
    check("include a\nb;", &[&["1:10", "expected `;` behind `a`, found `b`"]]);
}

#[test]
fn a_forgotten_brace_is_sought_where_it_is_missing() {
    let open = |bad: &str| instead_of("10.0.0.1:7789; }", bad);
    let here = "7 |   on alpha { address 10.0.0.1:7789;";
    check(
        &open("10.0.0.1:7789;"),
        &[&["9:2", "found the end of the file", here, "this section is not closed"]],
    );
    check(&with("net {\n    timeout 9;\n"), &[&["11:2", "found the end of the file", "6 |   net {"]]);
    let text = "resource r0\n  device minor 1;\n  disk /x;\n}\n";
    check(text, &[&["4:1", "found `}`", "1 | resource r0", "`{` may be missing here"]]);
    check("common { }\n}", &[&["2:1", "found `}`"]]);
}

#[test]
fn near_misses_are_recognised() {
    let cases: &[(&str, &[&[&str]])] = &[
        (
            "net { protocl C; tiemout 60; pingint 9; }",
            &[&["6:9", "`protocol`?"], &["6:20", "`timeout`?"], &["6:32", "`ping-int`?"]],
        ),
        (
            "disk { al-extends 257; on-io-error deatch; }",
            &[&["6:10", "`al-extents`?"], &["6:38", "`detach`?"]],
        ),
        (
            "disk { disk-flushes ye; no-disk-flush; }",
            &[&["6:23", "`yes` or `no`"], &["6:27", "did you mean `no-disk-flushes`?"]],
        ),
        ("syncer { rat 10M; }", &[&["6:12", "did you mean `rate`?"]]),
        ("option { quorum off; }", &[&["6:3", "did you mean `options`?"]]),
        ("handler { split-brain /x; }", &[&["6:3", "did you mean `handlers`?"]]),
        ("connection { host alpha; host brvo; }", &[&["6:33", "did you mean `bravo`?"]]),
        ("net { al-extents 300; }", &[&["6:9", "it belongs in `disk {}`"]]),
    ];
    for (line, expected) in cases {
        check(&with(line), expected);
    }
    check(&instead_of("internal", "intern"), &[&["5:13", "found `intern`", "did you mean `internal`?"]]);
    check(&instead_of("/dev/sdb1", "sdb1"), &[&["4:8", "found `sdb1`", "did you mean `/dev/sdb1`?"]]);
    check("gloabl { }", &[&["1:1", "did you mean `global`?"]]);
    check("usage-count no;", &[&["1:1", "it belongs in `global {}`"]]);
}

#[test]
fn numbers_and_texts_say_how_they_are_written() {
    for (line, place, advice) in [
        (
            "net { sndbuf-size 1MB; }",
            "6:21",
            "the suffixes are K, M, G and T: powers of 1024; and s: sectors",
        ),
        ("disk { c-max-rate 100MiB/s; }", "6:21", "the suffixes are"),
        ("net { max-buffers 8kB; }", "6:21", "the suffixes are K, M, G and T: powers of 1024"),
        ("net { timeout 6s; }", "6:17", "times have no suffix"),
        ("net { timeout 0x20; }", "6:17", "numbers are decimal"),
        ("net { shared-secret my secret; }", "6:26", "write a text with blanks in quotes"),
        ("handlers { split-brain /x root; }", "6:29", "expected `;`, found `root`"),
    ] {
        check(&with(line), &[&[place, advice]]);
    }
}

#[test]
fn addresses_say_what_they_lack() {
    for (bad, place, message) in [
        ("10.0.0.1", "7:22", "expected IP:PORT, as in `10.0.0.1:7788`, found `10.0.0.1`"),
        ("10.0.0.1 7789", "7:22", "found `10.0.0.1 7789`"),
        ("10.0.0.256:7789", "7:22", "found `10.0.0.256:7789`"),
        ("alpha.local:7789", "7:22", "host names are not looked up"),
        ("ipv6 fd00::1:7789", "7:27", "IPv6 in brackets"),
        ("ipv6 [fe80::1%eth0]:7789", "7:27", "an address without an interface"),
        ("IPV4 10.0.0.1:7789", "7:22", "expected `ipv4`, `ipv6` or IP:PORT behind `address`, found `IPV4`"),
    ] {
        check(&instead_of("10.0.0.1:7789", bad), &[&[place, message]]);
    }
}

#[test]
fn what_several_hosts_inherit_is_wrong_once() {
    let two = with("") + &with("").replace("r0", "r1").replace("7789", "7790");
    check(
        &two,
        &[
            &["12:3", "duplicate use of minor 1 on host `alpha`", "3 |   device minor 1;"],
            &["13:3", "duplicate use of disk `/dev/sdb1` on host `alpha`"],
        ],
    );
    check(
        &with("volume 0 { }\n  volume 1 { device minor 3; disk /dev/sdd; }"),
        &[
            &["3:3", "`device` outside of `volume {}` beside `volume 1`"],
            &["4:3", "`disk` outside of `volume {}`"],
        ],
    );
}

#[test]
fn one_host_is_one_section_and_one_way_is_one_path() {
    check(
        &instead_of("on bravo", "on alpha"),
        &[&["8:6", "duplicate `on alpha`", "the host has a section already"]],
    );
    let floating = "floating 10.0.0.1:1 { node-id 0; } floating 10.0.0.1:2 { node-id 1; }";
    check(
        &with(floating).replace("\n  on ", "\n  skip on "),
        &[&["6:47", "duplicate `floating 10.0.0.1:2`"]],
    );
    check(
        &instead_of("on alpha", "on _this_host"),
        &[&["7:6", "found `_this_host`", "what `uname -n` prints"]],
    );
    let paths = "connection { path { host alpha; host bravo; }\n  path { host bravo; host alpha; } }";
    check(&with(paths), &[&["7:3", "duplicate path", "6 |   connection { path"]]);
}

#[test]
fn what_stands_in_the_wrong_place_is_sent_to_the_right_one() {
    check(
        "common { disk /dev/x; }",
        &[&["1:10", "`disk` is not allowed in `common`", "in `resource {}`, `on {}`, `volume {}`"]],
    );
    check("common { template-file x; }", &[&["1:10", "it belongs in `resource {}`"]]);
    check(
        "resource r { template-file; }",
        &[&["1:27", "expected one file name behind `template-file`, found 0"]],
    );
    check("include a b;", &[&["1:11", "expected one file name behind `include`, found 2"]]);
    check("common {\n skip net;\n disk { }\n}", &[&["2:2", "expected a section behind `skip`", "write `#`"]]);
}

#[test]
fn drbd_proxy_is_refused_where_it_stands() {
    let refused = "`proxy` is not supported";
    let with_common = |text: String| text.replacen('\n', "common { proxy { bwlimit 1M; } }\n", 1);
    check(
        &with("proxy { memlimit 9M; }"),
        &[&["6:3", refused, "`protocol A` with `on-congestion pull-ahead`"]],
    );
    check(&with_common(with("")), &[&["1:10", refused]]);
    check(&with_common(with("proxy { memlimit 9M; }")), &[&["6:3", refused]]);
    let via = "host alpha address 10.0.0.1:8 via proxy on alpha { inside 127.0.0.1:9; outside 10.0.0.1:9; }";
    check(&with(&format!("connection {{ {via} host bravo; }}")), &[&["6:46", refused]]);
    for bad in ["via;", "via proxy on alpha;", "via proxy { }", "via on alpha { }"] {
        let line = format!("connection {{ host alpha address 10.0.0.1:8 {bad} host bravo; }}");
        check(&with(&line), &[&["6:46", "expected `via proxy on HOST { ... }`"]]);
    }
}

#[test]
fn a_backslash_that_is_lost_is_told_of() {
    let config = Config::parse(Path::new("t.conf"), &with("handlers { split-brain \"/x a\\n \\\" \\\\\"; }"));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    let warning = warning.to_string();
    assert!(
        warning.contains("a backslash before `n` has no effect") && warning.contains("t.conf:6:31"),
        "{warning}"
    );
    let handlers: Vec<_> = config.resources[0].handlers().collect();
    assert_eq!(handlers, [("split-brain", "/x an \" \\")]);
}

#[test]
fn a_word_that_is_meant_for_another_section_is_named_with_it() {
    check(
        &with("net { al-extent 1237; }"),
        &[&["6:9", "did you mean `al-extents`? It belongs in `disk {}`"]],
    );
    check(&with("disk { ping-in 5; }"), &[&["6:10", "did you mean `ping-int`? It belongs in `net {}`"]]);
    check(&with("net { ping-in 5; }"), &[&["6:9", "did you mean `ping-int`?"]]);
}
