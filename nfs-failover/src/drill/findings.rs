//! What a drill has found, as a table.

use serde::Serialize;

/// What became of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Row {
    /// Which part.
    pub(super) part: &'static str,
    /// How long it took whoever moved it, noticed it or made it good again.
    pub(super) took_ms: Option<u64>,
    /// The longest time in which nobody answered a client's calls.
    pub(super) outage_ms: u64,
    /// The longest that a client's write took.
    pub(super) write_ms: Option<u64>,
    /// Writes that were acknowledged by the end of it.
    pub(super) acknowledged: Option<u64>,
}

/// What became of all of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Findings {
    pub(super) service: String,
    pub(super) rows: Vec<Row>,
    pub(super) acknowledged: Option<u64>,
    /// Of these.
    pub(super) lost: Option<u64>,
    /// Why nothing was written, or not read back.
    pub(super) unmeasured: Option<String>,
    /// What was not expected; nothing more was done then.
    pub(super) stopped: Option<String>,
    /// What is left behind, where it was stopped.
    pub(super) left: Vec<String>,
}

impl Findings {
    /// Whether it is known that nothing is lost, and nothing else was found that was not expected.
    pub(crate) fn are_good(&self) -> bool {
        self.lost == Some(0) && self.stopped.is_none()
    }

    /// As a table.
    pub(crate) fn text(&self) -> String {
        let shown = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
        let mut text = format!(
            "{:<20} {:>10} {:>18} {:>18} {:>13}\n",
            self.service, "took, ms", "no answer for, ms", "slowest write, ms", "acknowledged"
        );
        for row in &self.rows {
            text += &format!(
                "{:<20} {:>10} {:>18} {:>18} {:>13}\n",
                row.part,
                shown(row.took_ms),
                row.outage_ms,
                shown(row.write_ms),
                shown(row.acknowledged)
            );
        }
        if let Some(why) = &self.stopped {
            text += &format!("STOPPED: {why}\n");
        }
        self.left.iter().for_each(|left| text += &format!("  {left}\n"));
        text + &match (&self.unmeasured, self.acknowledged, self.lost) {
            (Some(why), ..) => format!("whether anything is lost was not measured: {why}\n"),
            (None, acknowledged, lost) => {
                format!("of {} acknowledged writes {} are lost\n", shown(acknowledged), shown(lost))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(lost: Option<u64>, unmeasured: Option<&str>) -> Findings {
        let row = Row {
            part: "planned move there",
            took_ms: Some(310),
            outage_ms: 280,
            write_ms: Some(301),
            acknowledged: Some(99),
        };
        Findings {
            service: "nfs".into(),
            rows: vec![row],
            acknowledged: lost.map(|_| 120),
            lost,
            unmeasured: unmeasured.map(str::to_owned),
            stopped: None,
            left: Vec::new(),
        }
    }

    #[test]
    fn the_table_says_what_is_lost_or_that_nobody_knows() {
        let good = findings(Some(0), None);
        assert!(good.are_good() && good.text().ends_with("of 120 acknowledged writes 0 are lost\n"));
        assert!(
            good.text().contains(
                "planned move there          310                280                301            99"
            )
        );
        assert!(!findings(Some(1), None).are_good());
        let unknown = findings(None, Some("/srv/nfs/data over NFSv3: no"));
        assert!(
            !unknown.are_good() && unknown.text().contains("was not measured: /srv/nfs/data over NFSv3: no")
        );
    }

    #[test]
    fn a_surprise_is_said_with_what_is_left() {
        let stopped = Findings {
            stopped: Some("link cut: nobody serves".into()),
            left: vec!["r0 Primary UpToDate".into()],
            ..findings(Some(0), None)
        };
        assert!(!stopped.are_good());
        assert!(stopped.text().contains("STOPPED: link cut: nobody serves\n  r0 Primary UpToDate\n"));
    }
}
