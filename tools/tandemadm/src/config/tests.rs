//! What the configuration makes of a resource, and what it refuses.

use std::collections::BTreeSet;

use super::*;

const TEXT: &str = r#"
    global { nbd-listen 127.0.0.1:10809; device-driver fuse; device-timeout 30; }
    common { net { protocol B; timeout 50; verify-alg sha1; cram-hmac-alg sha1-generic; shared-secret "Raspberry Jam"; } }
    resource r0 {
        net { ping-int 20; connect-int 30; ping-timeout 7; ko-count 3; max-epoch-size 99; fencing resource-and-stonith;
            sndbuf-size 1M; congestion-fill 64; congestion-extents 99; on-congestion disconnect; }
        net { after-sb-0pri discard-node-bravo; after-sb-1pri consensus; rr-conflict call-pri-lost; }
        net { csums-alg sha256; csums-after-crash-only; }
        disk { disk-flushes no; al-extents 6433; al-updates no; on-io-error call-local-io-error; disk-timeout 30;
             c-max-rate 100M; c-fill-target 1M; c-min-rate 0; }
        options { handler-timeout 30; quorum majority; quorum-minimum-redundancy 1; on-no-quorum io-error;
            on-no-data-accessible suspend-io; }
        handlers { fence-peer "/sbin/fence --hard"; }
        device /dev/drbd5 minor 5;
        meta-disk internal;
        on alpha { node-id 4; disk /dev/sda1; address 10.0.0.1:7788; }
        on bravo { node-id 2; disk /dev/sdb1; meta-disk /dev/sdc; address 10.0.0.2:7789; }
    }
    resource elsewhere {
        device minor 6; disk /dev/sdd; meta-disk internal;
        on charlie { address 10.0.0.3:7788; }
        on bravo { address 10.0.0.2:7788; }
    }"#;

fn config(node: &str) -> Config {
    let config = tandem_config::Config::parse(Path::new("test"), TEXT).unwrap();
    Config { config, file: "/etc/tandem.conf".into(), node: node.into() }
}

#[test]
fn a_resource_is_translated_for_each_of_its_nodes() {
    let specs = config("alpha").specs(&["all".into()]).unwrap();
    let [spec] = specs.as_slice() else { panic!("{specs:?}") };
    let expected = ResourceSpec {
        name: "r0".into(),
        node: NodeSpec { id: NodeId(4), name: "alpha".into() },
        peers: vec![NodeSpec { id: NodeId(2), name: "bravo".into() }],
        paths: vec![PathSpec {
            peer: NodeId(2),
            local: "10.0.0.1:7788".parse().unwrap(),
            remote: "10.0.0.2:7789".parse().unwrap(),
        }],
        volume: VolumeSpec {
            number: 0,
            minor: 5,
            device: "/dev/drbd5".into(),
            disk: "/dev/sda1".into(),
            meta_disk: None,
            size_bytes: None,
        },
        more_volumes: Vec::new(),
        undo_log: None,
        options: Options {
            protocol: config::Protocol::B,
            write_ordering: WriteOrdering::Drain,
            timeout_ms: 5000,
            ping_interval_ms: 20_000,
            ping_timeout_ms: 700,
            ko_count: 3,
            max_epoch_size: 99,
            after_split_brain: AfterSplitBrain {
                no_primary: NoPrimary::DiscardNode(NodeId(2)),
                one_primary: OnePrimary::Consensus,
                ..AfterSplitBrain::default()
            },
            rr_conflict: RrConflict::CallPriLost,
            al_extents: 6433,
            al_updates: false,
            congestion: CongestionOptions {
                policy: config::OnCongestion::Disconnect,
                fill_bytes: 32 << 10,
                extents: 99,
                send_buffer_bytes: 1 << 20,
            },
            fencing: config::Fencing::ResourceAndStonith,
            quorum: config::Quorum {
                votes: config::Votes::Majority,
                minimum_redundancy: config::Votes::Count(1),
                on_loss: config::OnNoQuorum::IoError,
            },
            on_no_data: OnNoData::SuspendIo,
            on_io_error: OnIoError::CallLocalIoError,
            disk_timeout_ms: 3000,
            authentication: Some(Authentication {
                algorithm: HmacAlgorithm::Sha1,
                secret: Secret::new("Raspberry Jam"),
            }),
            verify_algorithm: Some(DigestAlgorithm::Sha1),
            resync: ResyncOptions {
                max_bytes_per_s: 100 << 20,
                fill_target_bytes: 1 << 20,
                min_bytes_per_s: 0,
                csums_algorithm: Some(DigestAlgorithm::Sha256),
                csums_after_crash_only: true,
                ..ResyncOptions::default()
            },
        },
        handlers: HandlersSpec {
            commands: [(Handler::FencePeer, "/sbin/fence --hard".into())].into(),
            limit_ms: 30_000,
            config_file: "/etc/tandem.conf".into(),
        },
        resync_after: None,
        connect_interval_ms: 30_000,
        nbd_listen: Some("127.0.0.1:10809".parse().unwrap()),
        block_device: BlockDeviceSpec { driver: DeviceDriver::Fuse, away_limit_ms: 30_000 },
    };
    assert_eq!(*spec, expected);

    let on_bravo = &config("bravo").specs(&["r0".into()]).unwrap()[0];
    assert_eq!(
        (on_bravo.node.clone(), &on_bravo.peers[..]),
        (expected.peers[0].clone(), &[expected.node][..])
    );
    assert_eq!(on_bravo.volume.meta_disk, Some(PathBuf::from("/dev/sdc")));
}

