//! What a setting is: its name, its value, its default and its help.

use clap::Arg;

use crate::base::setting::variable_of;

/// One setting, as `--help` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    pub(super) default: Default,
    help: &'static str,
    pub(crate) secret: bool,
    /// A switch, which is given or not and has no value.
    pub(crate) switch: bool,
    /// A list, whose flag may be repeated.
    list: bool,
}

/// The value of a setting that is not given.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// There is no default: a value must be given.
    Required,
    /// This text.
    Text(&'static str),
    /// The program finds the value itself, as this text describes.
    Found(&'static str),
}

impl Setting {
    /// A setting with a value, whose placeholder in `--help` is `value`.
    pub const fn new(name: &'static str, value: &'static str, default: Default, help: &'static str) -> Setting {
        Setting { name, value, default, help, secret: false, switch: false, list: false }
    }

    /// A setting that is given or not and has no value.
    pub const fn switch(name: &'static str, help: &'static str) -> Setting {
        Setting { switch: true, ..Setting::new(name, "", Default::Found("no"), help) }
    }

    /// Makes the setting a secret: its value is never shown, and may be read from a file.
    pub const fn secret(mut self) -> Setting {
        self.secret = true;
        self
    }

    /// Makes the setting a list: its flag may be repeated.
    pub const fn list(mut self) -> Setting {
        self.list = true;
        self
    }

    /// The setting as a flag.
    pub(super) fn arg(&self) -> Arg {
        let variable = variable_of(self.name);
        let default = match self.default {
            Default::Required => "required".to_owned(),
            Default::Text(text) => format!("default: {text}"),
            Default::Found(how) => format!("default: {how}"),
        };
        let file =
            if self.secret { format!(", or the path of a file with it in {variable}_FILE") } else { String::new() };
        // We read the variable ourselves, because clap would show its value in --help.
        let arg =
            Arg::new(self.name).long(self.name).help(format!("{}\n[{default}] [env: {variable}{file}]", self.help));
        match self.switch {
            // The word after a switch is not its value.
            true => arg
                .action(clap::ArgAction::Set)
                .num_args(0)
                .value_parser(clap::value_parser!(String))
                .default_missing_value("yes"),
            false => {
                let action = if self.list { clap::ArgAction::Append } else { clap::ArgAction::Set };
                arg.value_name(self.value).allow_hyphen_values(true).action(action)
            }
        }
    }
}
