//! Who has the devices open, as last searched for.

use std::collections::BTreeMap;

use tandem_control::ResourceStatus;

/// Of each resource, by volume.
#[derive(Default)]
pub(crate) struct Openers(pub(crate) BTreeMap<String, Vec<Vec<String>>>);

impl Openers {
    /// They are not among the clients that the engine knows.
    pub(crate) fn add_to(&self, statuses: &mut [ResourceStatus]) {
        for status in statuses {
            let of_resource = self.0.get(&status.spec.name).into_iter().flatten();
            for (volume, openers) in of_resource.enumerate() {
                if let Some(volume) = status.engine.volumes.get_mut(volume) {
                    volume.openers.extend_from_slice(openers);
                }
                status.engine.openers.extend_from_slice(openers);
            }
        }
    }
}
