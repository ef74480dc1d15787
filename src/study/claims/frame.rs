//! The table of claims: as a frame, in words and as Markdown.

use std::fmt::Write as _;

use crate::frame::{Table, TableError, columns, named_item, real, strings};
use crate::study::claims::{Claim, Claims, Verdict};

named_item!(Verdict, Verdict::ALL, "verdicts");

/// Name of the stored table, without its extension.
pub const NAME: &str = "claims";

columns!(Claim, "claims",
    /// One row for each claim: `claim`, `figure`, `dataset`, `network`, `statistic`, `value`, `low` and `high` of its
    /// interval, `p`, `verdict` and `command`. A number that was not measured is null.
    claims_frame, claims_rows, {
    "claim": (claim),
    "figure": (figure),
    "dataset": (dataset),
    "network": (network),
    "statistic": (statistic),
    "value": (value),
    "low": [
        |c| c.interval.map(|[low, _]| low),
        |c, low: Option<f64>| c.interval = low.map(|low| [low, f64::NAN])
    ],
    "high": [
        |c| c.interval.map(|[_, high]| high),
        |c, high: Option<f64>| c.interval = c.interval.zip(high).map(|([low, _], high)| [low, high])
    ],
    "p": (p),
    "verdict": (verdict),
    "command": (command),
});

/// The networks with a verdict, in words.
fn networks(rows: &[Claim], verdict: Verdict) -> String {
    let of = rows.iter().filter(|c| c.verdict == verdict);
    of.map(|c| format!("{} {}", c.dataset, c.network)).collect::<Vec<String>>().join(", ")
}

/// The value with its interval and, if there is one, its probability, as text.
fn measured(claim: &Claim) -> String {
    let Some(value) = claim.value else { return "\u{2014}".into() };
    let mut text = real(value, 3);
    if let Some([low, high]) = claim.interval {
        let _ = write!(text, " [{}, {}]", real(low, 3), real(high, 3));
    }
    if let Some(p) = claim.p {
        let _ = if p < 1e-4 { write!(text, ", p < 0.0001") } else { write!(text, ", p = {}", real(p, 2)) };
    }
    text
}

impl Claims {
    /// The claims in words, one row each.
    ///
    /// # Errors
    /// As [`Table::new`].
    pub fn table(&self) -> Result<Table, TableError> {
        let words = |text: fn(&Claim) -> String| self.rows.iter().map(text).collect();
        let columns = vec![
            strings("claim", words(|c| c.claim.clone())),
            strings("figure", words(|c| c.figure.clone())),
            strings("data", words(|c| c.dataset.clone())),
            strings("network", words(|c| c.network.clone())),
            strings("measured", words(measured)),
            strings("verdict", words(|c| c.verdict.name().to_owned())),
        ];
        let caption = "Claims of the paper, with 95 percent intervals";
        Ok(Table::new(caption, columns)?.rows(self.rows.len()))
    }

    /// The claims in the order of the paper's figures, those that are not in the paper last. The rows of one claim follow one
    /// another.
    pub fn by_figure(mut self) -> Self {
        let order: Vec<String> = self.rows.iter().map(|c| c.claim.clone()).collect();
        self.rows.sort_by_cached_key(|c| {
            let number: String =
                c.figure.chars().filter(|c| !c.is_whitespace()).skip_while(|c| !c.is_ascii_digit()).collect();
            let digits = number.chars().take_while(char::is_ascii_digit).collect::<String>();
            let rest = number.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
            let first = order.iter().position(|claim| *claim == c.claim);
            (digits.parse::<u32>().unwrap_or(u32::MAX), rest, first)
        });
        self
    }

    /// One line for each claim: the networks for which it holds, holds in part and does not hold, and those for which it was not
    /// measured.
    ///
    /// # Errors
    /// As [`Table::new`].
    pub fn summary(&self) -> Result<Table, TableError> {
        let lines = self.lines();
        let mut columns = vec![
            strings("claim", lines.iter().map(|rows| rows[0].claim.clone()).collect()),
            strings("figure", lines.iter().map(|rows| rows[0].figure.clone()).collect()),
        ];
        for verdict in Verdict::ALL {
            columns.push(strings(verdict.name(), lines.iter().map(|rows| networks(rows, verdict)).collect()));
        }
        Ok(Table::new("Claims, one line each", columns)?.rows(lines.len()))
    }

