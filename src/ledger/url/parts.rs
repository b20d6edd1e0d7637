//! What is wrong with the parts that several forms of a Redis URL have, in words. Pure.

use crate::base::address::mistake_in_port;

/// `user:password`, `user:` or `:password`.
pub(super) fn in_login(login: &str) -> Option<String> {
    if login.contains(['/', '?', '#']) {
        return Some(
            "there is a / ? or # before the @; in user and password write them as %2F %3F %23 (percent-encoded), and % \
             as %25"
                .to_owned(),
        );
    }
    if has_bare_percent(login) {
        return Some("a % before the @ is not followed by two hexadecimal digits; write % as %25".to_owned());
    }
    if !login.contains(':') {
        return Some(
            "there is a user without a password before the @: write user:password@, :password@ if it is a password, or \
             user:@ for a user who needs none"
                .to_owned(),
        );
    }
    (login == ":").then(|| "there is neither a user nor a password before the @; leave out the @".to_owned())
}

/// Whether a percent sign encodes nothing.
pub(super) fn has_bare_percent(text: &str) -> bool {
    let encodes = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).any(|rest| !encodes(rest))
}

/// A port.
pub(super) fn in_port(port: &str) -> Option<String> {
    let mistake = mistake_in_port(port)?;
    let in_password = !port.is_empty() && !port.bytes().all(|byte| byte.is_ascii_digit());
    let hint = if in_password { "; in user and password, percent-encode special characters" } else { "" };
    Some(format!("{mistake}{hint}"))
}

/// A database's number.
pub(super) fn in_database(database: &str) -> Option<String> {
    let good = database.is_empty() || database.bytes().all(|byte| byte.is_ascii_digit()) && database.len() <= 9;
    (!good).then(|| "the database after the / must be a number, as in redis://host/1".to_owned())
}

/// The name of the first parameter.
pub(super) fn name_of(parameters: &str) -> &str {
    parameters.split(['=', '&']).next().unwrap_or_default()
}
