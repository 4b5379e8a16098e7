//! Growing a volume while it is in use.

use clap::Args;
use tandem_control::{Action, ResourceSpec};
use tandem_core::io::Resize;

use super::follow::{Begun, Follow, Following};
use super::known::require_volume;
use crate::cli::{Names, position};
use crate::session::Session;

/// How large, and what is known of the disks.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct ResizeOptions {
    /// The resources, or their volumes.
    #[command(flatten)]
    pub names: Names,
    /// This large, instead of as large as both disks let it be: sectors, or with a suffix k, M, G or s.
    #[arg(long, value_name = "SIZE", value_parser = position)]
    pub size: Option<u64>,
    /// The peer is not there; its disk has grown too, and it learns of the new size when it comes.
    #[arg(long)]
    pub assume_peer_has_space: bool,
    /// What is new is the same on both disks, such as zeroes: nothing is sent.
    #[arg(long)]
    pub assume_clean: bool,
    /// Accepted as it is: the activity log lies in one piece.
    #[arg(long, value_name = "N", value_parser = ["1"])]
    pub al_stripes: Option<String>,
    /// Accepted as it is: the activity log takes 32 KiB.
    #[arg(long = "al-stripe-size-kB", value_name = "KIB", value_parser = ["32"])]
    pub al_stripe_size: Option<String>,
    /// Whether what is new is watched on its way.
    #[command(flatten)]
    pub following: Following,
}

pub(crate) fn resize(
    session: &Session,
    chosen: Vec<(ResourceSpec, Option<u16>)>,
    options: &ResizeOptions,
) -> u8 {
    let wish = |volume| Resize {
        size_bytes: options.size,
        volume,
        assume_peer_has_space: options.assume_peer_has_space,
        assume_clean: options.assume_clean,
    };
    let mut follow = Follow::new(session, options.following, Begun::Resync);
    let (specs, volumes): (Vec<ResourceSpec>, Vec<Option<u16>>) = chosen.into_iter().unzip();
    let mut volumes = volumes.into_iter();
    let code = session.for_each("resize", &specs, |spec| {
        let volume = volumes.next().flatten().filter(|_| !spec.more_volumes.is_empty());
        if !session.dry_run {
            require_volume(&session.require_status(&spec.name)?, volume)?;
        }
        session.act(&spec.name, Action::Resize(wish(volume)))?;
        // Without the peer nothing is sent.
        if !options.assume_peer_has_space {
            follow.add(spec);
        }
        Ok(())
    });
    code.max(follow.to_the_end("resize"))
}
