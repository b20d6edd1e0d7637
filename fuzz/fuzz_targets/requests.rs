//! Any request to the server of metrics is answered by one whole response of HTTP that shows no control characters, or
//! is not complete; whether and how depends on the request alone. Any answer to a health check is yes or no.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oncecast::process::metrics::healthcheck::verdict;
use oncecast::process::metrics::{Access, Metrics, MetricsPlace, Site, Visitor, answer};

const TOKEN: &str = "a-token-of-the-fuzzer";

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let site = Site::new(Metrics::new(), || Err("not yet".to_owned()));
    site.page("/", "text/html", || "<p>".to_owned())
});

/// Without and with a token.
static ACCESS: LazyLock<[Access; 2]> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("oncecast-fuzz-token-{}", std::process::id()));
    std::fs::write(&file, TOKEN).expect("a file");
    let place = MetricsPlace::at("127.0.0.1:1");
    let with_token = MetricsPlace { token_file: Some(file), ..place.clone() };
    [place, with_token].map(|place| Access::new(&place).expect("it can be used"))
});

fuzz_target!(|request: &[u8]| {
    for (access, is_local) in [(&ACCESS[0], false), (&ACCESS[1], false), (&ACCESS[1], true)] {
        let Some(response) = answer(request, Visitor { site: &SITE, access, is_local }) else { continue };
        let bytes = response.into_bytes();
        let text = std::str::from_utf8(&bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 ") && head.split("\r\n").all(|line| !line.contains(char::is_control)));
        assert!(!body.contains(|char: char| char.is_control() && char != '\n'), "{body:?}");
        let is_open = [" 200 ", " 404 "].iter().any(|code| head[..13].contains(code));
        let has_token = request.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        // The fuzzer may find the token in base 64, too.
        let has_login = request.windows(5).any(|part| part.eq_ignore_ascii_case(b"basic"));
        let is_health = body == "ok\n";
        assert!(std::ptr::eq(access, &ACCESS[0]) || !is_open || has_token || has_login || (is_local && is_health));
    }
    // Any verdict will do.
    let _ = verdict(request);
});
