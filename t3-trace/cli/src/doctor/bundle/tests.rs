//! Tests of the bundle: no private data of a user is in any text.

use std::collections::BTreeSet;

use proptest::prelude::*;
use t3_record::{Cause, How, KernelSource, Segment, Verdict};

use super::*;
use crate::doctor::{checks, facts::Unit, tests::healthy};

fn redactor(names: &[&str]) -> Redactor {
    Redactor::new(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>())
}

#[test]
fn only_private_data_is_removed_from_texts() {
    for (text, expected) in [
        ("ok hook sock:inet_sk_error_report: attached", "ok hook sock:inet_sk_error_report: attached"),
        (
            "t3-serve@ann.service of Ann's in /home/ann/x",
            "t3-serve@user-1.service of user-1's in /home/user-1/x",
        ),
        ("# t3-serve@ann.service: loaded", "# t3-serve@user-1.service: loaded"),
        ("cannot, annotation, bobann", "cannot, annotation, bobann"),
        ("ann_x and x-ann", "user-1_x and x-user-1"),
        (
            "from 203.0.113.7:443, 203.0.113.7 and [2001:db8::1]:5",
            "from address-1:443, address-1 and [address-2]:5",
        ),
        ("127.0.0.1:3773 and ::1", "127.0.0.1:3773 and ::1"),
        ("10.0.0.0/8.", "address-1/8."),
        ("GET /ws?wsTicket=abc HTTP", "GET /ws?[removed] HTTP"),
        ("wsTicket=abc next", "wsTicket=[removed] [removed]"),
        (r#"{"credential": "abc", "x": 1}"#, r#"{"credential": "[removed]", "[removed]": [removed]}"#),
        ("Cookie: a=b; t3=abc", "Cookie: [removed]; [removed]"),
        ("Authorization: Bearer abc.def", "Authorization: [removed] [removed]"),
        ("Cookie: a=b\nnext line", "Cookie: [removed]\nnext line"),
        ("a 0123456789abcdefghij b", "a [removed] b"),
        ("LogRateLimitBurst=1000000 kernel 6.12.41-amd64", "LogRateLimitBurst=1000000 kernel 6.12.41-amd64"),
        ("ann@example.org https://u:p@h/x", "[removed] [removed]"),
        ("really?", "really?"),
    ] {
        assert_eq!(redactor(&["ann"]).text(text), expected, "{text}");
    }
}

#[test]
fn the_same_user_and_address_have_the_same_number() {
    let mut redactor = redactor(&["ann", "bob"]);
    assert_eq!((redactor.user("BOB"), redactor.user("new")), ("user-2".to_owned(), "user-3".to_owned()));
    assert_eq!(redactor.text("new and bob"), "user-3 and user-2");
    assert_eq!(
        (redactor.address("192.0.2.1"), redactor.address("192.0.2.2"), redactor.address("192.0.2.1")),
        ("address-1".to_owned(), "address-2".to_owned(), "address-1".to_owned())
    );
    assert_eq!(redactor.address("unknown"), "[removed]");
}

fn hostile_record(name: &str, secret: &str) -> t3_record::CloseRecord {
    let mut record = t3_record::CloseRecord::new(
        name.to_owned(),
        "203.0.113.7".to_owned(),
        5,
        Cause::Graceful,
        Verdict::ServeOom,
        Segment::Serve,
        secret.to_owned(),
        KernelSource::Kprobe,
    );
    record.how = Some(How::Signal(9));
    for text in [
        &mut record.ws_reason,
        &mut record.rst_reason,
        &mut record.peer_comm,
        &mut record.killed_by,
        &mut record.oom_victim,
        &mut record.ray,
    ] {
        *text = Some(format!("{name} {secret}"));
    }
    record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_user_address_or_credential_stays_in_a_text(
        name in "zq[a-z0-9]{1,8}([_.-]zq[a-z]{1,4})?",
        secret in "ZX[A-Za-z0-9_.~+/=-]{6,60}",
        noise in "[ -~\n]{0,40}",
        upper in any::<bool>(),
    ) {
        let shown = if upper { name.to_uppercase() } else { name.clone() };
        let text = format!(
            "{noise}\nt3-serve@{shown}.service {shown}'s {noise} /home/{shown}/.t3 {shown}:3773 (for {shown})\n\
             GET /ws?wsTicket={secret}&x={shown} wsTicket={secret} {noise}\n\"credential\": \"{secret}\"\n\
             Authorization: Bearer {secret}\nSet-Cookie: t3={secret}\npassword: {secret}\n{shown}@example.org 203.0.113.77 [2001:db8::77]:9\n"
        );
        let out = redactor(&[&name]).text(&text);
        prop_assert!(!out.to_lowercase().contains(&name), "{name}: {out}");
        prop_assert!(!out.contains(&secret), "{secret}: {out}");
        prop_assert!(!out.contains("203.0.113.77") && !out.contains("2001:db8::77") && !out.contains("example.org"), "{out}");
    }

    #[test]
    fn any_text_is_redacted_without_a_panic(text in ".{0,200}", name in ".{0,5}") {
        let once = redactor(&[&name]).text(&text);
        prop_assert!(once.len() <= 20 * text.len() + 40);
    }

    #[test]
    fn a_record_keeps_only_typed_values(name in "zq[a-z0-9]{1,8}", secret in "ZX[A-Za-z0-9_.~+/=-]{6,60}") {
        let line = records::line(&hostile_record(&name, &secret), &mut redactor(&[]));
        prop_assert!(!line.contains(&name) && !line.contains(&secret) && !line.contains("203.0"), "{line}");
        prop_assert!(line.contains("user=user-1 ip=address-1 dur_ms=5 cause=graceful verdict=serve_oom"), "{line}");
    }

    #[test]
    fn a_unit_file_keeps_no_secret_value(secret in "ZX[A-Za-z0-9_.~+/=-]{6,60}", key in "[A-Z]{1,8}") {
        let text = format!(
            "# {secret}\n[Service]\nEnvironment={key}={secret}\nEnvironment=\"{key}={secret}\"\nSetCredential={key}:{secret}\n\
             ExecStart=/usr/bin/t3 serve {secret} --{key}={secret} --key {secret}\nDescription={secret}\nX{key}={secret}\nMemoryMax=1G\n"
        );
        let out = unit_file::redacted(&text);
        prop_assert!(!out.contains(&secret), "{out}");
        prop_assert!(out.contains("MemoryMax=1G"));
    }
}

#[test]
fn the_bundle_is_a_tar_without_names() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("t3-serve@zqann.service");
    fs::write(&unit, "[Service]\nUser=zqann\nEnvironment=TOKEN=hunter2\nMemoryMax=1G\n").unwrap();
    let mut facts = healthy();
    facts.serves.as_mut().unwrap()[0].user = "zqann".to_owned();
    facts.serves.as_mut().unwrap()[0].unit = Some("t3-serve@zqann.service".to_owned());
    let loaded = Unit { load: "loaded".to_owned(), files: vec![unit], ..Unit::default() };
    facts.units.insert("t3-serve@zqann.service".to_owned(), loaded);
    let path = folder.path().join("report.tar");
    write(&path, &facts, &checks::all(&facts)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o600);
    let mut tar = tar::Archive::new(File::open(&path).unwrap());
    let mut names = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().display().to_string());
        let mut text = String::new();
        io::Read::read_to_string(&mut entry, &mut text).unwrap();
        assert!(!text.contains("zqann") && !text.contains("hunter2"), "{text}");
        if names.last().unwrap().ends_with("report.json") {
            assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["checks"].is_array());
        }
    }
    let expected = ["README.txt", "report.txt", "report.json", "versions.txt", "units.txt", "records.txt"];
    assert_eq!(names, expected.map(|name| format!("{FOLDER}/{name}")));
    let error = write(&path, &facts, &[]).unwrap_err();
    assert!(error.to_string().contains("the file exists"), "{error}");
}