#[test]
fn what_this_version_cannot_run_is_dumped_and_not_handed_to_the_daemon() {
    let host = |name, id| format!("on {name} {{ node-id {id}; address 10.0.0.{id}:1; }} ");
    let hosts: String =
        ["alpha", "bravo", "carol"].into_iter().zip(1..).map(|(name, id)| host(name, id)).collect();
    let text = format!(
        "resource three {{ {hosts} connection-mesh {{ hosts alpha bravo carol; }}
         volume 0 {{ device minor 0; disk /dev/a; }} volume 1 {{ device minor 1; disk /dev/b; }} }}"
    );
    let config = tandem_config::Config::parse(Path::new("test"), &text).unwrap();
    let config = Config { config, file: "/etc/tandem.conf".into(), node: "alpha".into() };
    let dumped = config.dump(&[]).unwrap();
    assert!(dumped.contains("on carol {") && dumped.contains("volume 1 {"), "{dumped}");
    let error = config.specs(&["three".into()]).unwrap_err();
    assert_eq!(error.exit_code(), 10);
    assert!(error.to_string().contains("3 hosts; this version supports two nodes"), "{error}");
    // Beside others it is left out, and that is said.
    let all = ["all".to_owned()];
    assert!(config.specs(&all).unwrap().is_empty());
    assert_eq!(config.left_out(&all).iter().map(Failure::exit_code).collect::<Vec<_>>(), [10]);
    assert!(config.left_out(&["three".into()]).is_empty());
}

fn with_two_volumes(of_volume_1: &str) -> Config {
    let text = format!(
        "resource r0 {{ disk {{ al-extents 67; }}
           volume 4 {{ device minor 4; disk /dev/a; meta-disk /dev/m; }}
           volume 1 {{ device minor 1; disk /dev/b; disk {{ {of_volume_1} }} }}
           on alpha {{ address 10.0.0.1:1; }} on bravo {{ address 10.0.0.2:1; }} }}"
    );
    let config = tandem_config::Config::parse(Path::new("test"), &text).unwrap();
    Config { config, file: "/etc/tandem.conf".into(), node: "alpha".into() }
}

#[test]
fn volumes_come_in_the_order_of_their_numbers_each_with_its_size() {
    let config = with_two_volumes("size 1G;");
    let spec = &config.specs(&[]).unwrap()[0];
    let of = |volume: &VolumeSpec| (volume.number, volume.minor, volume.size_bytes);
    assert_eq!(spec.volumes().map(of).collect::<Vec<_>>(), [(1, 1, Some(1 << 30)), (4, 4, None)]);
    assert_eq!(spec.more_volumes[0].meta_disk, Some("/dev/m".into()));
    assert_eq!(spec.export_name(&spec.volume), "r0/1");
    // As in DRBD's example.
    let waits = with_two_volumes("resync-after r0/4;");
    assert_eq!(waits.specs(&[]).unwrap()[0].resync_after, None);
    let error = with_two_volumes("on-io-error pass_on;").specs(&["r0".into()]).unwrap_err();
    let said = "volume 4 has another `on-io-error` than volume 1: detach, the default and pass_on";
    assert!(error.to_string().contains(said) && error.to_string().contains("test:3:"), "{error}");
    let careful = &with_two_volumes("disk-flushes no; al-extents 99; al-updates no;").specs(&[]).unwrap()[0];
    assert_eq!(careful.options.write_ordering, WriteOrdering::Flush);
    assert_eq!((careful.options.al_extents, careful.options.al_updates), (99, true));
}

