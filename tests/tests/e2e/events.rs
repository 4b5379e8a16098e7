//! `events2` beside a pair to which things happen.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tandem_control::{Action, Request, ask};

use crate::node::{Node, Outcome, RESOURCE, binary};
use crate::pair::{Pair, Setup};
use crate::wait;

/// What a node says while it lasts.
struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<String>>,
}

impl Listener {
    fn new(node: &Node, options: &[&str]) -> Listener {
        let mut child = events2(node, options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stdout, lines) = (BufReader::new(child.stdout.take().unwrap()), heard.clone());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let complaints: Arc<Mutex<String>> = Arc::default();
        let (mut stderr, text) = (child.stderr.take().unwrap(), complaints.clone());
        thread::spawn(move || {
            let mut byte = [0];
            while stderr.read_exact(&mut byte).is_ok() {
                text.lock().unwrap().push(char::from(byte[0]));
            }
        });
        Listener { child, heard, complaints }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until a line has come, and forgets it with all before.
    #[track_caller]
    fn hears(&self, line: &str) {
        self.hears_one(line, |heard| heard == line);
    }

    #[track_caller]
    fn hears_one(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let came = wait::holds_within(wait::LIMIT, || {
            let mut heard = self.heard.lock().unwrap();
            let at = heard.iter().position(|line| is_it(line));
            at.map(|at| heard.drain(..=at)).is_some()
        });
        assert!(came, "'{what}' is not among:\n{}", self.heard().join("\n"));
    }

    fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events2(node: &Node, options: &[&str]) -> Command {
    let mut command = node.command(&binary("tandemadm"));
    command.arg("events2").args(options);
    command
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn everything_that_happens_is_told() {
    let statements = "handlers { before-resync-source /bin/true; }".to_owned();
    let pair = Pair::synced(Setup { statements, ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    let listener = Listener::new(bravo, &[RESOURCE]);
    listener.hears("exists -");
    alpha.adm(&["secondary", RESOURCE]).ok();
    listener.hears("change resource name:r0 may_promote:yes promotion_score:10102");
    listener.hears("change connection name:r0 peer-node-id:0 conn-name:alpha role:Secondary");
    bravo.adm(&["primary", RESOURCE]).ok();
    listener.hears("change resource name:r0 role:Primary may_promote:no promotion_score:10102");
    alpha.adm(&["disconnect", RESOURCE]).ok();
    // On the way there it may be in other states.
    listener.hears_one("connection:Connecting", |line| {
        line.starts_with("change connection name:r0 peer-node-id:0 conn-name:alpha connection:Connecting")
    });
    let mut client = bravo.client().unwrap();
    client.write(0, &[1; 8192], true).unwrap();
    listener.hears(&device(bravo, "UpToDate", "yes"));
    drop(client);
    listener.hears(&device(bravo, "UpToDate", "no"));
    alpha.adm(&["connect", RESOURCE]).ok();
    let helper = "helper name:r0 peer-node-id:0 conn-name:alpha volume:0 minor:0 helper:before-resync-source";
    listener.hears(&format!("call {helper}"));
    listener.hears(&format!("response {helper} status:0"));
    pair.wait_healed();
    listener.hears("change resource name:r0 may_promote:no promotion_score:10102");
    bravo.kill();
    listener.hears("destroy resource name:r0");
    let complaints = || listener.complaints.lock().unwrap().clone();
    wait::until("it says that tandemd has gone", || complaints().contains("waiting for it to come back"));
    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    listener.hears_one("create", |line| line.starts_with("create resource name:r0 role:"));
    bravo.adm(&["down", RESOURCE]).ok();
    listener.hears("destroy resource name:r0");
}

fn device(node: &Node, disk: &str, open: &str) -> String {
    let backing = node.disk.display();
    format!(
        "change device name:r0 volume:0 minor:0 backing_dev:{backing} disk:{disk} client:no open:{open} quorum:yes"
    )
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_reader_that_asks_or_goes_is_heeded() {
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, .. } = &pair;
    let now = Outcome::of(events2(alpha, &["--now", "--timestamps"])).ok().stdout;
    let lines: Vec<&str> =
        now.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest).collect();
    let (local, remote) = (pair.alpha.address, pair.bravo.address);
    let expected = [
        "exists resource name:r0 role:Primary suspended:no force-io-failures:no may_promote:no promotion_score:10102"
            .to_owned(),
        "exists connection name:r0 peer-node-id:1 conn-name:bravo connection:Connected role:Secondary".to_owned(),
        device(alpha, "UpToDate", "no").replace("change", "exists"),
        "exists peer-device name:r0 peer-node-id:1 conn-name:bravo volume:0 replication:Established \
         peer-disk:UpToDate peer-client:no resync-suspended:no"
            .to_owned(),
        format!(
            "exists path name:r0 peer-node-id:1 conn-name:bravo local:ipv4:{local} peer:ipv4:{remote} established:yes"
        ),
        "exists -".to_owned(),
    ];
    assert_eq!(lines, expected, "{now}");
    assert_eq!(Outcome::of(events2(alpha, &["--now", "nosuch"])).ok().stdout, "exists -\n");

    let mut asking = Listener::new(alpha, &["--now", "--poll"]);
    let ends = |listener: &Listener| listener.heard().iter().filter(|line| *line == "exists -").count();
    wait::until("the first state is complete", || ends(&asking) == 1);
    asking.stdin().write_all(b"n\n").unwrap();
    wait::until("the state was told again", || ends(&asking) == 2);
    asking.stdin().write_all(b"q").unwrap();
    wait::until("it ends when it is told to", || asking.child.try_wait().unwrap().is_some());

    let counters = Listener::new(alpha, &["--statistics"]);
    counters.hears("exists -");
    let mut client = alpha.client().unwrap();
    client.write(0, &[1; 8192], true).unwrap();
    let counted = |line: &String| {
        line.starts_with("change peer-device")
            && line.ends_with(" received:0 sent:8 out-of-sync:0 pending:0 unacked:0")
    };
    wait::until("what was sent is counted", || counters.heard().iter().any(counted));

    let mut ended = events2(alpha, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(ended.stdout.take().unwrap());
    let mut line = String::new();
    while line != "exists -\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    drop(reader);
    wait::until("nothing is told to nobody", || ended.try_wait().unwrap().is_some());
}

/// However short it lasts.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn no_state_is_missed_and_each_follows_from_the_one_before() {
    const TIMES: usize = 250;
    let pair = Pair::synced(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    let begun = |node| {
        let listener = Listener::new(node, &["--diff", RESOURCE]);
        listener.hears("exists -");
        listener
    };
    let (here, there) = (begun(alpha), begun(bravo));
    for _ in 0..TIMES {
        let demoted = Action::Secondary { force: false };
        for action in [Action::SuspendIo, Action::ResumeIo, demoted, Action::Primary { force: false }] {
            let request = Request::Act { resource: RESOURCE.into(), action };
            let reply = ask(&alpha.run.control_socket(), &request, wait::LIMIT).unwrap();
            assert_eq!(reply.error, None);
        }
    }
    // Of what is no change of the resource's or of the peer's, there may be more.
    let changes = |listener: &Listener, object: &str| -> Vec<String> {
        let heard = listener.heard();
        heard.iter().filter(|line| line.starts_with(&format!("change {object} "))).cloned().collect()
    };
    let own = [
        "change resource name:r0 suspended:no->user",
        "change resource name:r0 suspended:user->no",
        "change resource name:r0 role:Primary->Secondary may_promote:no->yes promotion_score:10102->10102",
        "change resource name:r0 role:Secondary->Primary may_promote:yes->no promotion_score:10102->10102",
    ];
    let peers = ["Primary->Secondary", "Secondary->Primary"]
        .map(|role| format!("change connection name:r0 peer-node-id:0 conn-name:alpha role:{role}"));
    for (listener, object, round) in
        [(&here, "resource", own.map(str::to_owned).to_vec()), (&there, "connection", peers.to_vec())]
    {
        let expected: Vec<_> = std::iter::repeat_n(round, TIMES).flatten().collect();
        let all = wait::holds_within(wait::LIMIT, || changes(listener, object).len() >= expected.len());
        let heard = changes(listener, object);
        let differs = heard.iter().zip(&expected).position(|(heard, expected)| heard != expected);
        assert!(all && differs.is_none(), "{} {object}: {differs:?}\n{heard:#?}", heard.len());
    }
}
