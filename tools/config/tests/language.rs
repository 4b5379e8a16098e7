//! What the language means: the example of the handbook, options, inheritance, dump.

use std::path::{Path, PathBuf};

use tandem_config::{
    Config, DiskOptions, MetaDisk, NetOptions, Protocol, Resource, Section, Value, node_name,
};

const EXAMPLE: &str = "\
resource r0 {
  protocol C;
  on node1 {
    device    /dev/drbd0;
    disk      /dev/sdb1;
    address   192.168.100.101:7789;
    meta-disk internal;
  }
  on node2 {
    device    /dev/drbd0;
    disk      /dev/sdb1;
    address   192.168.100.102:7789;
    meta-disk internal;
  }
}
";

fn parse(text: &str) -> Config {
    Config::parse(Path::new("test.conf"), text).unwrap_or_else(|error| panic!("{error}"))
}

/// How the two hosts are connected.
fn net(resource: &Resource) -> NetOptions {
    resource.pair(&resource.hosts[0].name()).unwrap_or_else(|error| panic!("{error}")).net()
}

/// What holds for the volume on a host.
fn disk(resource: &Resource, node: &str) -> DiskOptions {
    let pair = resource.pair(node).unwrap_or_else(|error| panic!("{error}"));
    pair.disk(pair.volume)
}

/// Two hosts whose sections hold only addresses.
fn hosts() -> &'static str {
    "on alpha { address 10.0.0.1:7789; } on bravo { address 10.0.0.2:7789; }"
}

fn resource(inside: &str) -> String {
    format!("resource r0 {{ device minor 1; disk /dev/sdb1; meta-disk internal; {} {inside} }}", hosts())
}

#[test]
fn the_example_parses_word_for_word() {
    let config = parse(EXAMPLE);
    assert!(config.warnings.is_empty());
    let [resource] = config.resources.as_slice() else { panic!("{config:?}") };
    assert_eq!((resource.name.as_str(), &resource.source), ("r0", &(PathBuf::from("test.conf"), 1)));
    assert_eq!(net(resource).protocol, Protocol::C);
    let [node1, node2] = resource.hosts.as_slice() else { panic!("{resource:?}") };
    assert_eq!(
        (node1.name().as_str(), node1.node_id, node2.name().as_str(), node2.node_id),
        ("node1", 0, "node2", 1)
    );
    assert_eq!(node1.address.unwrap().to_string(), "ipv4 192.168.100.101:7789");
    assert_eq!(node2.address.unwrap().to_string(), "ipv4 192.168.100.102:7789");
    let [volume] = node1.volumes.as_slice() else { panic!("{node1:?}") };
    assert_eq!((volume.number, volume.minor), (0, 0));
    assert_eq!(
        (volume.device.as_path(), volume.disk.as_deref()),
        (Path::new("/dev/drbd0"), Some(Path::new("/dev/sdb1")))
    );
    assert_eq!(volume.meta_disk, MetaDisk::Internal);
    assert!(disk(resource, "node2").disk_flushes);
}

#[test]
fn the_example_parses_on_one_line_with_the_other_host() {
    let one_line = EXAMPLE.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = parse(&one_line);
    assert_eq!(config, parse(EXAMPLE));
}

#[test]
fn defaults_are_drbds() {
    let net = net(&parse(EXAMPLE).resources[0]);
    assert_eq!((net.timeout_ms, net.ping_interval_ms, net.ping_timeout_ms), (6000, 10_000, 500));
    assert_eq!((net.connect_interval_ms, net.ko_count, net.max_epoch_size), (10_000, 7, 2048));
}

