//! What the operator reads: every kind of error with its place and its advice.

use std::path::Path;

use tandem_config::{Config, ConfigError, Severity, Stage};

fn refuse(text: &str) -> ConfigError {
    let config = match Config::parse(Path::new("t.conf"), text) {
        Ok(config) => config,
        Err(error) => return error,
    };
    // What the grammar accepts, this version may yet be unable to run.
    let runnable = config.resources.iter().find_map(|resource| resource.runnable().err());
    runnable.unwrap_or_else(|| panic!("accepted:\n{text}\n{config:?}"))
}

/// A resource that is good except for one line, which is line 2.
fn resource_with(line: &str) -> String {
    format!(
        "resource r0 {{\n{line}\ndevice minor 1; disk /dev/sdb1; meta-disk internal;\n\
         on alpha {{ address 10.0.0.1:7789; }}\non bravo {{ address 10.0.0.2:7789; }}\n}}\n"
    )
}

/// A resource whose first host is good except for one line, which is line 3.
fn host_with(line: &str) -> String {
    format!(
        "resource r0 {{ device minor 1;\non alpha {{\n{line}\n}}\n\
         on bravo {{ address 10.0.0.2:7789; disk /dev/sdb1; meta-disk internal; }}\n}}\n"
    )
}

/// A complete resource of three hosts, the third in line 4.
fn three_hosts() -> String {
    let host = |name, id| format!("on {name} {{ node-id {id}; address 10.0.0.{id}:7789; }}\n");
    let hosts = ["alpha", "bravo", "carol"].iter().zip(1..).map(|(name, id)| host(name, id));
    format!(
        "resource r0 {{ device minor 1; disk /dev/sdb1; connection-mesh {{ hosts alpha bravo carol; }}\n{}}}\n",
        hosts.collect::<String>()
    )
}

/// A complete resource on one line.
fn complete(name: &str, minor: u32, disk: &str, port: u16) -> String {
    format!(
        "resource {name} {{ device minor {minor}; disk {disk}; meta-disk internal; \
         on alpha {{ address 10.0.0.1:{port}; }} on bravo {{ address 10.0.0.2:{port}; }} }}\n"
    )
}

/// Every error holds its parts; there are as many errors as lists of parts.
fn check_all(cases: &[(String, &[&[&str]])], stage: Stage) {
    for (text, expected) in cases {
        let error = refuse(text);
        assert_eq!(error.stage, stage, "{text}\n{error}");
        assert_eq!(error.errors.len(), expected.len(), "{text}\n{error}");
        for (found, parts) in error.errors.iter().zip(*expected) {
            assert_eq!(found.severity, Severity::Error);
            let shown = found.to_string();
            for part in *parts {
                assert!(shown.contains(part), "expected {part:?} for\n{text}\nfound\n{shown}");
            }
        }
    }
}

