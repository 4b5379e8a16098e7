//! What a resource that is up has been told, in the configuration's words: for a diff with the file, and to change single
//! options with all the checks that a file gets.

use std::fmt::Write;
use std::path::Path;

use tandem_config::{Diagnostic, OPTIONS, OptionDef, Section, Value};
use tandem_control::{HandlersSpec, NodeSpec, ResourceSpec, VolumeSpec};
use tandem_core::config::{
    CongestionOptions, Fencing, OnCongestion, OnIoError, OnNoData, OnNoQuorum, RrConflict, Votes,
    WriteOrdering,
};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::handler::Handler;
use tandem_core::split_brain::{NoPrimary, OnePrimary, TwoPrimaries};
use tandem_core::units::NodeId;

use crate::config::Config;
use crate::failure::Failure;

/// One option as the configuration would have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Where it stands.
    pub section: Section,
    /// Its keyword.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// What the table says of it.
    pub fn definition(&self) -> Option<&'static OptionDef> {
        OPTIONS.iter().find(|option| option.name == self.name && option.sections.contains(&self.section))
    }

    /// How much of a volume's disk is used.
    pub fn size(volume: &VolumeSpec) -> Setting {
        let value = (volume.size_bytes.unwrap_or(0) / 512).to_string();
        Setting { section: Section::Disk, name: "size", value }
    }

    /// It is nobody's to see.
    pub fn is_secret(&self) -> bool {
        self.name == SHARED_SECRET
    }

    /// The value as a text for people may have it.
    pub fn shown(&self) -> &str {
        match (self.is_secret(), self.is_default()) {
            (true, true) => "none",
            (true, false) => "(not shown)",
            (false, _) => &self.value,
        }
    }

    /// It has the value that it has where nothing is said.
    pub fn is_default(&self) -> bool {
        if self.is_secret() {
            return self.value.is_empty();
        }
        let default = self.definition().and_then(|option| option.kind.default_value());
        default.map_or("none".to_owned(), |value| value.to_string()) == self.value
    }

    /// The section that it stands in in a file.
    pub fn place(&self) -> &'static str {
        match self.section {
            Section::PeerDevice => Section::Disk.keyword(),
            other => other.keyword(),
        }
    }
}

const SHARED_SECRET: &str = "shared-secret";

/// Every option that has a value of its own here, in drbdsetup's order.
pub fn of(spec: &ResourceSpec) -> Vec<Setting> {
    let o = &spec.options;
    let (split, resync, congestion) = (&o.after_split_brain, &o.resync, &o.congestion);
    let tenths = |ms: u64| (ms / 100).to_string();
    let sectors = |bytes: u64| (bytes / 512).to_string();
    let kib = |bytes: u64| (bytes / 1024).to_string();
    let authentication = o.authentication.as_ref();
    let net = [
        ("protocol", o.protocol.letter().to_string()),
        ("timeout", tenths(o.timeout_ms)),
        ("max-epoch-size", o.max_epoch_size.to_string()),
        ("connect-int", (spec.connect_interval_ms / 1000).to_string()),
        ("ping-int", (o.ping_interval_ms / 1000).to_string()),
        ("sndbuf-size", send_buffer(congestion.send_buffer_bytes)),
        ("ko-count", o.ko_count.to_string()),
        ("cram-hmac-alg", authentication.map_or("none", |a| a.algorithm.name()).into()),
        (SHARED_SECRET, authentication.map_or("", |a| a.secret.reveal()).into()),
        ("after-sb-0pri", no_primary(spec, split.no_primary)),
        ("after-sb-1pri", one_primary(split.one_primary).into()),
        ("after-sb-2pri", two_primaries(split.two_primaries).into()),
        ("always-asbp", yes_no(split.always)),
        ("rr-conflict", rr_conflict(o.rr_conflict).into()),
        ("ping-timeout", tenths(o.ping_timeout_ms)),
        ("on-congestion", on_congestion(congestion.policy).into()),
        ("congestion-fill", sectors(congestion.fill_bytes)),
        ("congestion-extents", congestion.extents.to_string()),
        ("csums-alg", digest(resync.csums_algorithm)),
        ("csums-after-crash-only", yes_no(resync.csums_after_crash_only)),
        ("verify-alg", digest(o.verify_algorithm)),
        ("fencing", fencing(o.fencing).into()),
    ];
    let disk = [
        ("on-io-error", on_io_error(o.on_io_error).into()),
        ("disk-flushes", yes_no(o.write_ordering == WriteOrdering::Flush)),
        ("disk-drain", yes_no(o.write_ordering != WriteOrdering::None)),
        ("al-extents", o.al_extents.to_string()),
        ("al-updates", yes_no(o.al_updates)),
        ("disk-timeout", tenths(o.disk_timeout_ms)),
    ];
    let peer_device = [
        ("resync-rate", kib(resync.fixed_bytes_per_s)),
        ("c-plan-ahead", tenths(resync.plan_ahead_ms)),
        ("c-delay-target", tenths(resync.delay_target_ms)),
        ("c-fill-target", sectors(resync.fill_target_bytes)),
        ("c-max-rate", kib(resync.max_bytes_per_s)),
        ("c-min-rate", kib(resync.min_bytes_per_s)),
    ];
    let resource = [
        ("on-no-data-accessible", on_no_data(o.on_no_data).into()),
        ("quorum", votes(o.quorum.votes)),
        ("on-no-quorum", on_no_quorum(o.quorum.on_loss).into()),
        ("quorum-minimum-redundancy", votes(o.quorum.minimum_redundancy)),
        ("handler-timeout", (spec.handlers.limit_ms / 1000).to_string()),
    ];
    let in_section = |section| move |(name, value)| Setting { section, name, value };
    let net = net.into_iter().map(in_section(Section::Net));
    let disk = disk.into_iter().map(in_section(Section::Disk));
    let peer_device = peer_device.into_iter().map(in_section(Section::PeerDevice));
    let resource = resource.into_iter().map(in_section(Section::Options));
    net.chain(disk).chain(peer_device).chain(resource).collect()
}

