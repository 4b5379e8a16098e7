//! `show`: a resource as it runs, as drbdsetup lays it out: even where it puts blanks and where tabs.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use tandem_config::{Kind, Section, Unit};
use tandem_control::{ResourceStatus, VolumeSpec};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::status::PeerStatus;

use crate::settings::{self, Setting};

/// One resource; with `defaults`, options that have theirs, too.
pub fn resource(status: &ResourceStatus, defaults: bool) -> String {
    let mut text = Text { text: String::new(), depth: 0 };
    let all = settings::of(&status.spec);
    let shown = |section| {
        all.iter().filter(move |s| s.section == section && !s.is_secret() && (defaults || !s.is_default()))
    };
    text.section(format_args!("resource \"{}\"", status.spec.name), |text| {
        text.settings("options", shown(Section::Options));
        text.section("_this_host", |text| {
            text.line(format_args!("node-id\t\t\t{};", status.spec.node.id));
            for volume in status.spec.volumes() {
                text.section(format_args!("volume {}", volume.number), |text| {
                    text.volume(status, volume);
                    let disk = settings::of_disk(&status.spec, volume);
                    text.settings("disk", disk.iter().filter(|s| defaults || !s.is_default()));
                });
            }
        });
        for peer in &status.engine.peers {
            text.section("connection", |text| {
                text.connection(status, peer);
                text.net(&peer.name, shown(Section::Net));
                for volume in status.spec.volumes().filter(|_| shown(Section::PeerDevice).next().is_some()) {
                    text.section(format_args!("volume {}", volume.number), |text| {
                        text.settings("disk", shown(Section::PeerDevice));
                    });
                }
            });
        }
    });
    text.text.push('\n');
    text.text
}

/// Lines at their depth.
struct Text {
    text: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 4);
    }

    fn section(&mut self, head: impl Display, inside: impl FnOnce(&mut Text)) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
    }

    fn settings<'a>(&mut self, head: &str, settings: impl Iterator<Item = &'a Setting>) {
        let mut settings = settings.peekable();
        if settings.peek().is_some() {
            self.section(head, |text| settings.for_each(|setting| text.setting(setting)));
        }
    }

    fn net<'a>(&mut self, peer: &str, settings: impl Iterator<Item = &'a Setting>) {
        self.section("net", |text| {
            settings.for_each(|setting| text.setting(setting));
            text.line(format_args!("{:<16}\t{};", "_name", quoted(peer)));
        });
    }

    fn setting(&mut self, setting: &Setting) {
        let kind = setting.definition().map(|option| option.kind);
        let default = setting.is_default().then_some("default");
        let remarks: Vec<&str> = kind.and_then(unit).into_iter().chain(default).collect();
        let remarks = if remarks.is_empty() { String::new() } else { format!(" # {}", remarks.join(", ")) };
        self.line(format_args!("{:<16}\t{};{remarks}", setting.name, value(setting, kind)));
    }

    fn volume(&mut self, status: &ResourceStatus, volume: &VolumeSpec) {
        self.line(format_args!("device\t\t\tminor {};", volume.minor));
        if status.engine.disk == DiskState::Diskless {
            return;
        }
        self.line(format_args!("disk\t\t\t{};", quoted(&volume.disk.display().to_string())));
        let meta_disk = volume.meta_disk.as_ref();
        let meta_disk = meta_disk.map_or("internal".to_owned(), |path| quoted(&path.display().to_string()));
        self.line(format_args!("meta-disk\t\t\t{meta_disk};"));
    }

    fn connection(&mut self, status: &ResourceStatus, peer: &PeerStatus) {
        self.line(format_args!("_peer_node_id {};", peer.id));
        for path in status.spec.paths_to(peer.id) {
            self.section("path", |text| {
                text.line(format_args!("_this_host {};", Ip(path.local)));
                text.line(format_args!("_remote_host {};", Ip(path.remote)));
            });
        }
        if peer.connection == ConnectionState::StandAlone {
            self.line("_is_standalone;");
        }
    }
}

/// What drbdsetup says of a number. Whatever it is a multiple of, it is bytes.
fn unit(kind: Kind) -> Option<&'static str> {
    let Kind::Number { unit, .. } = kind else { return None };
    match unit {
        Unit::Count => None,
        Unit::Seconds => Some("seconds"),
        Unit::Tenths => Some("1/10 seconds"),
        Unit::Milliseconds => Some("milliseconds"),
        Unit::Bytes | Unit::Sectors => Some("bytes"),
        Unit::KibPerSecond => Some("bytes/second"),
    }
}

