//! The status page: one file for all visitors, which requests `/status.json` repeatedly, and what a browser lets it do.

/// The page.
pub const PAGE: &str = include_str!("page.html");

/// Its Content-Security-Policy: its own style and script, by their SHA-256, and requests to the server that it came
/// from. Nothing else runs or is loaded. A test names the new sums after a change of the page.
pub const PAGE_POLICY: &str = "default-src 'none'; \
    style-src 'sha256-q1R1kLmvhgdhupmetIPmXZxEQnmkSOoYF8pd4EapQbo='; \
    script-src 'sha256-+0ErVgq47yZQZf4Z4rbycExhjR5DwMTG/Lx2o+Xc0no='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use data_encoding::{BASE64, HEXLOWER};

    use super::*;

    /// The SHA-256 of a text, by the program of the system.
    fn sha256(text: &str) -> String {
        let mut program = Command::new("sha256sum");
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("part of coreutils");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends").stdout;
        BASE64.encode(&HEXLOWER.decode(&output[..64]).expect("64 digits"))
    }

    #[test]
    fn the_policy_allows_exactly_the_page_s_own_style_and_script() {
        for tag in ["style", "script"] {
            let parts: Vec<&str> = PAGE.split(&format!("<{tag}>")).collect();
            assert_eq!(parts.len(), 2, "one {tag}");
            let (own, _) = parts[1].split_once(&format!("</{tag}>")).expect("it ends");
            let sum = sha256(own);
            assert!(PAGE_POLICY.contains(&format!("{tag}-src 'sha256-{sum}';")), "{tag}-src must be 'sha256-{sum}'");
        }
        assert!(!PAGE_POLICY.contains("unsafe"));
        // Such attributes would need a weaker policy.
        assert!(![" style=", " onclick=", " onload=", "javascript:"].iter().any(|part| PAGE.contains(part)));
    }
}