/// What a volume's `disk` section says, in drbdsetup's order.
pub fn of_disk(spec: &ResourceSpec, volume: &VolumeSpec) -> Vec<Setting> {
    let mut disk = vec![Setting::size(volume)];
    disk.extend(of(spec).into_iter().filter(|setting| setting.section == Section::Disk));
    let after = spec.resync_after.iter().map(|resource| Setting {
        section: Section::Disk,
        name: "resync-after",
        value: resource.clone(),
    });
    let at = disk.iter().position(|setting| setting.name == "al-extents").unwrap_or(disk.len());
    disk.splice(at..at, after);
    disk
}

/// What the resource would be told if these settings were its configuration, and what is to be said about them. Wrong words and
/// numbers, and policies that exclude each other, are refused as in a file.
pub fn applied(
    spec: &ResourceSpec,
    settings: &[Setting],
) -> Result<(ResourceSpec, Vec<Diagnostic>), Failure> {
    let mut text = String::new();
    let said = |setting: &&Setting| !setting.is_secret() || !setting.is_default();
    for setting @ Setting { section: _, name, value } in settings.iter().filter(said) {
        if setting.is_secret() {
            // Any text may be one.
            let _ = writeln!(text, "  net {{ {name} {}; }}", Value::Text(value.clone()));
            continue;
        }
        // What is one word to the configuration stays one.
        if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) {
            return Err(Failure::Config(format!("{name}: '{value}' is no value"), 1));
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {} {{ {name} {value}; }}", setting.place());
    }
    if spec.handlers.commands.contains_key(&Handler::FencePeer) {
        let _ = writeln!(text, "  handlers {{ fence-peer \"/bin/true\"; }}");
    }
    let nodes: Vec<&NodeSpec> = [&spec.node].into_iter().chain(&spec.peers).collect();
    let (made, warnings) = parsed(&spec.name, &nodes, &text)?;
    let applied = ResourceSpec {
        options: made.options,
        connect_interval_ms: made.connect_interval_ms,
        handlers: HandlersSpec { limit_ms: made.handlers.limit_ms, ..spec.handlers.clone() },
        ..spec.clone()
    };
    Ok((applied, warnings))
}

