//! Netlink: requests to the kernel, which does at once what it takes, without a program that would have to be started.
//!
//! A [`Message`] consists of a header, what each kind begins with, and [`Attributes`]; a [`Socket`] sends some and waits for
//! what comes of them. The numbers of headers are the machine's own.

mod answer;
mod attributes;
mod message;
mod socket;

pub use attributes::Attributes;
pub use message::{ACKNOWLEDGE, APPEND, CREATE, Message};
pub use socket::Socket;