#[test]
fn every_form_of_the_grammar_is_read() {
    let config = parse(
        "\u{feff}# a comment\r\n\
         global { nbd-listen [::1]:10809; }\n\
         skip resource broken { this is ; not { even } checked }\n\
         common { skip net { timeout 1; } }\n\
         resource \"r.1_+-x\" {\n\
           net { protocol B; ping-int 7; timeout 50; ping-timeout 9; connect-int 8; ko-count 0; max-epoch-size 2K; }\n\
           disk { disk-flushes no; }\n\
           volume 0 { device /dev/drbd_data minor 5; disk \"/dev/mapper/a b\\\"c\"; }\n\
           on alpha alpha.example.org { node-id 4; meta-disk /dev/md1; address ipv6 [fd01::1]:7789; } # end\n\
           on bravo { node-id 2; address ipv6 [fd01::2]:7789; volume 0 { meta-disk internal; disk { disk-flushes; } } }\n\
         }",
    );
    assert_eq!(config.global.nbd_listen, Some("[::1]:10809".parse().unwrap()));
    let [resource] = config.resources.as_slice() else { panic!("{config:?}") };
    assert_eq!(resource.name, "r.1_+-x");
    let net = net(resource);
    assert_eq!((net.protocol, net.timeout_ms, net.ping_timeout_ms), (Protocol::B, 5000, 900));
    assert_eq!((net.ping_interval_ms, net.connect_interval_ms), (7000, 8000));
    assert_eq!((net.ko_count, net.max_epoch_size), (0, 2048));
    let alpha = resource.local("alpha.example.org").unwrap();
    assert_eq!((alpha.name().as_str(), alpha.node_id), ("alpha", 4));
    let volume = &alpha.volumes[0];
    assert_eq!((volume.minor, volume.device.as_path()), (5, Path::new("/dev/drbd_data")));
    assert_eq!(volume.disk.as_deref(), Some(Path::new("/dev/mapper/a b\"c")));
    assert_eq!(volume.meta_disk, MetaDisk::External("/dev/md1".into()));
    assert!(!disk(resource, "alpha").disk_flushes);
    let [bravo] = resource.peers("alpha")[..] else { panic!("{resource:?}") };
    assert_eq!((bravo.name().as_str(), bravo.node_id), ("bravo", 2));
    assert!(disk(resource, "bravo").disk_flushes, "the volume's own option wins over the resource's");
}

#[test]
fn common_is_inherited_and_overridden_wherever_it_stands() {
    let config = parse(&format!(
        "{} common {{ protocol A; net {{ timeout 40; ping-int 9; }} disk {{ no-disk-flushes; }} }}",
        resource("net { timeout 30; }")
    ));
    let resource = &config.resources[0];
    assert_eq!(net(resource).protocol, Protocol::A);
    assert_eq!((net(resource).timeout_ms, net(resource).ping_interval_ms), (3000, 9000));
    assert!(resource.hosts.iter().all(|host| !disk(resource, &host.name()).disk_flushes));
}

#[test]
fn hosts_inherit_and_override_what_the_resource_says_of_the_volume() {
    let config = parse(
        "resource r0 { device /dev/drbd3; disk /dev/sdb1; meta-disk internal;\n\
           on alpha { address 10.0.0.1:7789; }\n\
           on bravo { address 10.0.0.2:7789; disk /dev/sdc1; device minor 9; } }",
    );
    let [alpha, bravo] = config.resources[0].hosts.as_slice() else { panic!("{config:?}") };
    assert_eq!((alpha.volumes[0].minor, alpha.volumes[0].disk.as_deref()), (3, Some(Path::new("/dev/sdb1"))));
    assert_eq!((bravo.volumes[0].minor, bravo.volumes[0].disk.as_deref()), (9, Some(Path::new("/dev/sdc1"))));
    assert_eq!(bravo.volumes[0].device, Path::new("/dev/drbd9"));
}

#[test]
fn the_same_protocol_in_both_places_is_accepted() {
    assert_eq!(net(&parse(&resource("protocol B; net { protocol B; }")).resources[0]).protocol, Protocol::B);
}

#[test]
fn options_without_effect_give_one_warning_each_and_are_kept() {
    let config = parse(&format!(
        "global {{ usage-count yes; }} common {{ net {{ rcvbuf-size 512K; data-integrity-alg crc32c; }} }} {}",
        resource("disk { max-bio-size 64K; } options { cpu-mask f; }")
    ));
    let warned: Vec<_> =
        config.warnings.iter().map(|w| w.message.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        warned,
        ["`rcvbuf-size`", "`data-integrity-alg`", "`usage-count`", "`max-bio-size`", "`cpu-mask`"]
    );
    assert!(config.warnings[1].to_string().contains("always on, with CRC-32"), "{}", config.warnings[1]);
    let settings = &config.resources[0].settings;
    assert_eq!(settings.get(Section::Net, "rcvbuf-size"), Some(&Value::Number(512 << 10)));
    assert_eq!(settings.get(Section::Disk, "max-bio-size"), Some(&Value::Number(64 << 10)));
}

/// What DRBD 8.4's and 9's files say of promotions is no reason not to be run.
#[test]
fn promotions_that_do_not_happen_by_themselves_are_noted() {
    let config = parse(&resource("startup { become-primary-on both; } options { auto-promote yes; }"));
    config.resources[0].runnable().unwrap();
    let [at_boot, by_opening] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(at_boot.message.starts_with("`become-primary-on` has no effect in this version: "), "{at_boot}");
    assert!(by_opening.message.contains("`tandemadm primary`, nfs-failover"), "{by_opening}");
}

