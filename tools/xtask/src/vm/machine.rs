//! One virtual machine: a QEMU process with a disk of its own, which a power cut kills.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::channel::{Call, Channel, Reply};
use super::image::Image;
use super::network::{PREFIX, address};
use crate::process::Result;

/// A machine is up within this time even when the host has much else to do.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Within this time everything ends that is said without another limit.
const LIMIT: Duration = Duration::from_secs(240);
const MEMORY_MB: u32 = 512;
/// The kernel's words: nothing that waits, a panic ends the machine, and a host with much to do may be late with the timer's
/// interrupts.
const KERNEL_WORDS: &str =
    "console=ttyS0 quiet panic=-1 reboot=t mitigations=off audit=0 random.trust_cpu=on no_timer_check";

/// A machine, on or off. Its root file system is the image as it was built, at each boot; only its disk stays.
pub(super) struct Machine {
    name: String,
    number: u8,
    folder: PathBuf,
    /// The folder that the guest sees as `/host`.
    share: PathBuf,
    disk: PathBuf,
    power: Option<Power>,
}

/// What is there while a machine is on.
struct Power {
    qemu: Child,
    channel: Channel,
}

impl Machine {
    /// A machine that is off, with an empty disk. Its files go into `folder`.
    pub(super) fn new(number: u8, folder: &Path, share: &Path, disk_bytes: u64) -> Result<Machine> {
        let name = format!("n{number}");
        let disk = folder.join(format!("{name}.disk"));
        fs::File::create(&disk)?.set_len(disk_bytes)?;
        Ok(Machine { name, number, folder: folder.to_owned(), share: share.to_owned(), disk, power: None })
    }

    /// The host's name inside.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the bridge.
    pub(super) fn address(&self) -> Ipv4Addr {
        address(self.number)
    }

    /// The name of its network cable.
    pub(super) fn cable(&self) -> String {
        format!("cable{}", self.number)
    }

    /// Boots the machines side by side.
    pub(super) fn boot(image: &Image, machines: &mut [&mut Machine]) -> Result<()> {
        let start = Instant::now();
        let mut started = Vec::new();
        for machine in machines.iter() {
            started.push(machine.start_qemu(image)?);
        }
        for (machine, qemu) in machines.iter_mut().zip(started) {
            machine.connect(qemu)?;
            println!("[{}] up after {:.1} s", machine.name, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Runs a script that must succeed.
    pub(super) fn sh(&mut self, script: &str) -> Result<String> {
        self.sh_within(LIMIT, script)
    }

    /// Runs a script that must succeed, with a limit of its own.
    pub(super) fn sh_within(&mut self, limit: Duration, script: &str) -> Result<String> {
        let reply = self.try_within(limit, script)?;
        match reply.status {
            0 => Ok(reply.text),
            status => Err(format!("{}: exit status {status}: {script}\n{}", self.name, reply.text).into()),
        }
    }

    /// Waits until a condition, a shell command, holds; where it does not, `report` shows why.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        condition: &str,
        limit: Duration,
        report: &str,
    ) -> Result<()> {
        let script = format!(
            "until {condition}; do
                if [ $SECONDS -ge {} ]; then {report}; exit 1; fi
                sleep 0.1
            done",
            limit.as_secs()
        );
        self.sh_within(limit + LIMIT, &script).map(drop).map_err(|error| {
            format!("{}: not within {} s: {what}\n{error}", self.name, limit.as_secs()).into()
        })
    }

    /// Begins a script that goes on while others are run.
    pub(super) fn begin(&mut self, script: &str) -> Result<Call> {
        self.power()?.channel.begin(script)
    }

    /// Waits for the end of a script that was begun.
    pub(super) fn finish(&mut self, call: &Call, limit: Duration) -> Result<Reply> {
        self.power()?.channel.finish(call, limit)
    }

    /// Pulls the plug: SIGKILL to QEMU. What the guest had not written to its disk is lost.
    pub(super) fn cut_power(&mut self) -> Result<()> {
        if let Some(mut power) = self.power.take() {
            power.qemu.kill()?;
            power.qemu.wait()?;
        }
        Ok(())
    }

    fn try_within(&mut self, limit: Duration, script: &str) -> Result<Reply> {
        let call = self.begin(script)?;
        self.finish(&call, limit)
    }

    fn power(&mut self) -> Result<&mut Power> {
        self.power.as_mut().ok_or_else(|| format!("{} is off", self.name).into())
    }

    fn start_qemu(&self, image: &Image) -> Result<Child> {
        let _ = fs::remove_file(self.socket());
        let messages = fs::File::create(self.file("qemu"))?;
        let words = format!("{KERNEL_WORDS} lab.name={} lab.address={}/{PREFIX}", self.name, self.address());
        // setpriv: if this process ends, however it does, the machine ends with it.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"])
            .args(["-m", &MEMORY_MB.to_string(), "-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-serial")
            .arg(format!("file:{}", self.file("console").display()))
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", &words])
            .arg("-drive")
            .arg(format!("if=virtio,file={},format=raw,snapshot=on", image.root.display()))
            .arg("-drive")
            .arg(format!("if=virtio,file={},format=raw,cache=writeback,aio=threads", self.disk.display()))
            .arg("-netdev")
            .arg(format!("tap,id=net,ifname={},script=no,downscript=no", self.cable()))
            .arg("-device")
            .arg(format!("virtio-net-pci,netdev=net,mac=52:54:00:77:00:{:02x}", self.number))
            .args(["-device", "virtio-serial-pci", "-chardev"])
            .arg(format!("socket,id=lab,path={},server=on,wait=off", self.socket().display()))
            .args(["-device", "virtserialport,chardev=lab,name=lab", "-fsdev"])
            .arg(format!("local,id=host,path={},security_model=none", self.share.display()))
            .args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "virtio-rng-pci"]);
        let child = qemu.stdin(Stdio::null()).stdout(messages.try_clone()?).stderr(messages).spawn();
        child.map_err(|e| format!("cannot start QEMU: {e}").into())
    }

    fn connect(&mut self, mut qemu: Child) -> Result<()> {
        let calls = self.share.join("calls");
        let channel = match Channel::open(&self.name, &self.socket(), &calls, BOOT_LIMIT) {
            Ok(channel) => channel,
            Err(error) => {
                // It may have ended by itself.
                let _ = qemu.kill();
                qemu.wait()?;
                return Err(format!("{error}\n{}", self.last_words()).into());
            }
        };
        self.power = Some(Power { qemu, channel });
        self.set_clock()
    }

    /// Gives the guest the host's time: its own clock began at a whole second.
    fn set_clock(&mut self) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        self.sh(&format!("date -s @{}.{:09} >/dev/null", now.as_secs(), now.subsec_nanos())).map(drop)
    }

    /// The ends of what QEMU and the guest's console said.
    fn last_words(&self) -> String {
        let end = |what: &str| {
            let bytes = fs::read(self.file(what)).unwrap_or_default();
            String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(1500)..]).into_owned()
        };
        format!("{}\n{}", end("qemu"), end("console"))
    }

    fn socket(&self) -> PathBuf {
        self.file("control")
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(&self.name).with_extension(extension)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.cut_power() {
            eprintln!("xtask: {}: {error}", self.name);
        }
    }
}
