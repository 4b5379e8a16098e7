//! Draws a [`Model`]: nothing else decides what is on the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::PeerStatus;

use super::model::{Mode, Model, Rates, Row};
use crate::diagnosis::{Finding, Severity, worst};
use crate::progress;
use crate::status_text::{self, Look};

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const WARN: Style = Style::new().fg(Color::Yellow);
const PRIMARY: Style = Style::new().fg(Color::Cyan);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
/// So many columns the states and the figures take.
const WIDE: u16 = 140;
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

const HELP: &str = "\
up, down (k, j)   choose a resource
enter             its details: why something is amiss, and the next command
esc               back to the list
?                 this text
q, Ctrl-C         end

UNACKED   requests received from the peer and not answered
PENDING   requests sent to it and not answered
FLIGHT    bytes of clients' writes that are on their way to it
Rates are those of the last second; '-' until there are two looks.";

/// The whole screen.
pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    let parts = [Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(title(model), top);
    match model.mode {
        Mode::List => list(model, frame, middle),
        Mode::Details => details(model, frame, middle),
        Mode::Help => frame.render_widget(Paragraph::new(HELP), middle),
    }
    frame.render_widget(Line::from("q end   enter details   esc back   ? help").style(TITLE), bottom);
}

fn title(model: &Model) -> Line<'static> {
    if let Some(why) = &model.away {
        return Line::from(format!("tandemadm top   {why}; trying again")).style(BAD.patch(TITLE));
    }
    let severity = |wanted| model.resources.iter().filter(|row| worst(&row.findings) == Some(wanted)).count();
    let node =
        model.resources.first().map_or(String::new(), |row| format!("   {}", row.status.spec.node.name));
    let counts = [(Severity::NeedsHand, BAD), (Severity::Degraded, WARN)];
    let mut spans =
        vec![Span::from(format!("tandemadm top{node}   {}", count(model.resources.len()))).style(TITLE)];
    for (wanted, style) in counts.into_iter().filter(|(wanted, _)| severity(*wanted) > 0) {
        spans.push(Span::from(format!("   {}: {}", wanted.words(), severity(wanted))).style(style));
    }
    Line::from(spans)
}

fn list(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let is_wide = area.width >= WIDE;
    let states = format!(
        "{:<14} {:<9} {:<12} {:<10} {:<12} {:<12} ",
        "RESOURCE", "ROLE", "DISK", "PEER", "STATE", "PEER DISK"
    );
    let figures = format!(
        "{:>7} {:>7} {:>8}  {:>9} {:>9} {:>9} {:>9}",
        "UNACKED", "PENDING", "FLIGHT", "READ/s", "WRITE/s", "SENT/s", "RECV/s"
    );
    let heading = if is_wide { states + &figures } else { states };
    let [top, middle] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Line::from(heading).style(TITLE), top);
    let (mut lines, mut selected) = (Vec::new(), 0..0);
    for (index, row) in model.resources.iter().enumerate() {
        let begin = lines.len();
        lines.extend(resource(row, is_wide));
        if index == model.selected {
            lines[begin] = std::mem::take(&mut lines[begin]).patch_style(SELECTED);
            selected = begin..lines.len();
        }
    }
    if lines.is_empty() && model.away.is_none() {
        lines.push(Line::from("no resource is up"));
    }
    // The selected one is always to be seen.
    let scroll = selected.end.saturating_sub(usize::from(middle.height));
    let scroll = u16::try_from(scroll.min(selected.start)).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)), middle);
}

/// A line for each peer, the resource beside the first, and where there is no room for the figures one below it for them; a bar
/// for each resync; what is amiss.
fn resource(row: &Row, is_wide: bool) -> Vec<Line<'static>> {
    let engine = &row.status.engine;
    let mut lines = Vec::new();
    let peers: Vec<Option<&PeerStatus>> = match engine.peers.as_slice() {
        [] => vec![None],
        peers => peers.iter().map(Some).collect(),
    };
    for (index, peer) in peers.into_iter().enumerate() {
        let mut spans = match index {
            0 => vec![
                Span::from(format!("{:<14} ", engine.resource)).style(TITLE),
                Span::from(format!("{:<9} ", engine.role.as_str())).style(role(engine.role)),
                Span::from(format!("{:<12} ", engine.disk.as_str())).style(disk(engine.disk)),
            ],
            _ => vec![Span::from(" ".repeat(38))],
        };
        if let Some(peer) = peer {
            spans.extend(of_peer(peer));
        }
        let rates = row.rates.filter(|_| index == 0);
        match is_wide {
            true => {
                spans.push(Span::from(peer.map_or_else(|| " ".repeat(26), in_flight)));
                spans.extend((index == 0).then(|| Span::from(in_columns(rates))));
                lines.push(Line::from(spans));
            }
            false => {
                lines.push(Line::from(spans));
                lines.extend(in_words(peer, rates).map(Line::from));
            }
        }
        lines.extend(peer.and_then(bar));
    }
    lines.extend(row.findings.iter().map(finding));
    lines
}