#[test]
fn a_volume_is_not_named_where_all_are_meant() {
    let config = with_two_volumes("");
    let error = config.specs(&["r0/4".into()]).unwrap_err();
    assert!(error.to_string().contains("acts on all of them; name 'r0'"), "{error}");
    let volume = |name: &str| config.specs_with_volume(&[name.into()]).unwrap()[0].1;
    assert_eq!((volume("r0/4"), volume("r0")), (Some(4), None));
    let single = self::config("alpha");
    assert_eq!(single.specs_with_volume(&["r0/0".into()]).unwrap()[0].1, None);
    assert_eq!(single.specs(&["r0/0".into()]).unwrap()[0].name, "r0");
    assert_eq!(single.specs(&["r0/1".into()]).unwrap_err().exit_code(), 1);
}

#[test]
fn an_address_that_is_not_there_is_named_unless_that_is_meant() {
    // TEST-NET-1: nobody has it.
    let text = TEXT.replace("address 10.0.0.1:7788", "address 192.0.2.1:7788");
    let warned = |text: &str, node: &str| {
        let config = tandem_config::Config::parse(Path::new("test"), text).unwrap();
        let config = Config { config, file: "/etc/tandem.conf".into(), node: node.into() };
        config.missing_addresses(&config.specs(&["r0".into()]).unwrap())
    };
    let warnings = warned(&text, "alpha");
    assert!(warnings[0].contains("in resource r0, on alpha: IP 192.0.2.1 not found"), "{warnings:?}");
    let quiet = text.replace("global {", "global { disable-ip-verification;");
    assert!(warned(&quiet, "alpha").is_empty());
    assert!(warned(&text.replace("10.0.0.2:7789", "127.0.0.1:7789"), "bravo").is_empty());
}

#[test]
fn a_resource_does_not_wait_for_itself() {
    let text = TEXT.replace(
        "device /dev/drbd5 minor 5;",
        "volume 0 { device minor 5; disk /dev/v0; meta-disk internal; disk { resync-after r0/0; } }",
    );
    let text = text.replace("disk /dev/sda1;", "").replace("disk /dev/sdb1; meta-disk /dev/sdc;", "");
    let config = tandem_config::Config::parse(Path::new("test"), &text).unwrap();
    let config = Config { config, file: "/etc/tandem.conf".into(), node: "alpha".into() };
    assert_eq!(config.specs(&["r0".into()]).unwrap()[0].resync_after, None);
}

#[test]
fn every_handler_of_the_engine_may_be_configured_and_no_other() {
    use tandem_config::{OPTIONS, Section, Support};
    let supported: Vec<&str> = OPTIONS
        .iter()
        .filter(|o| o.home() == Section::Handlers && o.support == Support::Supported)
        .map(|o| o.name)
        .collect();
    assert!(supported.iter().all(|name| Handler::from_name(name).is_some()), "{supported:?}");
    assert_eq!(supported.len(), Handler::ALL.len());
}

#[test]
fn resources_come_in_the_order_of_the_configuration_and_once() {
    let names = ["elsewhere", "r0", "elsewhere"].map(String::from);
    let found: Vec<String> = config("bravo").specs(&names).unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(found, ["r0", "elsewhere"]);
}

#[test]
fn another_nodes_resource_is_not_defined_here() {
    let error = config("alpha").specs(&["elsewhere".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "'elsewhere' not defined in your config (for this host).\nThis node has: r0."
    );
    assert_eq!(error.exit_code(), 1);
}

/// What the table lets pass the engine can do.
#[test]
fn the_table_and_the_engine_have_the_same_digests() {
    let accepted = |name: &str| {
        let option = tandem_config::OPTIONS.iter().find(|option| option.name == name).unwrap();
        let tandem_config::Support::Refused { accepted, .. } = option.support else {
            panic!("{name} takes any")
        };
        accepted.iter().copied().filter(|word| *word != "none").collect::<BTreeSet<_>>()
    };
    let digests: BTreeSet<_> = DigestAlgorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    assert_eq!((accepted("verify-alg"), accepted("csums-alg")), (digests.clone(), digests));
    let hmacs: BTreeSet<_> = HmacAlgorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    assert_eq!(accepted("cram-hmac-alg"), hmacs);
}
