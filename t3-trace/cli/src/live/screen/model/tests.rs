//! Tests of the state of the screen.

use t3_record::vocabulary::Segment;

use super::*;
use crate::live::screen::testing::{NOON, daemon, record, sessions};

fn close(conn: &str, verdict: Verdict) -> Item {
    Item::Closed(Box::new(record(conn, "ann", verdict, Segment::Serve)), NOON)
}

fn model() -> Model {
    Model::new(NOON, Filter::default())
}

#[test]
fn a_duplicate_close_counts_once_and_totals_are_sorted() {
    let mut model = model();
    for conn in ["a", "b", "a", "b", "c"] {
        model.receive(close(conn, Verdict::ServeOom));
    }
    model.receive(close("d", Verdict::ClientLeft));
    assert_eq!(model.total(), 4);
    assert_eq!(model.totals(), [(Verdict::ServeOom, 3), (Verdict::ClientLeft, 1)]);
}

#[test]
fn a_pause_does_not_stop_counting_and_totals_ignore_the_filter() {
    let mut model = Model::new(NOON, "user:nobody".parse().unwrap());
    model.act(Action::Pause);
    for n in 0..5 {
        model.receive(close(&n.to_string(), Verdict::ServeOom));
    }
    assert_eq!((model.total(), model.closes.paused(), model.closes.counts()), (5, Some(5), (0, 0)));
    model.act(Action::Pause);
    assert_eq!(model.closes.counts(), (5, 0));
    model.act(Action::ClearFilter);
    assert_eq!(model.closes.counts(), (5, 5));
}

#[test]
fn the_rate_covers_the_last_seconds() {
    let mut model = model();
    for second in 0..30_u64 {
        model.tick(NOON + second);
        for n in 0..4 {
            model.receive(close(&format!("{second}-{n}"), Verdict::ServeOom));
        }
        assert!((model.rate() - 4.0).abs() < f64::EPSILON, "{second}: {}", model.rate());
    }
    model.tick(NOON + 34);
    assert!((model.rate() - 2.0).abs() < 0.5, "{}", model.rate());
    model.tick(NOON + 100);
    assert!(model.rate().abs() < f64::EPSILON);
    // The clock is set back.
    assert!(model.tick(5) && model.rate().abs() < f64::EPSILON);
    assert!(!model.tick(5));
}

#[test]
fn sessions_are_unknown_without_the_daemon() {
    let mut model = model();
    model.receive(Item::Connected(daemon(1)));
    model.receive(Item::Sessions(Box::new(sessions(1))));
    assert!(model.sessions.known());
    model.receive(Item::Disconnected("gone".to_owned()));
    assert!(!model.sessions.known());
}

#[test]
fn overlays_open_and_close() {
    let mut model = model();
    assert_eq!(model.act(Action::Open), Effect::Nothing);
    assert!(matches!(model.overlay, Overlay::Nothing), "without a close there is nothing to open");
    for n in 0..3 {
        model.receive(close(&n.to_string(), Verdict::ServeOom));
    }
    model.closes.set_page(5);
    model.act(Action::Open);
    assert!(matches!(&model.overlay, Overlay::Detail(close) if close.record.conn == "2"));
    model.act(Action::Neighbour(-1));
    assert!(matches!(&model.overlay, Overlay::Detail(close) if close.record.conn == "1"));
    model.act(Action::Neighbour(-9));
    assert!(matches!(&model.overlay, Overlay::Detail(close) if close.record.conn == "0"));
    model.act(Action::Help);
    assert!(matches!(model.overlay, Overlay::Help));
    model.act(Action::Help);
    assert!(matches!(model.overlay, Overlay::Nothing));
    model.act(Action::Back);
    assert!(model.closes.selected().is_none());
    assert_eq!(model.act(Action::Quit), Effect::Quit);
}

#[test]
fn an_invalid_filter_is_rejected_and_a_long_one_is_bounded() {
    let mut model = model();
    model.act(Action::Prompt);
    for c in "user:ann  verdict:x".chars() {
        model.act(Action::Type(c));
    }
    model.act(Action::Accept);
    assert!(
        matches!(&model.overlay, Overlay::Prompt { error: Some(error), .. } if error.contains("unknown verdict"))
    );
    assert!(model.closes.filter().is_empty());
    model.act(Action::EraseWord);
    assert!(matches!(&model.overlay, Overlay::Prompt { text, error: None } if text == "user:ann  "));
    model.act(Action::Accept);
    assert_eq!(model.closes.filter().to_string(), "user:ann");
    model.act(Action::Prompt);
    for _ in 0..10_000 {
        model.act(Action::Type('x'));
    }
    assert!(matches!(&model.overlay, Overlay::Prompt { text, .. } if text.len() <= 500));
    model.act(Action::EraseAll);
    model.act(Action::Erase);
    model.act(Action::Accept);
    assert!(model.closes.filter().is_empty());
}

#[test]
fn filters_are_taken_from_the_selection() {
    let mut model = model();
    model.closes.set_page(5);
    model.receive(close("a", Verdict::ServeOom));
    model.act(Action::OnlyUser);
    assert!(model.closes.filter().is_empty(), "nothing is selected");
    model.act(Action::Step(-1));
    model.act(Action::OnlyUser);
    model.act(Action::OnlySegment);
    model.act(Action::OnlyVerdict);
    assert_eq!(model.closes.filter().to_string(), "user:ann segment:serve verdict:serve_oom");
}
