//! What a setting costs: a row for each workload, a column for each setting, medians.

use std::fmt;

use crate::median;

/// Everything that was measured of one quantity.
pub(crate) struct Prices {
    what: &'static str,
    settings: Vec<&'static str>,
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

impl Prices {
    /// Nothing measured yet. The quantity, with its unit; the settings' names; the workloads' names.
    pub(crate) fn new(
        what: &'static str,
        settings: &[&'static str],
        workloads: impl IntoIterator<Item = String>,
    ) -> Prices {
        let rows = workloads.into_iter().map(|name| (name, vec![Vec::new(); settings.len()])).collect();
        Prices { what, settings: settings.to_vec(), rows }
    }

    /// Notes one measurement.
    pub(crate) fn add(&mut self, workload: usize, setting: usize, value: f64) {
        self.rows[workload].1[setting].push(value);
    }
}

impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30}", self.what)?;
        for name in &self.settings {
            write!(f, " {name:>10}")?;
        }
        writeln!(f)?;
        for (name, values) in &self.rows {
            write!(f, "{name:<30}")?;
            for values in values {
                write!(f, " {:>10.1}", median(values.clone()))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
