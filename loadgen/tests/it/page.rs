//! `report.html` and `compare.html` in a browser: nothing on its console, nothing asked of the
//! network.
//!
//! Needs chromium; without it the test says so and passes. The browser's names resolve to nothing,
//! so that its own habits cannot reach the network either.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{echo, echo_server, fresh_folder, loadgen, run, server, skipped};

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// Whom the browser itself asks for time, updates and accounts.
const OWN_HOSTS: [&str; 3] = ["google.com", "googleapis.com", "gvt1.com"];

/// What a browser made of a page.
#[derive(Debug)]
struct Opened {
    /// The document after it was loaded.
    document: String,
    console: Vec<String>,
    /// Addresses other than the browser's own.
    requests: Vec<String>,
}

fn browser() -> Option<&'static str> {
    BROWSERS.into_iter().find(|name| {
        let version = Command::new(name)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        version.is_ok_and(|output| output.status.success())
    })
}

fn open(browser: &str, page: &Path, folder: &Path) -> Opened {
    let net_log = folder.join("net-log.json");
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let output = Command::new("timeout")
        .args([
            "60",
            browser,
            "--headless",
            "--disable-gpu",
            "--no-first-run",
        ])
        // Root, as in a container, may not use the sandbox; the page is our own.
        .args([
            "--no-sandbox",
            "--disable-background-networking",
            "--disable-sync",
        ])
        .args([
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
        ])
        .args(["--log-level=0", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(flag("log-net-log", &net_log))
        .arg(flag("user-data-dir", &folder.join("profile")))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("timeout is part of every Linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let log = fs::read_to_string(&net_log).expect("the browser wrote its log");
    let urls = log
        .split("\"url\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let is_own = |url: &str| {
        let host = url.split('/').nth(2).unwrap_or_default();
        OWN_HOSTS.iter().any(|own| host.ends_with(own))
    };
    Opened {
        document: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: said
            .lines()
            .filter(|line| line.contains(":CONSOLE"))
            .map(str::to_owned)
            .collect(),
        requests: urls
            .filter(|url| url.starts_with("http") && !is_own(url))
            .map(str::to_owned)
            .collect(),
    }
}

fn measured(folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(name);
    let options = [
        "--rate",
        "500",
        "--warmup",
        "100ms",
        "--duration",
        "600ms",
        "--interval",
        "50ms",
        "--out",
        out.to_str().expect("ASCII"),
    ];
    let ran = run(echo_server(), &options);
    assert!(ran.is_ok(), "{ran:#?}");
    out
}

#[test]
fn pages_say_nothing_on_the_console_and_ask_nothing_of_the_network() {
    let Some(browser) = browser() else {
        return skipped(&format!("none of {BROWSERS:?} is installed"));
    };
    let folder = fresh_folder("pages");
    let (a, b) = (measured(&folder, "a"), measured(&folder, "b"));
    // A page that does both: what is looked for can be found.
    let planted = folder.join("planted.html");
    let bad = "<img src=\"http://127.0.0.1:9/x.png\"><script>console.error('planted')</script>";
    fs::write(&planted, bad).expect("the folder is writable");
    let opened = open(browser, &planted, &folder);
    assert!(
        opened.console.iter().any(|line| line.contains("planted")),
        "{opened:?}"
    );
    assert!(
        opened.requests.iter().any(|url| url.contains("x.png")),
        "{opened:?}"
    );

    let compared = folder.join("compared");
    let runs = [&a, &b].map(|run| run.join("run.json").to_string_lossy().into_owned());
    let ran = loadgen(&[
        "compare",
        &runs[0],
        &runs[1],
        "-o",
        compared.to_str().expect("ASCII"),
    ]);
    assert!(matches!(ran.code, Some(0 | 3 | 4)), "{ran:#?}");
    for (page, part) in [
        (a.join("report.html"), "Self-check"),
        (compared.join("compare.html"), "Two runs compared"),
    ] {
        let opened = open(browser, &page, &folder);
        assert!(opened.document.contains(part), "{opened:?}");
        assert!(opened.document.contains("<svg"), "{opened:?}");
        assert_eq!(opened.console, [""; 0], "{}", page.display());
        assert_eq!(opened.requests, [""; 0], "{}", page.display());
    }
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// Without a browser at hand: one file, whole, and without an address to load anything from.
#[test]
fn page_is_one_file_that_refers_to_no_other() {
    let folder = fresh_folder("one-file");
    let page = fs::read_to_string(measured(&folder, "a").join("report.html")).expect("it is there");
    for part in [
        "<!doctype html>",
        "default-src 'none'",
        "Latency by percentile",
        "Rate",
        "Arrival process",
        "Self-check",
        "Environment",
        "--interval 50ms",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for address in ["src=", "<script", "@import", "url(", "http-equiv=\"refresh"] {
        assert!(!page.contains(address), "{address}");
    }
    let links: Vec<&str> = page.split("href=\"").skip(1).collect();
    assert!(
        links.iter().all(|link| link.starts_with("data:,")),
        "{links:?}"
    );
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// A server that takes everything and says nothing.
#[test]
fn run_without_an_answer_has_its_pictures_and_says_so() {
    let folder = fresh_folder("unanswered");
    let silent = server(|stream| {
        echo(stream, |answer| {
            answer.clear();
            true
        });
    });
    let options = [
        "--connections",
        "2",
        "--warmup",
        "0s",
        "--duration",
        "300ms",
        "--interval",
        "100ms",
        "--drain",
        "100ms",
        "--out",
        folder.to_str().expect("ASCII"),
    ];
    let ran = run(silent, &options);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let page = fs::read_to_string(folder.join("report.html")).expect("it is there");
    assert!(
        page.contains("<strong>Nothing was measured</strong>"),
        "{page}"
    );
    for picture in ["latency.svg", "timeline.svg"] {
        let text = fs::read_to_string(folder.join(picture)).expect("it is there");
        assert!(text.contains("no request was answered"), "{text}");
    }
    fs::remove_dir_all(&folder).expect("the folder is ours");
}