fn of_peer(peer: &PeerStatus) -> Vec<Span<'static>> {
    let connected = peer.connection == ConnectionState::Connected;
    let (word, style) = match peer.replication {
        ReplicationState::Established if connected => ("Connected", GOOD),
        ReplicationState::Off if connected => ("Connected", Style::new()),
        state if connected => (state.as_str(), WARN),
        _ => (peer.connection.as_str(), BAD),
    };
    vec![
        Span::from(format!("{:<10} ", peer.name)).style(role(peer.role)),
        Span::from(format!("{word:<12} ")).style(style),
        Span::from(format!("{:<12} ", peer.disk.as_str())).style(disk(peer.disk)),
    ]
}

fn in_flight(peer: &PeerStatus) -> String {
    format!("{:>7} {:>7} {:>8}  ", peer.unacked, peer.pending, size(peer.in_flight_bytes))
}

/// The figures below the states; none if nothing moves.
fn in_words(peer: Option<&PeerStatus>, rates: Option<Rates>) -> Option<String> {
    let rates = rates.unwrap_or_default();
    let of_peer = |count: fn(&PeerStatus) -> u64| peer.map_or(0, count);
    let counts = [(of_peer(|peer| peer.unacked), "unacked"), (of_peer(|peer| peer.pending), "pending")];
    let sizes = [
        (of_peer(|peer| peer.in_flight_bytes), "in flight"),
        (rates.read, "read/s"),
        (rates.written, "written/s"),
        (rates.sent, "sent/s"),
        (rates.received, "received/s"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let sizes =
        sizes.iter().filter(|(bytes, _)| *bytes > 0).map(|(bytes, what)| format!("{} {what}", size(*bytes)));
    let words: Vec<String> = counts.chain(sizes).collect();
    (!words.is_empty()).then(|| format!("    {}", words.join(", ")))
}

/// How far a resync or a verify is, and when it will be done.
fn bar(peer: &PeerStatus) -> Option<Line<'static>> {
    let resync = peer.resync.as_ref()?;
    let line = progress::line(&peer.name, std::slice::from_ref(peer))?;
    let style = if resync.stalled { BAD } else { WARN };
    Some(Line::from(format!("    {line}")).style(style))
}

fn finding(finding: &Finding) -> Line<'static> {
    let trouble = finding.trouble;
    let style = match trouble.severity {
        Severity::NeedsHand => BAD,
        Severity::Degraded => WARN,
    };
    Line::from(format!("    {} {}: {}", trouble.code, trouble.name, finding.sign.why)).style(style)
}

fn details(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Some(row) = model.resources.get(model.selected) else { return };
    let look = Look { verbose: 1, statistics: true, columns: usize::from(area.width), ..Look::default() };
    let mut text = status_text::resource(&row.status, &look);
    match row.findings.is_empty() {
        true => text.push_str("All is well.\n"),
        false => text.extend(row.findings.iter().map(Finding::remark)),
    }
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
}

fn role(role: Role) -> Style {
    if role == Role::Primary { PRIMARY } else { Style::new() }
}

fn disk(state: DiskState) -> Style {
    match state {
        DiskState::UpToDate => GOOD,
        DiskState::Diskless | DiskState::Failed | DiskState::Inconsistent | DiskState::Outdated => BAD,
        _ => Style::new(),
    }
}

fn in_columns(rates: Option<Rates>) -> String {
    let columns = match rates {
        Some(Rates { read, written, sent, received }) => [read, written, sent, received].map(size),
        None => ["-", "-", "-", "-"].map(str::to_owned),
    };
    columns.map(|column| format!("{column:>9}")).join(" ")
}

/// `512 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut number, mut unit) = (bytes as f64 / 1024.0, 0);
    while number >= 1000.0 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    match number < 10.0 {
        true => format!("{number:.1} {}", units[unit]),
        false => format!("{number:.0} {}", units[unit]),
    }
}

fn count(resources: usize) -> String {
    match resources {
        1 => "1 resource".to_owned(),
        more => format!("{more} resources"),
    }
}
