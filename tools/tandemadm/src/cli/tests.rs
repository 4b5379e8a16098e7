//! What drbdadm's users type is understood.

use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn drbdadm_spellings_are_understood() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
    let r0 = || Names { names: vec!["r0".into()] };
    let forced = Command::Primary { names: r0(), force: true };
    assert_eq!(parse("tandemadm primary --force r0").unwrap(), forced);
    assert_eq!(parse("tandemadm primary r0 --overwrite-data-of-peer").unwrap(), forced);
    assert_eq!(parse("tandemadm -c /x up r0").unwrap(), Command::Up(r0()));
    let limits = WaitLimits { wfc_timeout: Some(7), ..WaitLimits::default() };
    let wait = Command::WaitConnect(WaitOptions { names: r0(), limits });
    assert_eq!(parse("tandemadm wait-connect -t 7 r0").unwrap(), wait);
    assert_eq!(parse("tandemadm wait-connect --wfc-timeout=7 r0").unwrap(), wait);
    let limits = WaitLimits { wait_after_sb: Some(YesNo::Yes), ..WaitLimits::default() };
    assert_eq!(parse("tandemadm wait-con-int --wait-after-sb").unwrap(), Command::WaitConInt(limits));
    assert_eq!(parse("tandemadm wait-con-int --wait-after-sb=yes").unwrap(), Command::WaitConInt(limits));
}

#[test]
fn positions_count_sectors_unless_they_say_otherwise() {
    let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).map(|cli| cli.command) {
        Ok(Command::Verify(verify)) => Some((verify.start, verify.stop)),
        _ => None,
    };
    assert_eq!(parse("tandemadm verify r0"), Some((None, None)));
    assert_eq!(parse("tandemadm verify --start=8 --stop 4M r0"), Some((Some(4096), Some(4 << 20))));
    assert_eq!(parse("tandemadm verify --start=8x r0"), None);
    assert_eq!(parse("tandemadm verify --start=99999999999G r0"), None);
    assert_eq!(parse("tandemadm verify --from bravo r0"), None);
}

#[test]
fn a_resource_is_required_where_drbdadm_requires_one() {
    for line in ["up", "primary", "role", "create-md", "wait-sync"] {
        assert!(Cli::try_parse_from(["tandemadm", line]).is_err(), "{line}");
    }
    for line in ["status", "dump", "sh-resources"] {
        assert!(Cli::try_parse_from(["tandemadm", line]).is_ok(), "{line}");
    }
}
