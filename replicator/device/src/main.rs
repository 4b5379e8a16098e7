//! tandem-device: keeps the block device of a Primary's volume. tandemd starts it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tandem_control::{DeviceDriver, RuntimeDir};
use tandem_device::control::Reply;
use tandem_device::{log, serve};

/// Keeps the block device of a Primary's volume.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the device and keep it until it is told to go.
    ///
    /// tandemd must be running and the resource Primary. When the device is there, one line of JSON on standard output
    /// says what it is; the log goes to standard error. SIGTERM takes the device away, unless it is open.
    Serve {
        /// The resource.
        #[arg(long, value_name = "RES")]
        resource: String,
        /// The volume.
        #[arg(long, value_name = "N", default_value_t = 0)]
        volume: u16,
        /// The name that the device shall have, such as /dev/drbd0.
        #[arg(long, value_name = "PATH")]
        device: PathBuf,
        /// tandemd's folder [default: $TANDEM_RUN_DIR or /run/tandem]
        #[arg(long, value_name = "DIR")]
        run_dir: Option<PathBuf>,
        /// What makes it: auto, nbd (the kernel's NBD driver) or fuse (a FUSE file and a loop device).
        #[arg(long, value_name = "DRIVER", default_value = "auto", value_parser = driver)]
        driver: DeviceDriver,
        /// How long requests wait for a tandemd that has gone, until all fail; 0: for ever.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        away_limit: u64,
    },
    /// Be ready to do that: one line of JSON on standard input says what, and the end of the input that nobody ever will.
    Spare {
        /// What will probably make the device
        #[arg(long, value_name = "DRIVER", default_value = "auto", value_parser = driver)]
        driver: DeviceDriver,
    },
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    log::start();
    serve::settle();
    let options = match command {
        Command::Serve { resource, volume, device, driver, run_dir, away_limit } => {
            let run = run_dir.map_or_else(RuntimeDir::from_env, RuntimeDir::new);
            let away_limit = (away_limit > 0).then(|| Duration::from_secs(away_limit));
            serve::Options { resource, volume, device, driver, run, away_limit }
        }
        Command::Spare { driver } => match serve::wait_for_order(driver, &mut io::stdin().lock()) {
            Ok(Some(options)) => options,
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => {
                say(&Reply::refused(format_args!("what is to be kept was not understood: {error}")));
                return ExitCode::FAILURE;
            }
        },
    };
    let served =
        serve::run(&options, |device| say(&Reply { device: Some(device.clone()), ..Reply::default() }));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(resource = options.resource, "{error}");
            say(&Reply::refused(error));
            ExitCode::FAILURE
        }
    }
}

fn driver(word: &str) -> Result<DeviceDriver, String> {
    let known = DeviceDriver::from_word(word).filter(|driver| *driver != DeviceDriver::None);
    known.ok_or_else(|| "auto, nbd or fuse".to_owned())
}

/// Whoever started us may not listen.
fn say(reply: &Reply) {
    let line = serde_json::to_string(reply).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{line}");
}
