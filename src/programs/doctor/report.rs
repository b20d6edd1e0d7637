//! What was found, as text and as JSON. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::consumers::CheckedSource;
use crate::base::text::Escaped;
use crate::ledger::doctor::{Diagnosis, Effect, Examined, Finding, Patient, Place, Places, Remedy};

/// What was found, and where.
pub struct Report {
    server: String,
    database: i64,
    user: String,
    group: String,
    diagnosis: Diagnosis,
    consumers: Vec<CheckedSource>,
}

/// What is said of a program.
fn verdict(examined: &Examined) -> &'static str {
    let has = |wanted: fn(Effect) -> bool| examined.findings.iter().any(|finding| wanted(finding.effect));
    match () {
        () if !examined.works() => "does not work",
        () if has(|effect| matches!(effect, Effect::Slower(_))) => "works slower",
        () if has(|effect| matches!(effect, Effect::Partly(_))) => "works in part",
        () => "works",
    }
}

impl Report {
    /// The report about a server.
    pub fn new(patient: &Patient<'_>, diagnosis: Diagnosis, consumers: Vec<CheckedSource>) -> Report {
        Report {
            server: patient.server.shown(),
            database: patient.server.database(),
            user: patient.user(),
            group: patient.keys.group.clone(),
            diagnosis,
            consumers,
        }
    }

    /// 0 if every program works, also after a failover, and every consumer is reached, else 3.
    pub fn exit_code(&self) -> u8 {
        let Diagnosis { programs, places, .. } = &self.diagnosis;
        let works = programs.iter().all(Examined::works) && places.problems.is_empty();
        if works && self.consumers.iter().all(CheckedSource::works) { 0 } else { 3 }
    }

    /// What to type, as an administrator of the server, so that a program works, or works better.
    fn lines(&self, examined: &Examined) -> Vec<String> {
        let mut grants: Vec<&str> = Vec::new();
        let mut lines: Vec<String> = Vec::new();
        for finding in &examined.findings {
            match &finding.remedy {
                Some(Remedy::Grant(right)) if !grants.contains(&right.as_str()) => grants.push(right),
                Some(Remedy::Type(line)) if !lines.contains(line) => lines.push(line.clone()),
                _ => {}
            }
        }
        // What this user may do, everybody may who needs no password.
        if !grants.is_empty() && self.user != NO_USER {
            lines.insert(0, format!("ACL SETUSER {} {}", self.user, grants.join(" ")));
        }
        lines
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> Value {
        let programs: Vec<Value> =
            self.diagnosis.programs.iter().map(|examined| self.program_to_json(examined)).collect();
        let places = &self.diagnosis.places;
        let warnings: Vec<Value> = self
            .diagnosis
            .warnings
            .iter()
            .map(|(warning, line)| json!({"note": warning.is_note(), "text": warning.to_string(), "type": line}))
            .collect();
        json!({
            "ok": self.exit_code() == 0,
            "redis": self.server,
            "database": self.database,
            "user": self.user,
            "group": self.group,
            "programs": programs,
            "places": places.each.iter().map(place_to_json).collect::<Value>(),
            "problems": places.problems,
            "warnings": places.warnings,
            "notes": places.notes,
            "consumers": self.consumers.iter().map(CheckedSource::to_json).collect::<Value>(),
            "server": warnings,
        })
    }

    fn program_to_json(&self, examined: &Examined) -> Value {
        let findings: Vec<Value> = examined.findings.iter().map(finding_to_json).collect();
        json!({
            "program": examined.program.name(),
            "works": examined.works(),
            "verdict": verdict(examined),
            "findings": findings,
            "notes": examined.notes,
            "type": self.lines(examined),
        })
    }

    fn show_program(&self, examined: &Examined, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}:", examined.program.name())?;
        for (problem, finding) in together(&examined.findings) {
            let after = match finding.effect {
                Effect::Stops => String::new(),
                Effect::Slower(why) | Effect::Partly(why) => format!("; {why}"),
            };
            writeln!(f, "- {}{after}", Escaped(problem))?;
            if let Some(Remedy::Do(what)) = &finding.remedy {
                writeln!(f, "  {}", Escaped(what))?;
            }
        }
        for note in &examined.notes {
            writeln!(f, "- {}", Escaped(note))?;
        }
        for line in self.lines(examined) {
            writeln!(f, "  type: {}", Escaped(line))?;
        }
        if self.user == NO_USER && examined.findings.iter().any(is_grant) {
            writeln!(f, "  this is the user {NO_USER}: does the URL name none? Name one that has these rights")?;
        }
        Ok(())
    }
}

