//! Tells NFSv3 clients that the server has restarted, so that they take their locks again.

use std::sync::Arc;

use super::{Scene, server};
use crate::config::Server;
use crate::plan::{Step, Trouble, Turn};

/// The step, if the server has such locks: the kernel's.
pub(super) fn notify(scene: Arc<Scene>) -> Option<Arc<dyn Step>> {
    (scene.service.server == Server::Kernel).then(|| Arc::new(Notify(scene)) as Arc<dyn Step>)
}

struct Notify(Arc<Scene>);

impl Step for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn intention(&self) -> String {
        "tell NFSv3 clients to take their locks again: sm-notify".into()
    }

    fn optional(&self) -> bool {
        true
    }

    fn act(&self, _turn: &Turn) -> Result<String, Trouble> {
        let state = self.0.service.state.join("statd").to_string_lossy().into_owned();
        let Some(vip) = self.0.service.vips.first() else { return Ok("nobody".into()) };
        // It goes on trying for minutes by itself.
        let address = vip.address.to_string();
        server::start_helper(&self.0, "sm-notify", "sm-notify", &["-d", "-f", "-v", &address, "-P", &state])?;
        Ok("begun".into())
    }
}
