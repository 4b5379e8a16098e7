//! T0xx: tandemd, the configuration and the metadata of what is not up.

use std::path::Path;

use tandem_control::ResourceSpec;

use super::{Condition, Page, Place, Severity, Sign, Trouble, listing};

/// What is known where tandemd tells nothing of a resource.
#[derive(Debug)]
pub enum Absent<'a> {
    /// Nobody listens on the control socket.
    NoDaemon {
        /// Where it would be.
        socket: &'a Path,
    },
    /// It listens, and does not answer.
    Mute {
        /// What went wrong.
        error: String,
        /// What helps.
        next: String,
    },
    /// The configuration cannot be used.
    NoConfig {
        /// Why, in one line.
        error: String,
    },
    /// The resource is configured and not up.
    NotUp {
        /// The resource.
        spec: &'a ResourceSpec,
        /// What its disk says.
        on_disk: &'a OnDisk,
    },
}

/// What the disk of a resource that is not up says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OnDisk {
    /// It was detached in good order.
    Closed,
    /// This node went down without detaching it.
    Unclean {
        /// While it was Primary.
        as_primary: bool,
    },
    /// There is no metadata.
    NoMetadata,
    /// It cannot be read.
    Unreadable(String),
}

impl Absent<'_> {
    /// The resource it is about, if it is one.
    pub(super) fn resource(&self) -> Option<&str> {
        match self {
            Absent::NotUp { spec, .. } => Some(&spec.name),
            _ => None,
        }
    }
}

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        code: "T001",
        name: "tandemd does not run",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::NoDaemon { socket } => {
                Some(Sign::new(format!("nobody answers on {}", socket.display())).here("tandemadm up all"))
            }
            _ => None,
        }),
        page: Page {
            happened: "The daemon that replicates is not there: it was not started since the machine was, or it was stopped, or it \
                       crashed.",
            data: "Nothing is replicated on this node. What was completed to clients is safe: the activity log on disk says what \
                   may differ, and a block device that is in use waits for the daemon to come back. If this node was Primary, \
                   its clients wait; the other node can take over with 'tandemadm primary r0'.",
            look: "The log says how it ended:\n    tail -n 50 /run/tandem/tandemd.log\n    journalctl -u tandemd -n 50",
            act: "Start it, with all resources:\n    tandemadm up all\nWith systemd, 'systemctl enable --now tandemd' starts it \
                  with the machine.",
            avoid: "Do not mount or write the backing disk directly meanwhile: the other node would never hear of it, and the copies \
                    would differ unnoticed.",
        },
    },
    Trouble {
        code: "T002",
        name: "tandemd does not answer",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::Mute { error, next } => Some(Sign::new(error.clone()).here(next)),
            _ => None,
        }),
        page: Page {
            happened: "Somebody listens on the control socket, and the question was not answered: tandemd is stopping, is asked by too \
                       many at once, hangs, was stopped with SIGSTOP, or is of another release than tandemadm; or it is not root who asks.",
            data: "Nothing is known here. The daemon may well be replicating.",
            look: "    tail -n 50 /run/tandem/tandemd.log\n    tandemadm --version\n    tandemd --version",
            act: "Ask again, as root. If it was stopped:\n    kill -CONT $(cat /run/tandem/tandemd.pid)\nIf the releases differ, install the same one of both and restart tandemd. If it hangs, see in the log \
                  which disk it waits for; the other node can take over once this one is certainly off.",
            avoid: "Do not remove the socket, and do not start a second daemon.",
        },
    },
    Trouble {
        code: "T003",
        name: "the configuration cannot be used",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::NoConfig { error } => Some(Sign::new(error.clone()).here("tandemadm dump")),
            _ => None,
        }),
        page: Page {
            happened: "The configuration has errors, or cannot be read.",
            data: "Nothing changes: tandemd does not read the configuration, resources that are up stay as they are. But none could be \
                   brought up now.",
            look: "Every error, with its line and what was expected:\n    tandemadm dump",
            act: "Correct it, the same on both nodes.",
            avoid: "Do not restart the machine or the daemon before the errors are gone.",
        },
    },
    Trouble {
        code: "T004",
        name: "not up",
        severity: Severity::Degraded,
        condition: Condition::Absent(|absent| match absent {
            Absent::NotUp { spec, on_disk: OnDisk::Closed } => Some(
                Sign::new(format!("{} is in the configuration, and tandemd does not have it", spec.name))
                    .here(format!("tandemadm up {}", spec.name)),
            ),
            _ => None,
        }),
        page: Page {
            happened: "The resource is configured for this node and was not brought up, or was taken down.",
            data: "The copy here is as it was when it was taken down, in good order, and grows old while the other node goes on.",
            look: "    tandemadm dstate r0\n    tandemadm show-gi r0",
            act: "    tandemadm up r0\nThe copy is brought up to date as soon as the other node is connected.",
            avoid: "Do not mount the backing disk.",
        },
    },
    Trouble {
        code: "T005",
        name: "not up, and not closed",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::NotUp { spec, on_disk: OnDisk::Unclean { as_primary } } => {
                let role = if *as_primary { "Primary" } else { "Secondary" };
                Some(
                    Sign::new(format!(
                        "this node went down as {role} without closing {}; attaching it finds out what may differ",
                        spec.name
                    ))
                    .here(format!("tandemadm up {}", spec.name)),
                )
            }
            _ => None,
        }),
        page: Page {
            happened: "The node, or tandemd, went down while the disk was attached: a crash, a power cut, kill -9. The meta-data still \
                       says that writes were under way.",
            data: "Nothing that was completed is lost. The activity log names the extents that were written last; attaching marks them, \
                   and they are compared or sent again when the other node is met. If this node was Primary, the other may have been \
                   promoted since.",
            look: "    tandemadm show-gi r0\n    tandemadm dump-md r0\nAnd on the other node whether it is Primary by now:\n    tandemadm status r0",
            act: "    tandemadm up r0\nIt attaches the disk, marks what may differ and connects; what follows happens by itself.",
            avoid: "Do not run create-md: it forgets what may differ, and everything has to be sent. Do not run fsck or mount on the \
                    backing disk.",
        },
    },
    Trouble {
        code: "T006",
        name: "no meta-data",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::NotUp { spec, on_disk: OnDisk::NoMetadata } => {
                let disk = spec.volume.meta_disk.as_ref().unwrap_or(&spec.volume.disk);
                Some(
                    Sign::new(format!("{} has no meta-data of {}", disk.display(), spec.name))
                        .here(listing("-f", &[disk]))
                        .case(
                            "only on a new disk, or if the other node has the data",
                            Place::Here,
                            format!("tandemadm create-md {}", spec.name),
                        )
                        .here(format!("tandemadm up {}", spec.name)),
                )
            }
            _ => None,
        }),
        page: Page {
            happened: "The disk has never been prepared for this resource, or its end was overwritten, or the configuration names another \
                       disk than before.",
            data: "Without meta-data the disk cannot be attached. If it had some before, what it knew is gone: which blocks differ, and \
                   whose data is newer. The data itself may be intact.",
            look: "Is it the disk that you mean?\n    tandemadm dump r0\n    lsblk -f",
            act: "On a new disk, or one whose content may be had anew from the other node:\n    tandemadm create-md r0\n    tandemadm up r0\n\
                  A copy of meta-data that dump-md once printed can be written back with restore-md, if nothing has been written since.",
            avoid: "Do not run create-md on the only good copy without knowing why its meta-data is gone.",
        },
    },
    Trouble {
        code: "T007",
        name: "the disk cannot be read",
        severity: Severity::NeedsHand,
        condition: Condition::Absent(|absent| match absent {
            Absent::NotUp { spec, on_disk: OnDisk::Unreadable(error) } => Some(
                Sign::new(error.clone())
                    .here(format!("ls -lL {}", spec.volume.disk.display()))
                    .here(format!("tandemadm up {}", spec.name)),
            ),
            _ => None,
        }),
        page: Page {
            happened: "The resource is not up, and its disk or its meta-data cannot be opened or read: the device is not there, another \
                       program has it, the disk fails, or the meta-data is damaged.",
            data: "Nothing was changed. The other node's copy is not concerned.",
            look: "    dmesg | tail -n 30\n    lsblk\n    tandemadm dump-md r0",
            act: "Bring the device back (LVM, multipath, iSCSI, a cable), then\n    tandemadm up r0\nIf the disk is broken, replace it, then\n    \
                  tandemadm create-md r0\n    tandemadm up r0\nand everything is had from the other node.",
            avoid: "Do not point the configuration to a disk that merely happens to be there.",
        },
    },
];
