//! The counters that `--statistics` adds, as drbdsetup lists them for `status` and for events.

use crate::view::{ConnectionView, DeviceView, PeerDeviceView, ResourceView, SyncKind};

/// How much is to be listed: 0 the most important, 1 all, 2 how a resync's times came about besides.
pub(crate) type Level = u8;

pub(crate) fn resource(view: &ResourceView) -> Vec<String> {
    vec![format!("write-ordering:{}", view.write_ordering)]
}

pub(crate) fn device(view: &DeviceView, level: Level) -> Vec<String> {
    let (read, written) = (format!("read:{}", view.read), format!("written:{}", view.written));
    if level == 0 {
        return vec![read, written];
    }
    vec![
        format!("size:{}", view.size),
        read,
        written,
        format!("al-writes:{}", view.al_writes),
        format!("bm-writes:{}", view.bm_writes),
        format!("upper-pending:{}", view.upper_pending),
        format!("lower-pending:{}", view.lower_pending),
        format!("al-suspended:{}", yes_no(view.al_suspended)),
    ]
}

/// What a device that takes no requests now says even to who asks for no counters.
pub(crate) fn blocked(view: &DeviceView, level: Level) -> Option<String> {
    (view.blocked || level > 0).then(|| format!("blocked:{}", if view.blocked { "upper" } else { "no" }))
}

pub(crate) fn connection(view: &ConnectionView) -> Vec<String> {
    vec![
        format!("congested:{}", yes_no(view.congested)),
        format!("ap-in-flight:{}", view.ap_in_flight),
        format!("rs-in-flight:{}", view.rs_in_flight),
    ]
}

pub(crate) fn peer_device(view: &PeerDeviceView, level: Level) -> Vec<String> {
    let mut items = vec![format!("received:{}", view.received), format!("sent:{}", view.sent)];
    if level > 0 || view.out_of_sync > 0 {
        items.push(format!("out-of-sync:{}", view.out_of_sync));
    }
    if level == 0 {
        return items;
    }
    items.push(format!("pending:{}", view.pending));
    items.push(format!("unacked:{}", view.unacked));
    let Some(details) = &view.details else { return items };
    if level > 1 {
        items.extend([
            format!("rs-total:{}", details.rs_total),
            format!("rs-dt-start-ms:{}", details.rs_dt_start_ms),
            format!("rs-paused-ms:{}", details.rs_paused_ms),
            format!("rs-dt0-ms:{}", details.rs_dt0_ms),
            format!("rs-db0-sectors:{}", details.rs_db0_sectors),
            format!("rs-dt1-ms:{}", details.rs_dt1_ms),
            format!("rs-db1-sectors:{}", details.rs_db1_sectors),
        ]);
        items.extend(of_kind(details.kind));
        if details.want > 0.0 {
            items.push(format!("want:{:.2}", details.want));
        }
        items.push(format!("dbdt:{:.2}", details.dbdt));
        items.push(format!("dbdt0:{:.2}", details.dbdt0));
    }
    items.push(format!("dbdt1:{:.2}", details.dbdt1));
    items.push(format!("eta:{}", details.eta_s().map_or("nan".to_owned(), |seconds| seconds.to_string())));
    items
}

fn of_kind(kind: SyncKind) -> Vec<String> {
    match kind {
        SyncKind::Verify { ov_start_sector, ov_stop_sector, ov_position, ov_left, ov_skipped } => vec![
            format!("ov-start-sector:{ov_start_sector}"),
            format!("ov-stop-sector:{ov_stop_sector}"),
            format!("ov-position:{ov_position}"),
            format!("ov-left:{ov_left}"),
            format!("ov-skipped:{ov_skipped}"),
        ],
        SyncKind::Resync { rs_failed, rs_same_csum } => {
            vec![format!("rs-failed:{rs_failed}"), format!("rs-same-csum:{rs_same_csum}")]
        }
    }
}

pub(crate) const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