/// A resource of which nothing is said but its name and this node's number.
pub fn unsaid(name: &str, id: NodeId) -> Result<ResourceSpec, Failure> {
    let node = NodeSpec { id, name: tandem_config::node_name() };
    let peer = somebody(&node, None);
    let (mut spec, _) = parsed(name, &[&node, &peer], "")?;
    spec.peers.clear();
    spec.paths.clear();
    spec.set_volumes(Vec::new());
    spec.handlers.config_file = tandem_config::DEFAULT_PATH.into();
    Ok(spec)
}

/// A configuration with these statements and nodes, the first of which is this one.
fn parsed(
    name: &str,
    nodes: &[&NodeSpec],
    statements: &str,
) -> Result<(ResourceSpec, Vec<Diagnostic>), Failure> {
    let quoted = |text: &str| Value::Text(text.to_owned()).to_string();
    let mut text = format!("resource {} {{\n{statements}", quoted(name));
    for NodeSpec { id, name } in nodes {
        // Nobody will be reached there.
        let address = format!("192.0.2.{}:7788", id.0 + 1);
        let _ = writeln!(
            text,
            "  on {} {{ node-id {id}; device minor 0; disk /dev/null; meta-disk internal; address {address}; }}",
            quoted(name)
        );
    }
    text.push_str("}\n");
    let here = nodes.first().map_or("", |node| node.name.as_str());
    let config = Config::parse(Path::new("(command line)"), &text, here)?;
    let made = config.specs(&[name.to_owned()])?.into_iter().next();
    Ok((made.ok_or_else(|| Failure::NotDefined(name.to_owned(), String::new()))?, config.into_warnings()))
}

/// A resource that is up, with its peers even if they were taken from it: options name them. The configuration knows who they were,
/// if there is one.
pub fn with_peers(running: &ResourceSpec, configured: &ResourceSpec) -> ResourceSpec {
    let peers = match (running.peers.as_slice(), configured.peers.as_slice()) {
        ([], []) => vec![somebody(&running.node, named_node(running))],
        ([], known) | (known, _) => known.to_vec(),
    };
    ResourceSpec { peers, ..running.clone() }
}

fn named_node(spec: &ResourceSpec) -> Option<NodeId> {
    match spec.options.after_split_brain.no_primary {
        NoPrimary::DiscardNode(id) => Some(id),
        _ => None,
    }
}

/// The peer that an option names, whoever that was.
fn somebody(node: &NodeSpec, named: Option<NodeId>) -> NodeSpec {
    let id = named.filter(|id| *id != node.id).unwrap_or(NodeId(u8::from(node.id == NodeId(0))));
    NodeSpec { id, name: format!("node-{id}") }
}

fn send_buffer(bytes: u64) -> String {
    let chosen = Some(bytes).filter(|bytes| *bytes != CongestionOptions::default().send_buffer_bytes);
    chosen.unwrap_or(0).to_string()
}

fn yes_no(flag: bool) -> String {
    if flag { "yes".into() } else { "no".into() }
}

fn digest(algorithm: Option<DigestAlgorithm>) -> String {
    algorithm.map_or("none", DigestAlgorithm::name).to_owned()
}

fn fencing(fencing: Fencing) -> &'static str {
    match fencing {
        Fencing::DontCare => "dont-care",
        Fencing::ResourceOnly => "resource-only",
        Fencing::ResourceAndStonith => "resource-and-stonith",
    }
}

fn no_primary(spec: &ResourceSpec, policy: NoPrimary) -> String {
    match policy {
        NoPrimary::Disconnect => "disconnect".into(),
        NoPrimary::DiscardYoungerPrimary => "discard-younger-primary".into(),
        NoPrimary::DiscardOlderPrimary => "discard-older-primary".into(),
        NoPrimary::DiscardZeroChanges => "discard-zero-changes".into(),
        NoPrimary::DiscardLeastChanges => "discard-least-changes".into(),
        NoPrimary::DiscardNode(id) => {
            let mut nodes = [&spec.node].into_iter().chain(&spec.peers);
            let name = nodes.find(|node| node.id == id).map_or("?", |node| node.name.as_str());
            format!("discard-node-{name}")
        }
    }
}

fn one_primary(policy: OnePrimary) -> &'static str {
    match policy {
        OnePrimary::Disconnect => "disconnect",
        OnePrimary::Consensus => "consensus",
        OnePrimary::DiscardSecondary => "discard-secondary",
        OnePrimary::CallPriLostAfterSb => "call-pri-lost-after-sb",
        OnePrimary::ViolentlyAs0p => "violently-as0p",
    }
}