fn value(setting: &Setting, kind: Option<Kind>) -> String {
    let value = &setting.value;
    match kind {
        Some(Kind::Number { unit: Unit::Sectors, .. }) => format!("{value}s"),
        Some(Kind::Number { unit: Unit::KibPerSecond, .. }) => format!("{value}k"),
        // Of texts, nothing is the default.
        Some(Kind::Digest | Kind::Words | Kind::Text { .. }) if setting.is_default() => quoted(""),
        Some(Kind::Digest | Kind::Words | Kind::Text { .. }) => quoted(value),
        _ => value.clone(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An address with its family.
pub(crate) struct Ip(pub(crate) SocketAddr);

impl Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.0.is_ipv4() { "ipv4" } else { "ipv6" }, self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use insta::assert_snapshot;
    use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
    use tandem_core::digest::DigestAlgorithm;

    use super::*;
    use crate::fixture;
    use crate::running_json;

    /// Two volumes, some options, and a peer that is not reached.
    pub(crate) fn runs() -> ResourceStatus {
        let mut status = fixture::two_volumes();
        status.spec.handlers.limit_ms = 120_000;
        status.spec.options.ko_count = 3;
        status.spec.options.verify_algorithm = Some(DigestAlgorithm::Sha1);
        // Which is shown nowhere.
        let secret = Secret::new("Raspberry Jam");
        let algorithm = HmacAlgorithm::Sha1;
        status.spec.options.authentication = Some(Authentication { algorithm, secret });
        status.spec.resync_after = Some("r1".into());
        status.spec.options.al_extents = 67;
        status.spec.options.resync.max_bytes_per_s = 1 << 20;
        status.spec.more_volumes[0].meta_disk = Some("/dev/sdb".into());
        status
    }

    #[test]
    fn what_runs_is_shown_in_drbdsetups_sections() {
        assert_snapshot!(resource(&runs(), false), @r#"
        resource "r0" {
            _this_host {
                node-id			0;
                volume 0 {
                    device			minor 0;
                    disk			"/dev/null";
                    meta-disk			internal;
                    disk {
                        resync-after    	"r1";
                        al-extents      	67;
                    }
                }
                volume 1 {
                    device			minor 1;
                    disk			"/dev/null";
                    meta-disk			"/dev/sdb";
                    disk {
                        resync-after    	"r1";
                        al-extents      	67;
                    }
                }
            }
            connection {
                _peer_node_id 1;
                path {
                    _this_host ipv4 127.0.0.1:7788;
                    _remote_host ipv4 127.0.0.1:7789;
                }
                net {
                    ko-count        	3;
                    cram-hmac-alg   	"sha1";
                    verify-alg      	"sha1";
                    _name           	"bravo";
                }
                volume 0 {
                    disk {
                        c-max-rate      	1024k; # bytes/second
                    }
                }
                volume 1 {
                    disk {
                        c-max-rate      	1024k; # bytes/second
                    }
                }
            }
        }
        "#);
    }

    #[test]
    fn a_peer_without_a_path_stands_alone() {
        let mut status = fixture::connected();
        status.spec.handlers.limit_ms = 120_000;
        fixture::disconnect(&mut status, ConnectionState::StandAlone);
        status.spec.paths.clear();
        status.engine.disk = DiskState::Diskless;
        assert_snapshot!(resource(&status, false), @r#"
        resource "r0" {
            _this_host {
                node-id			0;
                volume 0 {
                    device			minor 0;
                }
            }
            connection {
                _peer_node_id 1;
                _is_standalone;
                net {
                    _name           	"bravo";
                }
            }
        }
        "#);
    }

    #[test]
    fn defaults_are_shown_on_demand() {
        let text = resource(&runs(), true);
        assert!(text.contains("ping-int        \t10; # seconds, default\n"), "{text}");
        assert!(text.contains("ko-count        \t3;\n"), "{text}");
        assert!(text.contains("csums-alg       \t\"\"; # default\n"), "{text}");
        assert!(text.contains("size            \t0s; # bytes, default\n"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&running_json::resources(&[runs()], true)).unwrap();
        assert_eq!(json[0]["connections"][0]["net"]["ping-int"], 10);
        assert_eq!(json[0]["_this_host"]["volumes"][0]["disk"]["disk-flushes"], true);
    }

    #[test]
    fn json_has_drbdsetups_keys() {
        assert_snapshot!(running_json::resources(&[runs()], false), @r#"
        [
          {
            "_this_host": {
              "node-id": 0,
              "volumes": [
                {
                  "backing-disk": "/dev/null",
                  "device_minor": 0,
                  "disk": {
                    "al-extents": 67,
                    "resync-after": "r1"
                  },
                  "meta-disk": "internal",
                  "volume_nr": 0
                },
                {
                  "backing-disk": "/dev/null",
                  "device_minor": 1,
                  "disk": {
                    "al-extents": 67,
                    "resync-after": "r1"
                  },
                  "meta-disk": "/dev/sdb",
                  "volume_nr": 1
                }
              ]
            },
            "connections": [
              {
                "_cstate": "Connected",
                "_peer_node_id": 1,
                "net": {
                  "_name": "bravo",
                  "cram-hmac-alg": "sha1",
                  "ko-count": 3,
                  "verify-alg": "sha1"
                },
                "paths": [
                  {
                    "_remote_host": {
                      "address": "127.0.0.1",
                      "family": "ipv4",
                      "port": 7789
                    },
                    "_this_host": {
                      "address": "127.0.0.1",
                      "family": "ipv4",
                      "port": 7788
                    }
                  }
                ],
                "volumes": [
                  {
                    "disk": {
                      "c-max-rate": 1024
                    },
                    "volume_nr": 0
                  },
                  {
                    "disk": {
                      "c-max-rate": 1024
                    },
                    "volume_nr": 1
                  }
                ]
              }
            ],
            "options": {},
            "resource": "r0"
          }
        ]
        "#);
        assert_eq!(running_json::resources(&[], false), "[\n]\n");
    }
}
