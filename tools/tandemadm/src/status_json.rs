//! `status --json` with drbdsetup's keys. Sizes are in KiB.

use tandem_control::ResourceStatus;

use crate::view::ResourceView;

/// All resources, with a newline at the end.
pub fn resources(all: &[ResourceStatus]) -> String {
    let views: Vec<ResourceView> = all.iter().map(ResourceView::new).collect();
    match serde_json::to_string_pretty(&views) {
        Ok(text) if !views.is_empty() => format!("{text}\n"),
        // Numbers, words and lists can always be written.
        _ => "[\n]\n".to_owned(),
    }
}

#[cfg(test)]
mod tests;