    /// The rows of each claim.
    fn lines(&self) -> Vec<&[Claim]> {
        self.rows.chunk_by(|a, b| a.claim == b.claim).collect()
    }

    /// The claims as two Markdown tables: one line for each claim, and one for each claim and network.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "| Claim | Figure | {} |\n|---|---|---|---|---|---|\n",
            Verdict::ALL
                .map(|verdict| format!("{}{}", verdict.name()[..1].to_uppercase(), &verdict.name()[1..]))
                .join(" | ")
        );
        for rows in self.lines() {
            let marks = Verdict::ALL.map(|verdict| networks(rows, verdict)).join(" | ");
            let _ = writeln!(text, "| {} | {} | {marks} |", rows[0].claim, rows[0].figure);
        }
        text.push_str(
            "\n| Claim | Figure | Data | Network | Statistic | Measured (95 % interval) | Verdict | Command |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for c in &self.rows {
            // A bar would end the column.
            let escaped = |s: &str| s.replace('|', "\\|");
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | **{}** | `{}` |",
                escaped(&c.claim),
                escaped(&c.figure),
                escaped(&c.dataset),
                escaped(&c.network),
                escaped(&c.statistic),
                measured(c),
                c.verdict.name(),
                escaped(&c.command),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> [Claim; 2] {
        let one = Claim {
            claim: "spurious samples peak".into(),
            figure: "Fig. 4A".into(),
            dataset: "mnist".into(),
            network: "mlp128".into(),
            statistic: "largest |fraction|".into(),
            value: Some(0.25),
            interval: Some([0.2, 0.3]),
            p: Some(1e-9),
            verdict: Verdict::Holds,
            command: "mem2gen sweep collect".into(),
        };
        let none = Claim {
            statistic: "no samples".into(),
            value: None,
            interval: None,
            p: None,
            verdict: Verdict::NotMeasured,
            ..one.clone()
        };
        [one, none]
    }

    #[test]
    fn claims_survive_writing_and_reading() {
        let claims = claims();
        assert_eq!(claims_rows(&claims_frame(&claims).unwrap()).unwrap(), claims);
        assert!(claims_rows(&claims_frame(&[]).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn claims_follow_the_figures_of_the_paper() {
        let claim = |claim: &str, figure: &str, network: &str| Claim {
            claim: claim.into(),
            figure: figure.into(),
            network: network.into(),
            ..Claim::default()
        };
        let rows = vec![
            claim("d", "-", "one"),
            claim("c", "Figs. 7, 8", "one"),
            claim("b", "Fig. 4B", "one"),
            claim("e", "Fig. 10", "one"),
            claim("a", "Fig. 4A", "one"),
            claim("z", "Fig. 4A", "one"),
            claim("b", "Fig. 4B", "two"),
            claim("a", "Fig. 4A", "two"),
        ];
        let sorted = Claims { rows }.by_figure();
        let order: Vec<String> =
            sorted.rows.iter().map(|c| format!("{}{}", c.claim, &c.network[..1])).collect();
        assert_eq!(order, ["ao", "at", "zo", "bo", "bt", "co", "eo", "do"]);
        let summary = sorted.summary().unwrap().to_text();
        assert!(summary.contains("one, ") && summary.lines().count() >= 6, "{summary}");
    }

    #[test]
    fn markdown_has_a_line_for_each_claim_and_a_row_for_each_network() {
        let text = Claims { rows: claims().to_vec() }.markdown();
        let (summary, rows) = text.split_once("\n\n").unwrap();
        let lines: Vec<&str> = summary.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|l| l.matches('|').count() == 7), "{summary}");
        assert_eq!(lines[2], "| spurious samples peak | Fig. 4A | mnist mlp128 |  |  | mnist mlp128 |");
        let lines: Vec<&str> = rows.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.replace("\\|", "").matches('|').count() == 9), "{text}");
        assert!(lines[2].contains("0.25 [0.2, 0.3], p < 0.0001 | **holds**"), "{text}");
        assert!(lines[3].contains("| \u{2014} | **not measured**"), "{text}");
    }
}