/// The user of connections that don't log in.
const NO_USER: &str = "default";

fn is_grant(finding: &Finding) -> bool {
    matches!(finding.remedy, Some(Remedy::Grant(_)))
}

/// Each problem with its finding. Commands that the user may not call, and channels that it may not use, are listed in
/// one, if the effect is the same.
fn together(findings: &[Finding]) -> Vec<(String, &Finding)> {
    const LISTED: [&str; 2] = [" may not call ", " may not use the channel "];
    let mut all: Vec<(String, &Finding)> = Vec::new();
    for finding in findings {
        let listed = LISTED.iter().find_map(|verb| Some((*verb, finding.problem.split_once(verb)?.1)));
        let before = listed.and_then(|(verb, name)| {
            let same = |(problem, of): &&mut (String, &Finding)| of.effect == finding.effect && problem.contains(verb);
            Some((all.iter_mut().find(same)?, name))
        });
        match before {
            Some(((problem, _), name)) => {
                problem.push_str(", ");
                problem.push_str(name);
            }
            None => all.push((finding.problem.clone(), finding)),
        }
    }
    all
}

fn finding_to_json(finding: &Finding) -> Value {
    let (effect, why) = match finding.effect {
        Effect::Stops => ("stops", None),
        Effect::Slower(why) => ("slower", Some(why)),
        Effect::Partly(why) => ("partly", Some(why)),
    };
    let remedy = match &finding.remedy {
        Some(Remedy::Grant(text)) => json!({"grant": text}),
        Some(Remedy::Type(text)) => json!({"type": text}),
        Some(Remedy::Do(text)) => json!({"do": text}),
        None => Value::Null,
    };
    json!({"effect": effect, "why": why, "problem": finding.problem, "remedy": remedy})
}

fn place_to_json(place: &Place) -> Value {
    let (says, error) = (place.says.as_ref().ok(), place.says.as_ref().err());
    json!({"kind": place.kind, "address": place.address, "says": says, "error": error})
}

fn show_places(places: &Places, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if !places.each.is_empty() {
        writeln!(f, "\nservers:")?;
    }
    for Place { kind, address, says } in &places.each {
        let (Ok(text) | Err(text)) = says;
        writeln!(f, "- {kind} {address}: {}", Escaped(text))?;
    }
    places.problems.iter().try_for_each(|problem| writeln!(f, "- {}", Escaped(problem)))?;
    places.warnings.iter().try_for_each(|warning| writeln!(f, "- warning: {}", Escaped(warning)))?;
    places.notes.iter().try_for_each(|note| writeln!(f, "- note: {}", Escaped(note)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { server, database, user, group, diagnosis, consumers } = self;
        let head = format!("redis {server} database {database}, user {user}, group {group}");
        writeln!(f, "{}\n", Escaped(head))?;
        for examined in &diagnosis.programs {
            writeln!(f, "{:<26}{}", examined.program.name(), verdict(examined))?;
        }
        for examined in &diagnosis.programs {
            if !examined.findings.is_empty() || !examined.notes.is_empty() {
                self.show_program(examined, f)?;
            }
        }
        show_places(&diagnosis.places, f)?;
        if !consumers.is_empty() {
            writeln!(f, "\nconsumers:")?;
        }
        consumers.iter().try_for_each(|source| writeln!(f, "- {}", Escaped(source)))?;
        if !diagnosis.warnings.is_empty() {
            writeln!(f, "\nserver:")?;
        }
        for (warning, line) in &diagnosis.warnings {
            let kind = if warning.is_note() { "note" } else { "warning" };
            writeln!(f, "- {kind}: {}", Escaped(warning))?;
            if let Some(line) = line {
                writeln!(f, "  type: {}", Escaped(line))?;
            }
        }
        let lines = diagnosis.programs.iter().flat_map(|examined| self.lines(examined));
        let lines: Vec<String> = lines.chain(diagnosis.warnings.iter().filter_map(|(_, line)| line.clone())).collect();
        let any = |begin: &str| lines.iter().any(|line| line.starts_with(begin));
        if any("ACL SETUSER") {
            writeln!(f, "\nAfter ACL SETUSER type ACL SAVE, or CONFIG REWRITE without an ACL file, so that it lasts.")?;
        }
        if any("CONFIG SET") {
            writeln!(f, "\nAfter CONFIG SET type CONFIG REWRITE, so that it lasts.")?;
        }
        Ok(())
    }
}