#[test]
fn refused_options_are_accepted_with_the_value_that_is_done_anyway() {
    let config = parse(&resource(
        "net { fencing dont-care; after-sb-0pri disconnect; allow-two-primaries no; transport tcp; tls no; }\n\
         disk { on-io-error detach; disk-timeout 0; fencing dont-care; }\n\
         options { quorum off; auto-promote no; on-no-data-accessible io-error; } handlers { }",
    ));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn resources_are_chosen_by_host() {
    let config = parse(&EXAMPLE.replace("r0", "r1").replace("node2", "node3").add(EXAMPLE, "sdb1", "sdc1"));
    let names = |node: &str| config.for_node(node).iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    assert_eq!(names("node2"), ["r0"]);
    assert_eq!(names("node1"), ["r1", "r0"]);
    assert!(names("node4").is_empty());
    assert_eq!(config.resource_for_node("r0", "node2").unwrap().name, "r0");
    let error = config.resource_for_node("r1", "node2").unwrap_err().to_string();
    assert_eq!(error, "'r1' not defined in your config (for this host).");
}

#[test]
fn a_host_is_known_with_and_without_its_domain() {
    let config = parse(&EXAMPLE.replace("node1", "Node1.example.org"));
    let known = |node: &str| !config.for_node(node).is_empty();
    for (node, expected) in [
        ("node1", true),
        ("NODE1", true),
        ("node1.example.org", true),
        ("node1.example.com", false),
        ("node2.example.org", true),
        ("node", false),
        ("node1.", false),
    ] {
        assert_eq!(known(node), expected, "{node}");
    }
}

/// Appends the example with other disk, minor and port, so that both fit on one host.
trait Add {
    fn add(self, more: &str, from: &str, to: &str) -> String;
}

impl Add for String {
    fn add(self, more: &str, from: &str, to: &str) -> String {
        self + &more.replace(from, to).replace("drbd0", "drbd1").replace("7789", "7790")
    }
}

#[test]
fn the_dump_is_laid_out_like_drbdadms() {
    let config = parse(EXAMPLE);
    let expected = "\
# resource r0 on node1: not ignored, not stacked
# defined at test.conf:1
resource r0 {
    on node1 {
        node-id          0;
        volume 0 {
            device           /dev/drbd0 minor 0;
            disk             /dev/sdb1;
            meta-disk        internal;
        }
        address          ipv4 192.168.100.101:7789;
    }
    on node2 {
        node-id          1;
        volume 0 {
            device           /dev/drbd0 minor 0;
            disk             /dev/sdb1;
            meta-disk        internal;
        }
        address          ipv4 192.168.100.102:7789;
    }
    net {
        protocol         C;
    }
}
";
    assert_eq!(config.dump_resource(&config.resources[0], "node1"), expected);
    assert_eq!(config.dump("node1"), format!("{expected}\n"));
    assert!(config.dump("node9").starts_with("# resource r0 on node9: ignored, not stacked\n"));
}

#[test]
fn the_dump_parses_back_to_an_equal_config() {
    let rich = format!(
        "global {{ nbd-listen 127.0.0.1:10809; usage-count no; }} common {{ protocol A; disk {{ al-extents 67; }} }} {}",
        "require-drbd-module-version-ge 9.0.16; resource x { net { timeout 20; data-integrity-alg \"a b\\\\\\\"c\"; max-buffers 4K; }\n\
           options { cpu-mask \"{;#\"; } startup { wfc-timeout 30; } disk { resync-rate 10M; }\n\
           on a1 a2 { node-id 7; address [fe80::1]:1; device /dev/x\\y minor 3; disk \"/dev/ü;\"; meta-disk /dev/m; }\n\
           on b { address [fe80::2]:2; volume 0 { device minor 4; disk /d; meta-disk internal; disk { c-max-rate 0; disk-flushes no; } } } }"
    );
    for text in [EXAMPLE, rich.as_str()] {
        let config = parse(text);
        let dumped = config.dump("node1");
        let again = parse(&dumped);
        assert_eq!(again, config, "{dumped}");
        assert_eq!(again.warnings.len(), config.warnings.len(), "{dumped}");
    }
}

#[test]
fn the_nodes_name_is_never_empty() {
    assert!(!node_name().is_empty());
}