fn two_primaries(policy: TwoPrimaries) -> &'static str {
    match policy {
        TwoPrimaries::Disconnect => "disconnect",
        TwoPrimaries::CallPriLostAfterSb => "call-pri-lost-after-sb",
        TwoPrimaries::ViolentlyAs0p => "violently-as0p",
    }
}

fn rr_conflict(policy: RrConflict) -> &'static str {
    match policy {
        RrConflict::Disconnect => "disconnect",
        RrConflict::RetryConnect => "retry-connect",
        RrConflict::AutoDiscard => "auto-discard",
        RrConflict::Violently => "violently",
        RrConflict::CallPriLost => "call-pri-lost",
    }
}

fn votes(votes: Votes) -> String {
    match votes {
        Votes::Off => "off".into(),
        Votes::Majority => "majority".into(),
        Votes::All => "all".into(),
        Votes::Count(count) => count.to_string(),
    }
}

fn on_no_quorum(policy: OnNoQuorum) -> &'static str {
    match policy {
        OnNoQuorum::SuspendIo => "suspend-io",
        OnNoQuorum::IoError => "io-error",
    }
}

fn on_no_data(policy: OnNoData) -> &'static str {
    match policy {
        OnNoData::IoError => "io-error",
        OnNoData::SuspendIo => "suspend-io",
    }
}

fn on_congestion(policy: OnCongestion) -> &'static str {
    match policy {
        OnCongestion::Block => "block",
        OnCongestion::PullAhead => "pull-ahead",
        OnCongestion::Disconnect => "disconnect",
    }
}

