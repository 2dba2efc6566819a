//! Check of the open sessions that would not survive a restart of t3-dispatch. Pure.

use t3_record::wire::Status;

use super::super::{
    facts::Unit,
    finding::{Check, Finding, State},
};

/// `None` if the daemon does not report it. `unit` is that of t3-dispatch.
pub(super) fn finding(status: &Status, unit: Option<&Unit>) -> Option<Finding> {
    let check = Check::Restart;
    let (open, kept) = (status.open?, status.kept?);
    let ended = open.saturating_sub(kept);
    if open == 0 {
        return Some(Finding::ok(check, "no open session"));
    }
    if ended == 0 {
        return Some(Finding::ok(
            check,
            format!("all {open} open sessions would survive a restart of t3-dispatch"),
        ));
    }
    let says = format!(
        "{ended} of {open} open sessions would be ended by a restart of t3-dispatch; see FileDescriptorStoreMax="
    );
    Some(match unit.and_then(|unit| unit.fd_store_max) {
        Some(0) => {
            let advice =
                "set FileDescriptorStoreMax= in t3-dispatch.service to two per session and a few more";
            Finding::of(check, State::Note, format!("{says}: the unit has no descriptor store"), advice)
        }
        Some(most) => {
            let advice = format!(
                "a store of {most} needs two descriptors per session and a few more: raise it; journalctl -u t3-dispatch says if the store is full"
            );
            Finding::of(check, State::Warning, says, advice)
        }
        None => Finding::of(check, State::Note, format!("{says}: not known without systemd"), ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_are_not_kept_are_a_risk_only_if_the_unit_has_a_store() {
        for (open, kept, store, expected) in [
            (0, 0, Some(512), Some(State::Ok)),
            (9, 9, Some(512), Some(State::Ok)),
            (9, 8, Some(512), Some(State::Warning)),
            (9, 0, Some(0), Some(State::Note)),
            (9, 0, None, Some(State::Note)),
        ] {
            let status = Status { open: Some(open), kept: Some(kept), ..Status::default() };
            let unit = Unit { fd_store_max: store, ..Unit::default() };
            let state = finding(&status, Some(&unit)).map(|finding| finding.state);
            assert_eq!(state, expected, "{kept} of {open}, {store:?}");
        }
        let status = Status { open: Some(9), kept: Some(2), ..Status::default() };
        let says = finding(&status, None).unwrap().says;
        assert!(says.starts_with("7 of 9 open sessions would be ended"), "{says}");
        assert_eq!(finding(&Status::default(), None), None, "an older daemon");
    }
}
