//! Medians and ratios.

use std::fmt;

use crate::fio::{Unit, Workload};
use crate::servers::Kind;

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    unit: Unit,
    values: Vec<(Kind, f64)>,
}

impl Table {
    /// Notes one measurement.
    pub(crate) fn add(&mut self, workload: &Workload, kind: Kind, value: f64) {
        let row = match self.rows.iter_mut().position(|row| row.name == workload.name) {
            Some(index) => &mut self.rows[index],
            None => {
                self.rows.push(Row { name: workload.name, unit: workload.unit, values: Vec::new() });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        row.values.push((kind, value));
    }
}

impl Row {
    fn median(&self, kind: Kind) -> f64 {
        crate::median(self.values.iter().filter(|(k, _)| *k == kind).map(|(_, v)| *v).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} {:<6}", "", "")?;
        for kind in Kind::ALL {
            write!(f, " {kind:>9}")?;
        }
        writeln!(f, " {:>12} {:>12}", "tandem/best", "C/tandem")?;
        for row in &self.rows {
            let (unit, digits) = match row.unit {
                Unit::Kiops => ("kIOPS", 1),
                Unit::MibPerSecond => ("MiB/s", 0),
            };
            write!(f, "{:<22} {unit:<6}", row.name)?;
            for kind in Kind::ALL {
                write!(f, " {:>9.digits$}", row.median(kind))?;
            }
            let best = row.median(Kind::Nbdkit).max(row.median(Kind::QemuNbd));
            let (alone, pair) = (row.median(Kind::Tandem), row.median(Kind::TandemPair));
            writeln!(f, " {:>12.2} {:>12.2}", alone / best, pair / alone)?;
        }
        Ok(())
    }
}