/// DRBD 8.4 had the option in `disk`, and each volume has a `disk` of its own.
#[test]
fn fencing_is_not_ignored_where_it_cannot_hold() {
    let error = refuse(&host_with("disk { fencing resource-and-stonith; }")).to_string();
    for part in ["`fencing` is no volume's or host's own", "3 | disk { fencing", "write it into its `net {}`"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_error_shows_file_line_column_and_the_line_with_a_caret() {
    let error = refuse(&resource_with("  net { timeout 700; }"));
    let expected = "\
error: `timeout` is out of range: expected a number from 1 to 600 (tenths of a second), found `700`
 --> t.conf:2:17
  |
2 |   net { timeout 700; }
  |                 ^^^";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_error_shows_the_earlier_place_and_what_to_do() {
    let error = refuse(&resource_with("net { timeout 100;\nping-int 20; connect-int 5; }"));
    let expected = "\
error: `timeout` (10 s) must be less than `connect-int` (5 s)
 --> t.conf:2:7
  |
2 | net { timeout 100;
  |       ^^^^^^^
  |
 ::: t.conf:3:14
  |
3 | ping-int 20; connect-int 5; }
  |              ----------- the interval is set here
  |
  = help: `timeout` counts tenths of a second, `connect-int` counts seconds";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn errors_of_syntax() {
    let cases: &[(String, &[&[&str]])] = &[
        ("resource r0 {\n  protocol C\n}".into(), &[&["expected `;`, found `}`", "t.conf:2:13"]]),
        (
            "resource r0 {\n  net {\n    timeout 60;\n".into(),
            &[&[
                "expected `}`, found the end of the file",
                "t.conf:3:16",
                "this section is not closed",
                "2 |   net {",
            ]],
        ),
        ("resource r0".into(), &[&["expected `;` or `{`, found the end of the file", "t.conf:1:12"]]),
        ("common { }\n}".into(), &[&["expected a section or the end of the file, found `}`", "t.conf:2:1"]]),
        ("common { ; }".into(), &[&["expected a statement, found `;`", "t.conf:1:10"]]),
        ("{ a b; }".into(), &[&["expected the name of a section before `{`", "t.conf:1:1"]]),
        (
            "\"common\" { }".into(),
            &[&["expected an option or a section, found the string `common`", "t.conf:1:1"]],
        ),
        (
            "resource r0 {\n disk \"/dev/sdb;\n}".into(),
            &[&["expected a closing `\"` on this line", "t.conf:2:7", "the string starts here"]],
        ),
        ("common {\n ü\0 }".into(), &[&["expected text, found the character U+0000", "t.conf:2:3"]]),
        ("a{".repeat(9) + &"}".repeat(9), &[&["nested deeper than 8 levels", "t.conf:1:18"]]),
        ("include;".into(), &[&["expected one file name behind `include`, found 0", "t.conf:1:8"]]),
        ("include x { }".into(), &[&["expected `;`, found `{`", "t.conf:1:11"]]),
        ("skip".into(), &[&["expected a section behind `skip`", "t.conf:1:1"]]),
        (
            "common { protocol C }\nglobal { ;\n } }".into(),
            &[
                &["expected `;`, found `}`", "t.conf:1:20"],
                &["found `;`", "t.conf:2:10"],
                &["found `}`", "t.conf:3:4"],
            ],
        ),
    ];
    check_all(cases, Stage::Syntax);
}

#[test]
fn errors_of_options() {
    let cases: &[(String, &[&[&str]])] = &[
        (
            resource_with("net { ping-itn 5; }"),
            &[&["`ping-itn` is not known in `net`", "t.conf:2:7", "did you mean `ping-int`?"]],
        ),
        (resource_with("net { colour blue; }"), &[&["`colour` is not known in `net`", "t.conf:2:7"]]),
        (
            resource_with("ping-int 5;"),
            &[&["`ping-int` is not allowed in `resource`", "t.conf:2:1", "it belongs in `net {}`"]],
        ),
        (
            resource_with("disk { quorum off; }"),
            &[&["`quorum` is not allowed in `disk`", "it belongs in `options {}`"]],
        ),
        (
            resource_with("net { ping-int many; }"),
            &[&["`ping-int`: expected a number from 1 to 120 (seconds), found `many`", "t.conf:2:16"]],
        ),
        (
            resource_with("net { ping-int 0; }"),
            &[&["`ping-int` is out of range", "from 1 to 120", "found `0`", "t.conf:2:16"]],
        ),
        (resource_with("net { ping-int 99999999999999999999; }"), &[&["is out of range", "t.conf:2:16"]]),
        (
            resource_with("net { ping-int 5s; }"),
            &[&["expected a number from 1 to 120 (seconds), found `5s`", "t.conf:2:16"]],
        ),
        (
            resource_with("net { protocol D; }"),
            &[&["`protocol`: expected `C`, `A` or `B`, found `D`", "t.conf:2:16"]],
        ),
        (
            resource_with("net { on-congestion pul-ahead; }"),
            &[&[
                "expected `block`, `pull-ahead` or `disconnect`, found `pul-ahead`",
                "did you mean `pull-ahead`?",
            ]],
        ),
        (
            resource_with("net { on-congestion pull-ahead; }"),
            &[&[
                "on-congestion policy pull-ahead only with prot A allowed",
                "t.conf:2:7",
                "use `protocol A`",
            ]],
        ),
        (
            resource_with("disk { disk-flushes maybe; }"),
            &[&["expected `yes` or `no`, found `maybe`", "t.conf:2:21"]],
        ),
        (resource_with("disk { no-disk-flushes yes; }"), &[&["expected `;`, found `yes`", "t.conf:2:24"]]),
        (
            resource_with("net { timeout; }"),
            &[&[
                "expected a number from 1 to 600 (tenths of a second) behind `timeout`, found `;`",
                "t.conf:2:14",
            ]],
        ),
        (resource_with("net { timeout 5 6; }"), &[&["expected `;`, found `6`", "t.conf:2:17"]]),
        (resource_with("net { timeout 5 { } }"), &[&["expected `;`, found `{`", "t.conf:2:17"]]),
        (
            resource_with("net { timeout 5\nping-int 9; }"),
            &[&["expected `;` behind `5`, found `ping-int`", "t.conf:2:16", "`;` is missing here"]],
        ),
        (resource_with("protocol C\non x { }"), &[&["expected `;` behind `C`, found `on`", "t.conf:2:11"]]),
        (
            resource_with("net { timeout 5; timeout 5; }"),
            &[&["duplicate option `timeout`", "t.conf:2:18", "it is first set here"]],
        ),
        (
            resource_with("net { timeout 5; } net { timeout 6; }"),
            &[&["duplicate option `timeout`", "t.conf:2:26"]],
        ),
        (
            resource_with("protocol A; net { protocol B; }"),
            &[&["contradictory `protocol`: B here, A before", "t.conf:2:19"]],
        ),
        (
            resource_with("net { timeout 600; connect-int 120; }"),
            &[&["`timeout` (60 s) must be less than `ping-int` (10 s)", "t.conf:2:7"]],
        ),
        (
            resource_with("net { ping-int 6; }"),
            &[&["`timeout` (6 s) must be less than `ping-int` (6 s)", "t.conf:2:7"]],
        ),
        (resource_with("net now { }"), &[&["expected `{` behind `net`, found `now`", "t.conf:2:5"]]),
        (resource_with("net;"), &[&["expected `{` behind `net`, found `;`", "t.conf:2:4"]]),
        (
            format!("global {{ nbd-listen localhost:1; }} {}", complete("r", 1, "/d", 1)),
            &[&["`nbd-listen`: expected IP:PORT", "found `localhost:1`", "t.conf:1:21"]],
        ),
        (
            resource_with("net { sndbuf-size 1X; }"),
            &[&["`sndbuf-size`: expected a number from 0 to 134217728 (bytes), found `1X`", "t.conf:2:19"]],
        ),
    ];
    check_all(cases, Stage::Check);
}

#[test]
fn promises_that_this_version_cannot_keep_are_refused_with_reason_and_advice() {
    let refused = [
        ("net { cram-hmac-alg crc32c; shared-secret x; }", "`cram-hmac-alg crc32c`", "write `sha256`"),
        ("net { allow-two-primaries; }", "`allow-two-primaries yes`", "only one node may be primary"),
        ("net { tls yes; }", "`tls yes`", "not encrypted"),
        ("net { transport rdma; }", "`transport rdma`", "use `tcp`"),
        ("net { discard-my-data; }", "`discard-my-data yes`", "connect --discard-my-data"),
        ("disk { bitmap no; }", "`bitmap no`", "remove it"),
    ];
    for (line, what, advice) in refused {
        let error = refuse(&resource_with(line));
        let shown = error.to_string();
        assert_eq!(error.errors.len(), 1, "{shown}");
        assert!(shown.contains(&format!("{what} is not supported by this version: ")), "{shown}");
        assert!(
            shown.contains(advice) && shown.contains("t.conf:2:") && shown.contains("= help: "),
            "{shown}"
        );
    }
}

#[test]
fn what_volumes_must_have_alike_is_named_with_both_places() {
    let text = "resource r0 {
        disk { al-extents 99; }
        volume 0 { device minor 0; disk /dev/a; meta-disk internal; disk { on-io-error detach; disk-flushes no; } }
        volume 1 { device minor 1; disk /dev/b; meta-disk internal;
                   disk { on-io-error pass_on; md-flushes no; size 1G; al-extents 67; } }
        connection { host alpha address 10.0.0.1:7; host bravo address 10.0.0.2:7;
                     volume 1 { disk { c-max-rate 9M; } } }
        on alpha { } on bravo { } }";
    let error = refuse(text);
    let shown = error.to_string();
    assert_eq!(error.errors.len(), 2, "{shown}");
    for part in [
        "volume 1 has another `on-io-error` than volume 0: pass_on and detach",
        "t.conf:5:27",
        "what volume 0 has",
        "volume 1 has another `c-max-rate` than volume 0: 9216 and 0, the default",
        "write it once, into the resource's `disk {}`",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
}

#[test]
fn errors_of_resources_and_hosts() {
    let cases: &[(String, &[&[&str]])] = &[
        ("resorce r0 { }".into(), &[&["`resorce` is not known here", "t.conf:1:1", "did you mean `resource`?"]]),
        ("include-all x;".into(), &[&["`include-all` is not known here", "expected one of: global, common, resource, include"]]),
        ("net { }".into(), &[&["`net` is not allowed here", "it belongs in `common {}`, `resource {}` or `connection {}`"]]),
        ("common { on x { } }".into(), &[&["`on` is not allowed in `common`", "t.conf:1:10", "it belongs in `resource {}`"]]),
        (resource_with("include \"x\";"), &[&["`include` is not allowed in `resource`", "the top level"]]),
        ("global { } global { }".into(), &[&["duplicate `global` section", "t.conf:1:12"]]),
        ("common { }\ncommon { }".into(), &[&["duplicate `common` section", "t.conf:2:1", "it first stands here"]]),
        ("resource { }".into(), &[&["expected the name of the resource behind `resource`", "t.conf:1:10"]]),
        ("resource a b { }".into(), &[&["expected `{` behind `a`, found `b`", "t.conf:1:12"]]),
        ("resource r0;".into(), &[&["expected `{` behind `resource`, found `;`", "t.conf:1:12"]]),
        ("resource all { }".into(), &[&["`all` cannot be the name of a resource", "t.conf:1:10"]]),
        ("resource -x { }".into(), &[&["`-x` cannot be the name of a resource: it must start with", "t.conf:1:10"]]),
        ("resource a/b { }".into(), &[&["`a/b` cannot be the name of a resource: `/` is not one of", "t.conf:1:10"]]),
        (complete("r0", 1, "/a", 1) + &complete("r0", 2, "/b", 2), &[&["duplicate resource `r0`", "t.conf:2:10", "it is first defined here"]]),
        (complete("r0", 1, "/a", 1) + &complete("r1", 1, "/b", 2), &[
            &["duplicate use of minor 1 on host `alpha`", "t.conf:2:15", "resource `r0` uses it here"],
        ]),
        (complete("r0", 1, "/a", 1) + &complete("r1", 2, "/b", 1), &[
            &["duplicate use of address 10.0.0.1:1 on host `alpha`", "t.conf:2:71"],
            &["duplicate use of address 10.0.0.2:1 on host `bravo`"],
        ]),
        (complete("r0", 1, "/dev/a", 1) + &complete("r1", 2, "/dev//a", 2), &[
            &["duplicate use of disk `/dev/a` on host `alpha`", "t.conf:2:31"],
        ]),
        (host_with("address 10.0.0.1:7789; disk /dev/x; meta-disk /dev/x;"), &[&["duplicate use of disk `/dev/x` on host `alpha`", "t.conf:3:37"]]),
        ("resource r0 {\n}".into(), &[&["expected two `on HOST {}` sections in `r0`, found 0", "t.conf:1:10"]]),
        (resource_with("on carol { address 10.0.0.3:7789; }"), &[
            &["`on carol` has no `node-id`", "t.conf:2:4"],
            &["`on alpha` has no `node-id`"],
            &["`on bravo` has no `node-id`", "with more than two hosts, every one needs"],
        ]),
        (three_hosts(), &[&["resource `r0` has 3 hosts; this version supports two nodes", "t.conf:4:4"]]),
        (resource_with("on alpha { address 10.0.0.9:1; }").replace("on bravo { address 10.0.0.2:7789; }", ""), &[
            &["duplicate `on alpha`", "t.conf:4:4", "the host has a section already"],
        ]),
        ("resource r0 {\non alpha { }\non bravo { address 1.1.1.1:1; device minor 1; disk /x; meta-disk internal; } }".into(), &[
            &["`on alpha` has no `address`", "t.conf:2:4", "add `address IP:PORT;`"],
            &["`on alpha` has no `device`", "t.conf:2:4", "add `device /dev/drbdN;`"],
            &["`on alpha` has no `disk`", "t.conf:2:4", "add `disk PATH;`"],
        ]),
        (resource_with("").replace("on alpha", "on"), &[
            &["expected the name of a host behind `on`", "t.conf:4:4"],
        ]),
        (resource_with("").replace("on alpha", "on al/pha beta"), &[&["expected the name of a host", "found `al/pha`", "t.conf:4:4"]]),
        (resource_with("volume 0 { } volume 1 { }"), &[
            &["`device` outside of `volume {}` beside `volume 1`", "t.conf:3:1", "write it into `volume 0 { ... }`"],
            &["`disk` outside of `volume {}` beside `volume 1`", "t.conf:2:21"],
        ]),
        (resource_with("").replace("device minor 1; disk /dev/sdb1; meta-disk internal;", ""), &[&["resource `r0` has no volume", "t.conf:1:10"]]),
        (resource_with("volume { }"), &[&["expected one number behind `volume`", "t.conf:2:1"]]),
        (resource_with("volume x { }"), &[&["expected a number from 0 to 65534, found `x`", "t.conf:2:8"]]),
        (resource_with("volume 0 { dsk /x; }"), &[&["`dsk` is not known in `volume`", "t.conf:2:12", "did you mean `disk`?"]]),
        (resource_with("connection { host a; host bravo; }"), &[&["there is no `on a`", "t.conf:2:19"]]),
        (resource_with("connection { host alhpa; host bravo; }"), &[&["there is no `on alhpa`", "did you mean `alpha`?"]]),
        (resource_with("connection { host alpha; }"), &[&["expected two `host` statements in `connection`, found 1", "t.conf:2:1"]]),
        (resource_with("connection { host alpha; host alpha; }"), &[&["a connection needs two different hosts"]]),
        (resource_with("connection { host alpha; host bravo; }\nconnection { host bravo; host alpha; }"), &[
            &["duplicate connection of two hosts", "t.conf:3:1", "they are connected here already", "write `path { ... }`"],
        ]),
        (resource_with("connection { host alpha; host bravo; disk { al-extents 67; } }"), &[
            &["`al-extents` is not allowed in a connection's `disk`", "t.conf:2:45", "it belongs in `disk {}`"],
        ]),
        (resource_with("connection { host alpha; host bravo; volume 3 { disk { c-max-rate 1; } } }"), &[
            &["`volume 3` of the connection is no volume of the resource", "t.conf:2:45"],
        ]),
        (resource_with("connection { path { host alpha; host bravo; } host alpha; host bravo; }"), &[&["`path` beside `host`", "t.conf:2:14"]]),
        (resource_with("connection-mesh { hosts alpha; }"), &[&["a mesh needs two hosts at least", "t.conf:2:1"]]),
        (resource_with("net { transport rdma; }"), &[&["`transport rdma` is not supported", "use `tcp`"]]),
        (resource_with("stacked-on-top-of r1 { node-id 7; address 10.0.0.3:1; }"), &[
            &["`on alpha` has no `node-id`"], &["`on bravo` has no `node-id`"],
        ]),
        (resource_with("").replace("on alpha {", "stacked-on-top-of r1 {"), &[
            &["`stacked-on-top-of` is not supported", "needs a third node", "t.conf:4:19"],
        ]),
        (resource_with("proxy { memlimit 1; }"), &[&["`proxy` is not supported", "t.conf:2:1", "`protocol A`"]]),
        (resource_with("syncer { quorum 3; }"), &[&["`quorum` is not allowed in `syncer`", "it belongs in `options {}`"]]),
    ];
    check_all(cases, Stage::Check);
}

#[test]
fn errors_of_what_a_host_says() {
    let rest = "disk /dev/sdb1; meta-disk internal;";
    let with_address = |address: &str| host_with(&format!("address {address}; {rest}"));
    let good = "address 10.0.0.1:7789;";
    let cases: &[(String, &[&[&str]])] = &[
        (with_address("10.0.0.1"), &[&["expected IP:PORT", "found `10.0.0.1`", "t.conf:3:9"]]),
        (
            with_address("alpha:7789"),
            &[&["host names are not looked up", "found `alpha:7789`", "t.conf:3:9"]],
        ),
        (with_address("10.0.0.1:0"), &[&["expected a port from 1 to 65535", "t.conf:3:9"]]),
        (with_address("10.0.0.1:70000"), &[&["expected IP:PORT", "t.conf:3:9"]]),
        (with_address("ipv6 10.0.0.1:1"), &[&["`10.0.0.1:1` is not of the family before it", "t.conf:3:14"]]),
        (
            with_address("sdp 10.0.0.1:1"),
            &[&["`sdp` is not supported", "t.conf:3:1", "write `address IP:PORT;`"]],
        ),
        (
            with_address("ipv5 10.0.0.1:1"),
            &[&["expected `ipv4`, `ipv6` or IP:PORT behind `address`, found `ipv5`", "t.conf:3:9"]],
        ),
        (
            with_address("0.0.0.0:1"),
            &[&["expected the host's own address", "the peer connects to this address"]],
        ),
        (
            with_address("[fd00::1]:1"),
            &[&["one host has an IPv4 address and the other an IPv6 address", "t.conf:5:12"]],
        ),
        (
            with_address("10.0.0.2:7789"),
            &[&["both hosts have the address 10.0.0.2:7789", "t.conf:5:12", "t.conf:3:1"]],
        ),
        (
            host_with(&format!("{good} {rest} adress 1;")),
            &[&["`adress` is not known in `on`", "did you mean `address`?"]],
        ),
        (host_with(&format!("{good} {rest} net {{ }}")), &[&["`net` is not allowed in `on`", "t.conf:3:60"]]),
        (
            host_with(&format!("{good} {rest} disk /dev/sdc;")),
            &[&["duplicate `disk`", "t.conf:3:60", "it is first set here"]],
        ),
        (
            host_with(&format!("{good} {rest} node-id 32;")),
            &[&["expected a number from 0 to 31, found `32`", "t.conf:3:68"]],
        ),
        (
            host_with(&format!("{good} {rest} node-id 1;")),
            &[&["conflicting use of node-id 1", "t.conf:5:4", "t.conf:3:60"]],
        ),
        (
            host_with(&format!("{good} disk sdb1; meta-disk internal;")),
            &[&["expected a path that starts with `/`, found `sdb1`", "t.conf:3:29"]],
        ),
        (
            host_with(&format!("{good} disk none; meta-disk internal;")),
            &[&["`disk none` is not supported by this version", "t.conf:3:24"]],
        ),
        (
            host_with(&format!("{good} disk /d; meta-disk flexible;")),
            &[&["expected a device, found `flexible`", "write `meta-disk internal;`"]],
        ),
        (
            host_with(&format!("{good} disk /d; meta-disk /dev/m[0];")),
            &[&["indexed external metadata is not supported", "t.conf:3:33"]],
        ),
        (
            host_with(&format!("{good} {rest} device /dev/drbd1 minor 2;")),
            &[&["`/dev/drbd1` cannot have minor 2", "t.conf:3:67"]],
        ),
        (
            host_with(&format!("{good} {rest} device /dev/x;")),
            &[&["the minor number of `/dev/x` is missing", "t.conf:3:67"]],
        ),
        (
            host_with(&format!("{good} {rest} device minor 1048576;")),
            &[&["expected a number from 0 to 1048575", "t.conf:3:73"]],
        ),
        (
            host_with(&format!("{good} {rest} device a b;")),
            &[&["expected a device, found other words", "write `device /dev/drbdN;`"]],
        ),
        (
            host_with(&format!("{good} device /dev/drbd1\n{rest}")),
            &[&["expected `;` behind `/dev/drbd1`, found `disk`", "t.conf:3:41"]],
        ),
    ];
    check_all(cases, Stage::Check);
}

#[test]
fn what_common_says_wrong_is_reported_once_for_all_resources() {
    let text = "common { net { timeout 120; } }\n".to_owned()
        + &complete("a", 1, "/a", 1)
        + &complete("b", 2, "/b", 2);
    let error = refuse(&text);
    assert_eq!(error.errors.len(), 2, "one for connect-int and one for ping-int\n{error}");
}

#[test]
fn all_errors_are_reported_up_to_a_limit() {
    let error = refuse(&resource_with(&format!("net {{ {} }}", "x 1; ".repeat(150))));
    assert_eq!((error.errors.len(), error.suppressed), (100, 50));
    assert!(error.to_string().ends_with("\n\nand 50 more errors"));
}

#[test]
fn warnings_come_with_the_errors() {
    let error = refuse(&resource_with("net { tcp-cork no; timeout 0; }"));
    assert_eq!(error.warnings.len(), 1);
    let shown = error.warnings[0].to_string();
    assert!(
        shown.starts_with("warning: `tcp-cork` has no effect in this version: ")
            && shown.contains("t.conf:2:7")
    );
}

#[test]
fn very_long_lines_and_words_are_not_printed() {
    let error = refuse(&format!("# line\n{}{}", " ".repeat(3000), "y".repeat(500))).to_string();
    assert!(error.contains("t.conf:2:3501") && error.len() < 300, "{error}");
    let error = refuse(&format!("{};", "y".repeat(500))).errors[0].message.clone();
    assert!(error.contains("yyy...`") && error.len() < 120, "{error}");
}

#[test]
fn columns_count_characters() {
    let error = refuse("common { # ü\n\t\"ü\" ; }").errors;
    let span = error[0].span.clone().unwrap();
    assert_eq!((span.line(), span.column(), span.path()), (2, 2, Path::new("t.conf")));
    let error = refuse("üü { }").errors;
    assert!(error[0].to_string().contains("t.conf:1:1\n"), "{}", error[0]);
    let error = refuse("common { handlers { } } \"ü\" ; } }").to_string();
    assert!(error.contains("t.conf:1:31\n"), "{error}");
}

#[test]
fn policies_that_never_decide_anything_are_named() {
    let warned = |line: &str| {
        let config = Config::parse(Path::new("t.conf"), &resource_with(line)).unwrap();
        config.warnings.iter().map(|warning| format!("{warning}\n")).collect::<String>()
    };
    for (line, expected) in [
        ("net { after-sb-1pri consensus; }", "`consensus` asks `after-sb-0pri`, which is `disconnect`"),
        ("net { after-sb-2pri call-pri-lost-after-sb; }", "`after-sb-2pri` has no effect"),
        ("net { always-asbp; }", "every `after-sb` policy is `disconnect`"),
        ("net { congestion-fill 1M; }", "`on-congestion` is `block`"),
        ("net { csums-after-crash-only; }", "there is no `csums-alg`"),
        ("net { shared-secret jam; }", "`shared-secret` has no effect: without `cram-hmac-alg` nobody"),
        ("net { csums-alg crc32c-intel; }", "one of four billion blocks that differ passes for equal"),
        ("net { csums-alg md5; }", "`csums-alg` is weak: a block that somebody has made for it"),
        ("handlers { fence-peer /x; }", "`fencing` is `dont-care`, so that it is never run"),
        ("net { fencing resource-only; }", "`fencing` without a `fence-peer` handler"),
        ("disk { al-extents 7000; }", "`al-extents` counts as 6433"),
    ] {
        let text = warned(line);
        assert!(text.contains(expected) && text.contains("t.conf:2:"), "{line}\n{text}");
    }
    for line in [
        "net { after-sb-1pri discard-secondary; }",
        "net { cram-hmac-alg sha1; shared-secret jam; }",
        "net { verify-alg crc32c; csums-alg sha512-avx2; }",
        "net { after-sb-0pri discard-zero-changes; after-sb-1pri consensus; always-asbp; }",
        "net { protocol A; on-congestion pull-ahead; congestion-fill 1M; }",
        "net { fencing resource-only; } handlers { fence-peer /x; }",
    ] {
        assert_eq!(warned(line), "", "{line}");
    }
}

/// The message says what is wrong, with the line, and a colleague may read it.
#[test]
fn no_error_shows_a_secret() {
    for line in [
        "net { shared-secret \"hunter2\"; timeout 700; }",
        "net { timeout 700; shared-secret hunter2; }",
        "net { shared-secret hunter2 hunter2; }",
        "net { shared-secret\nhunter2 hunter2; timeout 700; }",
        "net { shared-secret \"hunter2; }",
        "net { shared-secret \"; \\\"hunter2\"; timeout 700; }",
        "net { shared-secret hunter2\n timeout 700; }",
        "net { shared-secret hunter2 { } }",
        "# net { shared-secret hunter2; } \u{1}\n timeout 700;",
        "net { shared-secret \u{1} hunter2; }",
        "net { shared-secret h\u{e4}unter2; timeout 700; }",
    ] {
        let error = refuse(&resource_with(line)).to_string();
        assert!(error.contains("t.conf:"), "{error}");
        assert!(!error.contains("hunter") && !error.contains("unter2"), "{line}\n{error}");
    }
}

#[test]
fn resync_after_names_another_resource_and_leads_in_no_circle() {
    let after = |name: &str, minor, before: &str| {
        let text = complete(name, minor, &format!("/dev/sd{minor}"), 7780 + minor as u16);
        text.replacen('{', &format!("{{ disk {{ resync-after {before}; }}"), 1)
    };
    let error = refuse(&after("r0", 1, "r9"));
    assert!(error.to_string().contains("`resync-after` names `r9`, which is not defined"), "{error}");
    let error = refuse(&(after("r0", 1, "r1/0") + &after("r1", 2, "r0")));
    assert!(error.to_string().contains("`resync-after` of `r0` leads in a circle"), "{error}");
    let good = after("r1", 1, "r0/0") + &complete("r0", 2, "/dev/sdx", 7999);
    let config = Config::parse(Path::new("t.conf"), &good).unwrap();
    let after = |place: usize| {
        config.resources[place].pair("alpha").map(|pair| pair.disk(pair.volume)).unwrap().resync_after
    };
    assert_eq!((after(0).as_deref(), after(1)), (Some("r0"), None));
}