fn on_io_error(policy: OnIoError) -> &'static str {
    match policy {
        OnIoError::Detach => "detach",
        OnIoError::CallLocalIoError => "call-local-io-error",
        OnIoError::PassOn => "pass_on",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tandem_config::Support;
    use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
    use tandem_core::config::{Options, Protocol, Takes};

    use super::*;
    use crate::fixture;

    /// A resource without any option that has its default.
    fn everything_changed() -> ResourceSpec {
        let mut spec = fixture::spec();
        let o = &mut spec.options;
        o.protocol = Protocol::A;
        o.after_split_brain.no_primary = NoPrimary::DiscardNode(NodeId(1));
        o.after_split_brain.one_primary = OnePrimary::ViolentlyAs0p;
        o.after_split_brain.two_primaries = TwoPrimaries::CallPriLostAfterSb;
        o.after_split_brain.always = true;
        o.rr_conflict = RrConflict::RetryConnect;
        o.write_ordering = WriteOrdering::None;
        (o.timeout_ms, o.ping_interval_ms, o.ping_timeout_ms, o.ko_count) = (4200, 7000, 900, 3);
        (o.max_epoch_size, o.fencing) = (99, Fencing::ResourceOnly);
        let secret = Secret::new("a \"secret\"; of { several } words \\");
        o.authentication = Some(Authentication { algorithm: HmacAlgorithm::Sha512, secret });
        o.verify_algorithm = Some(DigestAlgorithm::Sha1);
        o.resync.csums_algorithm = Some(DigestAlgorithm::Sha256);
        o.resync.csums_after_crash_only = true;
        (o.resync.fixed_bytes_per_s, o.resync.plan_ahead_ms) = (1 << 20, 500);
        (o.resync.delay_target_ms, o.resync.fill_target_bytes) = (300, 1 << 20);
        (o.resync.max_bytes_per_s, o.resync.min_bytes_per_s) = (8 << 20, 2 << 20);
        (o.al_extents, o.al_updates) = (67, false);
        o.congestion.policy = OnCongestion::PullAhead;
        (o.congestion.fill_bytes, o.congestion.extents, o.congestion.send_buffer_bytes) =
            (1 << 20, 99, 4 << 20);
        (o.quorum.votes, o.quorum.minimum_redundancy) = (Votes::Majority, Votes::Count(1));
        o.quorum.on_loss = OnNoQuorum::IoError;
        o.on_no_data = OnNoData::SuspendIo;
        (o.on_io_error, o.disk_timeout_ms) = (OnIoError::PassOn, 1500);
        (spec.connect_interval_ms, spec.handlers.limit_ms) = (20_000, 7000);
        spec.handlers.commands.insert(Handler::FencePeer, "/bin/fence".into());
        spec
    }

    fn defined(name: &str) -> &'static OptionDef {
        OPTIONS.iter().find(|option| option.name == name).unwrap()
    }

    #[test]
    fn every_option_is_read_back_as_it_was() {
        for spec in [fixture::spec(), everything_changed()] {
            assert_eq!(applied(&spec, &of(&spec)).unwrap().0, spec);
        }
    }

    /// A policy that names a peer is still one when the peer was taken away.
    #[test]
    fn options_of_a_resource_without_its_peer_can_be_said() {
        let configured = everything_changed();
        let running = ResourceSpec { peers: Vec::new(), ..configured.clone() };
        let whole = with_peers(&running, &configured);
        assert_eq!(applied(&whole, &of(&whole)).unwrap().0, configured);
        let whole = with_peers(&running, &running);
        assert_eq!(applied(&whole, &of(&whole)).unwrap().0.options, configured.options);
    }

    #[test]
    fn every_option_that_the_engine_knows_has_its_name_here_and_changes_when_the_table_says() {
        let changes = Options::default().changes(&everything_changed().options);
        let names: Vec<_> = of(&fixture::spec()).into_iter().map(|setting| setting.name).collect();
        assert_eq!(changes.len() + 2, names.len(), "the driver's are besides: {changes:?}");
        for (name, takes) in changes {
            assert!(names.contains(&name), "{name}");
            assert_eq!(format!("{takes:?}"), format!("{:?}", defined(name).takes), "{name}");
        }
    }

    #[test]
    fn defaults_are_known_as_such() {
        let mut spec = fixture::spec();
        spec.handlers.limit_ms = 120_000;
        assert_eq!(of(&spec).into_iter().find(|setting| !setting.is_default()), None);
        assert_eq!(of(&everything_changed()).into_iter().find(Setting::is_default), None);
    }

    /// What differs besides the options of the engine is called as in the configuration, too.
    #[test]
    fn what_the_daemon_keeps_changes_when_the_table_says() {
        let old = fixture::spec();
        let mut new = everything_changed();
        (new.undo_log, new.resync_after) = (Some("/undo".into()), Some("r1".into()));
        new.nbd_listen = Some(new.paths[0].local);
        (new.block_device.away_limit_ms, new.volume.size_bytes) = (1000, Some(1 << 20));
        let mut compared = 0;
        for difference in old.differences(&new) {
            let name = difference.what.rsplit(' ').next().unwrap();
            let Some(option) = OPTIONS.iter().find(|option| option.name == name) else { continue };
            let takes: Takes = difference.takes;
            assert_eq!(format!("{takes:?}"), format!("{:?}", option.takes), "{}", difference.what);
            compared += 1;
        }
        assert_eq!(compared, 8);
    }

    #[test]
    fn what_a_file_may_not_say_the_command_line_may_not() {
        let spec = fixture::spec();
        let with = |name: &str, value: &str| {
            let mut settings = of(&spec);
            let changed = settings.iter_mut().find(|setting| setting.name == name).unwrap();
            changed.value = value.into();
            applied(&spec, &settings).unwrap_err().to_string()
        };
        assert!(with("ping-int", "0").contains("a number from 1 to 120"));
        assert!(with("protocol", "D").contains("`A`"));
        assert!(with("on-congestion", "pull-ahead").contains("pull-ahead"));
        assert!(with("ping-int", "1; } net { ko-count 3").contains("is no value"));
    }

    #[test]
    fn every_option_that_does_something_is_a_setting_or_stands_elsewhere() {
        let names: Vec<_> = of(&fixture::spec()).into_iter().map(|setting| setting.name).collect();
        let elsewhere = ["resync-after", "resync-undo", "size"];
        for option in OPTIONS.iter().filter(|option| option.support == Support::Supported) {
            let in_resource =
                [Section::Net, Section::Disk, Section::PeerDevice, Section::Options].contains(&option.home());
            let known = names.contains(&option.name) || elsewhere.contains(&option.name);
            assert!(!in_resource || known, "{}", option.name);
        }
    }
}
