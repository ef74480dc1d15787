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

    /// The claims as a Markdown table.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| Claim | Figure | Data | Network | Statistic | Measured (95 % interval) | Verdict | Command |\n\
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
    fn markdown_has_a_row_of_eight_cells_for_each_claim() {
        let text = Claims { rows: claims().to_vec() }.markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.replace("\\|", "").matches('|').count() == 9), "{text}");
        assert!(lines[2].contains("0.25 [0.2, 0.3], p < 0.0001 | **holds**"), "{text}");
        assert!(lines[3].contains("| \u{2014} | **not measured**"), "{text}");
    }
}
