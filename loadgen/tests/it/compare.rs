//! `compare` of runs of known servers: alike ones, one that is slower, ones that cannot be compared.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::support::{Ran, echo, echo_server, eventually, fresh_folder, loadgen, run, server};

/// A server that takes `delay` for each answer.
fn slow_server(delay: Duration) -> SocketAddr {
    server(move |stream| {
        echo(stream, |_| {
            thread::sleep(delay);
            true
        });
    })
}

/// The run.json of a closed loop of one connection.
fn measured(address: SocketAddr, folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let out = folder.join(name);
    let out_text = out.to_str().expect("ASCII");
    let fixed = [
        "--connections",
        "1",
        "--warmup",
        "200ms",
        "--interval",
        "100ms",
        "--out",
        out_text,
    ];
    let ran = run(address, &[&fixed, options].concat());
    assert!(ran.is_ok(), "{ran:#?}");
    out.join("run.json")
}

/// Takes the doubt of a busy machine from a record: what is tested is the comparison, and a
/// generator that lost its CPU for a moment is no matter of it.
fn trusted(run: &Path) -> String {
    let text = fs::read_to_string(run).expect("a stored run");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["summary"]["verdict"] = "valid".into();
    fs::write(run, record.to_string()).expect("the folder is ours");
    run.to_string_lossy().into_owned()
}

fn compare(a: &str, b: &str, more: &[&str]) -> Ran {
    loadgen(&[&["compare", a, b], more].concat())
}

#[test]
fn run_does_not_differ_from_itself_and_a_slower_server_does() {
    let folder = fresh_folder("compare");
    let options = ["--duration", "3s"];
    let one = slow_server(Duration::from_millis(2));
    let two = slow_server(Duration::from_millis(20));
    let path = |name: &str| folder.join(name).join("run.json");
    // Ten times slower; what hides it is a machine that stood still for longer than both took.
    let seen = |ran: &Ran| {
        ["p50 is higher in B by", "rate is lower in B by"]
            .iter()
            .all(|part| ran.line("verdict").contains(part))
    };
    eventually(
        || {
            let a = trusted(&measured(one, &folder, "a", &options));
            let b = trusted(&measured(two, &folder, "b", &options));
            compare(&a, &b, &[])
        },
        seen,
    );
    let [a, b] = ["a", "b"].map(|name| path(name).to_string_lossy().into_owned());
    let same = compare(&a, &a, &[]);
    assert_eq!(same.code, Some(0), "{same:#?}");
    assert_eq!(same.line("verdict"), "no difference seen");
    assert!(same.stdout.contains("would have been seen"), "{same:#?}");

    let out = folder.join("out");
    let out_text = out.to_str().expect("ASCII");
    let slower = compare(&a, &b, &["-o", out_text]);
    assert_eq!(slower.code, Some(3), "{slower:#?}");
    assert!(
        slower.line("verdict").starts_with("difference: "),
        "{slower:#?}"
    );
    for name in ["compare.html", "compare.svg"] {
        let text = fs::read_to_string(out.join(name)).expect("it was written");
        assert!(text.contains("A: "), "{name}");
    }
    let faster = compare(&b, &a, &[]);
    assert!(
        faster.line("verdict").contains("rate is higher in B"),
        "{faster:#?}"
    );
    let tolerant = compare(&a, &b, &["--least", "1000"]);
    assert_eq!(tolerant.code, Some(0), "{tolerant:#?}");
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn invalid_short_and_unlike_runs_are_told() {
    let folder = fresh_folder("compare-bad");
    let address = echo_server();
    let short = measured(address, &folder, "short", &["--duration", "250ms"]);
    let short = short.to_string_lossy().into_owned();
    let ran = compare(&short, &short, &[]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains("whole intervals, and 5 are needed"),
        "{ran:#?}"
    );

    let run = measured(
        address,
        &folder,
        "a",
        &["--duration", "1500ms", "--rate", "200"],
    );
    let a = trusted(&run);
    let b = trusted(&measured(
        address,
        &folder,
        "b",
        &["--duration", "1500ms", "--rate", "300"],
    ));
    let ran = compare(&a, &b, &[]);
    assert!(
        ran.stdout.contains("note         the loads differ: "),
        "{ran:#?}"
    );
    let closed = trusted(&measured(address, &folder, "c", &["--duration", "1500ms"]));
    let [mixed, both] = [&a, &closed].map(|first| compare(first, &closed, &[]));
    // The rate of an open loop is what was asked for: no result.
    assert!(!mixed.stdout.contains("\n  rate "), "{mixed:#?}");
    assert!(both.stdout.contains("\n  rate "), "{both:#?}");
    let invalid = fs::read_to_string(&run)
        .expect("it is there")
        .replace("\"verdict\":\"valid\"", "\"verdict\":\"generator-bound\"");
    fs::write(folder.join("invalid.json"), invalid).expect("ours");
    let invalid = folder.join("invalid.json").to_string_lossy().into_owned();
    let ran = compare(&a, &invalid, &[]);
    assert_eq!(ran.code, Some(4), "{ran:#?}");
    assert!(ran.line("verdict").starts_with("INVALID"), "{ran:#?}");
    let failed = fs::read_to_string(&run).expect("it is there").replace(
        "\"tally\":[]",
        "\"tally\":[{\"kind\":\"reset\",\"count\":3,\"first\":\"sending\"}]",
    );
    fs::write(&invalid, failed).expect("ours");
    let ran = compare(&a, &invalid, &[]);
    assert!(
        ran.stdout.contains("invalid.json: 3 requests failed"),
        "{ran:#?}"
    );
    let ran = compare(&a, &a, &["--least=-1"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    fs::remove_dir_all(&folder).expect("ours");
}
